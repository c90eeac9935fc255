"""A Flax module around a recurrent cell, and the settings by which cells are run."""

from typing import Any, NamedTuple

from flax import linen as nn
from jax import Array

from rnngen_jax import recurrence
from rnngen_jax.cells.base import Carry, Cell, initial_carry
from rnngen_jax.recurrence.base import Strategy


class Run(NamedTuple):
    """How a module runs its cells over a sequence.

    Attributes:
      strategy: as in `recurrence.unroll`.
      remat: as in `recurrence.unroll`; 0 for `None`.
    """

    strategy: str | Strategy = "auto"
    remat: int = 0

    @property
    def options(self) -> dict[str, Any]:
        """The keyword arguments of `recurrence.unroll`."""
        return {"strategy": self.strategy, "remat": self.remat or None}


class Recurrent(nn.Module):
    """Owns a cell's parameters; runs the cell over a sequence or for one step.

    Attributes:
      cell: any cell.
      in_features: D.
      run: how the cell is run over a sequence.
    """

    cell: Cell
    in_features: int
    run: Run = Run()

    def setup(self) -> None:
        """Declares the cell's parameters."""
        self.params = self.param("cell", self.cell.init, self.in_features)

    def __call__(self, xs: Array) -> Array:
        """`[T, B, D] -> [T, B, F]`."""
        _, ys = recurrence.unroll(self.cell, self.params, xs, **self.run.options)
        return ys

    def first(self, batch_shape: tuple[int, ...], dtype: Any) -> Carry:
        """The carry before the first step."""
        return initial_carry(self.cell, self.params, batch_shape, dtype)

    def step(self, carry: Carry, x: Array) -> tuple[Carry, Array]:
        """One step, `x [B, D] -> (carry, y [B, F])`."""
        return self.cell.step(self.params, carry, self.cell.inputs(self.params, x))
