"""The options of Newton's method, and its cost model."""

import dataclasses
import math

from rnngen_jax.config import require, require_choice
from rnngen_jax.ops.devices import compiled_for

# Iterations without progress after which a window is given up.
PATIENCE = 3

# Latency of a sequential step, in multiply-adds: 1.6 µs on a CPU core (measured); the 26 µs of a
# scan published for GPUs, at 10^12 multiply-adds per second.
_LATENCY, _ACCELERATOR_LATENCY = 5e3, 26e6
# The cost of a Jacobian's multiply-add relative to a sequential step's, and of an associative scan
# per doubling of its length, in sequential steps. Measured for carries of 8 values, where memory
# traffic counts most; for wide ones both are up to ten times less.
_JACOBIAN_COST, _ROUND_COST = 24.0, 24.0
# Allocating one value of a solution, in multiply-adds; spent even if nothing is solved.
_ROOM_COST = 5.0
# A partly solved run is assembled from about this many chunks.
_CHUNKS = 32
# Windows of fewer steps gain nothing; Jacobians of more values do not fit in memory.
_SHORTEST, _LARGEST = 8, 2**27


@dataclasses.dataclass(frozen=True)
class Method:
    """The options of `newton`, by their names there."""

    jacobian: str
    tolerance: float
    max_iterations: int
    probes: int
    window: int
    overhead: float

    def __post_init__(self) -> None:
        """Checks every range."""
        require_choice("newton: jacobian", self.jacobian, ("full", "diagonal"))
        require(self.tolerance > 0, "newton: tolerance", self.tolerance, "> 0")
        require(self.max_iterations > 0, "newton: max_iterations", self.max_iterations, "≥ 1")
        require(self.probes > 0, "newton: probes", self.probes, "≥ 1")
        require(self.window >= 0, "newton: window", self.window, "≥ 1, or 0 to derive it")
        require(self.overhead >= 0, "newton: overhead", self.overhead, "≥ 0")

    @property
    def full(self) -> bool:
        """Whether Jacobians are matrices."""
        return self.jacobian == "full"

    def cost(self, window: int, batch: int, size: int) -> float:
        """Estimated time of one iteration, in sequential steps.

        Args:
          window: number of steps.
          batch: number of examples.
          size: values in one example's carry.
        """
        tangents = size if self.full else min(self.probes, size)
        work = _JACOBIAN_COST * batch * size**2 * (tangents + 2)
        return _ROUND_COST * math.log2(2 * window) + window * work / _step_cost(batch, size)

    def allowance(self, inputs_shape: tuple[int, ...], size: int) -> float:
        """How many sequential steps' time failed iterations may cost, for inputs `[T, ..., D]`."""
        if self.window:
            return math.inf
        length, batch = inputs_shape[0], math.prod(inputs_shape[1:-1])
        room = _ROOM_COST * batch * size / _step_cost(batch, size)
        return (self.overhead - room) * length

    def window_for(self, inputs_shape: tuple[int, ...], size: int) -> int:
        """Steps to solve at once for inputs `[T, ..., D]`; 0 where a trial would cost too much."""
        length, batch = inputs_shape[0], math.prod(inputs_shape[1:-1])
        if self.window:
            return min(self.window, length)
        numbers = batch * size * (size if self.full else 1)
        window = min(length, max(_LARGEST // max(numbers, 1), 1))
        if math.isinf(self.overhead):
            return window
        allowed = self.allowance(inputs_shape, size)
        while window and PATIENCE * self.cost(window, batch, size) > allowed:
            window = window * 7 // 8
        return window if window >= _SHORTEST else 0

    def chunk_for(self, window: int, length: int) -> int:
        """Steps per chunk; a chunk is either wholly solved or wholly run step by step."""
        if self.window:
            return window
        return window * max(length // (_CHUNKS * window), 1)


def _step_cost(batch: int, size: int) -> float:
    """Cost of one sequential step, in multiply-adds."""
    latency = _LATENCY if compiled_for() == "cpu" else _ACCELERATOR_LATENCY
    return latency + batch * size**2
