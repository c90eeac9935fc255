"""How the sequential strategy runs a gated cell where it is not told: by shape and platform."""

from typing import NamedTuple

# Rows (steps times sequences) per chunk on a CPU: enough for a product to run at full speed, few
# enough for a chunk's arrays to stay in cache.
_CPU_ROWS = 1024

# The same for cells over maps, which lay out a kernel's worth of places for each row; elsewhere few
# enough for that to fit in memory.
_MAP_ROWS = 2**18

# Features from which gates are stored.
_STORED = 192

# On a TPU, features up to which a cell is run features first, and sequences from which it is: those
# that fill a register's lanes.
_COLUMNS = 128
_LANES = 128

# Steps per iteration of the loop on a TPU.
_TPU_UNROLL = 4


class Choice(NamedTuple):
    """How a gated cell is run; no choice changes a result, up to rounding.

    Attributes:
      stored: whether pre-activations are kept for the gradient, instead of rematerialised.
      chunk: maximum steps per chunk.
      unroll: steps per iteration of the loop.
      columns: whether arrays are features first (`columns.py`).
    """

    stored: bool
    chunk: int
    unroll: int
    columns: bool = False


def choose(platform: str, rows: int, features: int, side: int = 1) -> Choice:
    """The choice for a platform and a shape.

        platform   stored          chunk              unroll   columns
        cpu        F ≥ 192         1024 / rows, ≥ 8   1        never
        tpu        F ≥ 192         4096               4        F ≤ 128 and rows ≥ 128
        others     always          4096               1        never

    CPU: rematerialising a number costs F multiplications, storing it one number, and a chunk's
    arrays should stay in a core's cache.

    TPU: by its compiler's estimate, each fused operation of a step costs about 1,800 cycles before
    it has done anything, much more than its arithmetic, so what counts is how many there are. Four
    steps per iteration share the operations that read inputs and write results; from five on,
    they are written one by one again (docs/benchmarks.md has the table).
    Its registers have 128 lanes along the last axis, which F features leave empty and at least as
    many rows fill.

    Args:
      platform: as `ops.devices.compiled_for` gives it.
      rows: sequences, over all batch axes.
      features: F.
      side: of the square of places that a product takes, for cells over maps. Above 1, what counts
        for `stored` is side² F, a chunk is one step if that has rows enough, and there are no
        columns.
    """
    if side > 1:
        most = _CPU_ROWS if platform == "cpu" else _MAP_ROWS
        return Choice(side**2 * features >= _STORED, max(most // rows, 1), 1)
    if platform == "cpu":
        return Choice(features >= _STORED, max(_CPU_ROWS // rows, 8), 1)
    if platform == "tpu":
        columns = features <= _COLUMNS and rows >= _LANES
        return Choice(features >= _STORED, 4096, _TPU_UNROLL, columns)
    return Choice(True, 4096, 1)
