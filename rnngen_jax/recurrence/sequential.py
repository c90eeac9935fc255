"""One step after another in one compiled loop, with a custom gradient for gated cells."""

from typing import Any

import jax
from jax import Array

from rnngen_jax.cells.base import Carry, Cell, Params
from rnngen_jax.config import require, require_choice
from rnngen_jax.ops.devices import compiled_for
from rnngen_jax.ops.products import is_narrow
from rnngen_jax.recurrence.base import Sequence, Strategy, composed, pick
from rnngen_jax.recurrence.choices import choose
from rnngen_jax.recurrence.columns import columns
from rnngen_jax.recurrence.stacked import stacked

GRADIENTS = ("stacked", "autodiff")
GATES = ("auto", "store", "recompute")


def sequential(
    *,
    gradient: str = "stacked",
    gates: str = "auto",
    chunk: int = 0,
    unroll: int = 0,
) -> Strategy:
    """A `jax.lax.scan` over time.

    Args:
      gradient: "stacked" computes gated cells' weight gradients as one product per chunk of steps
        (`stacked.py`). For other cells, and with "autodiff", the gradient is JAX's own, which
        accumulates weight gradients step by step in the loop's carry but has forward mode.
      gates: for the stacked gradient, "store" keeps the gates, "recompute" rematerialises them
        chunk by chunk, "auto" chooses by shape and platform (`choices.py`); with no `chunk` either,
        thin cells on a TPU are run features first (`columns.py`).
      chunk: maximum steps per chunk of the stacked gradient; 0 chooses by shape and platform.
      unroll: steps per iteration of the compiled loop; 0 chooses by platform for the stacked
        gradient, and is 1 otherwise.

    Raises:
      UserError: an option out of range.
    """
    require_choice("strategy 'sequential': gradient", gradient, GRADIENTS)
    require_choice("strategy 'sequential': gates", gates, GATES)
    require(chunk >= 0, "strategy 'sequential': chunk", chunk, "≥ 0")
    require(unroll >= 0, "strategy 'sequential': unroll", unroll, "≥ 0")

    @composed
    def run(cell: Cell, params: Params, sequence: Sequence) -> tuple[Carry, Array]:
        if gradient == "stacked" and cell.gated is not None:
            length, rows = sequence.xs.shape[0], sequence.carry[0].size // cell.features
            choice = choose(compiled_for(), rows, cell.features, cell.gated.side)
            if choice.columns and gates == "auto" and not chunk and length <= choice.chunk:
                return columns(cell, params, sequence, unroll=unroll or choice.unroll)
            return stacked(cell, params, sequence, gates=gates, chunk=chunk, unroll=unroll)
        return _scan(cell, params, sequence, unroll or 1)

    return run


def _scan(cell: Cell, params: Params, sequence: Sequence, unroll: int) -> tuple[Carry, Array]:
    """Any cell, differentiated by JAX."""
    # The input product is hoisted unless computing it is cheaper than storing and reloading it.
    hoisted = not is_narrow(sequence.xs) or cell.maps
    inputs = cell.inputs(params, sequence.xs) if hoisted else sequence.xs

    def body(carry: Carry, step: tuple[Any, Array | None]) -> tuple[Carry, Array]:
        z, begins = step
        if begins is not None:
            carry = pick(begins, sequence.first, carry)
        return cell.step(params, carry, z if hoisted else cell.inputs(params, z))

    return jax.lax.scan(
        body, sequence.carry, (inputs, sequence.reset), reverse=sequence.reverse, unroll=unroll
    )
