"""The Row LSTM's layer: a recurrence over rows, convolved along them."""

from typing import NamedTuple

import jax
from jax import Array

from rnngen_jax.cells.base import Carry, Cell, preactivations
from rnngen_jax.cells.convolved import convolved
from rnngen_jax.cells.learned_carry import learned_carry
from rnngen_jax.modules.grid.parts import GridLayer
from rnngen_jax.modules.recurrent import Recurrent, Run
from rnngen_jax.ops import grids
from rnngen_jax.ops.devices import compiled_for
from rnngen_jax.ops.products import multiplier
from rnngen_jax.recurrence.choices import choose


class RowState(NamedTuple):
    """The sampler's state.

    Attributes:
      rows: inputs, as `grids.first_rows`.
      above: carries of the row above, `[W, B, F]`.
      products: their terms in each gate's pre-activation, `[W, B, F]`; none for linear cells.
      here: carries of the current row.
    """

    rows: Array
    above: Carry
    products: dict[str, Array]
    here: Carry


class RowLSTM(GridLayer):
    """Row LSTM (van den Oord et al. 2016, section 3.1), with any cell that can be convolved.

    A pixel's state depends on the states of the row above, `radius` to each side, and on the inputs
    of its own row up to itself; a 1x1 convolution maps it to the map's width. Linear cells, whose
    gates see inputs only, get the inputs of the row above instead of its states.

    Attributes:
      cell: gated or linear.
      radius: the kernels are `2·radius + 1` wide.
      learned: learns the carry above the first row.
      run: how the cell is run over rows.
    """

    cell: Cell
    radius: int
    learned: bool = False
    run: Run = Run()

    def setup(self) -> None:
        """Declares the layers."""
        super().setup()
        radius = self.radius
        aside = range(-radius, radius + 1)
        taps = (*grids.left(radius), (0, 0))
        if self.cell.linear is not None:
            taps = (*((-1, n) for n in aside), *taps)
        mask = grids.tap_mask("B", self.channels, taps, self.width, self.cell.features)
        self.taps, self.inner = taps, convolved(self.cell, tuple(aside), mask)
        cell = learned_carry(self.inner) if self.learned else self.inner
        self.recurrent = Recurrent(cell, len(taps) * self.width, self.run)

    def __call__(
        self, above: Array | None, x: Array, mask: Array | None = None
    ) -> tuple[Array | None, Array]:
        """Whole maps `[H, W, B, D]`; `mask [B, F]` is the dropout mask."""
        y = self.recurrent(self._gather(x))
        return above, self.project(x, y if mask is None else y * mask)

    def first(self, batch: int) -> RowState:
        """The state before the first row."""
        here = self.recurrent.first((self.columns, batch), "float32")
        rows = grids.first_rows(self.taps, self.columns, batch, self.width)
        return RowState(rows, here, self._products(here), here)

    def row(self, state: RowState, above: Array | None) -> tuple[RowState, Array | None]:
        """Before a row: the terms of the states above, for all its pixels in one product."""
        rows, here = grids.next_row(state.rows), state.here
        return RowState(rows, here, self._products(here), here), above

    def pixel(self, state: RowState, x: Array, column: Array) -> tuple[RowState, Array]:
        """One pixel `[B, D]`."""
        cell, params = self.inner, self._params()
        rows = grids.put(state.rows, self.taps, x, column)
        z = cell.inputs(params, grids.look(rows, self.taps, column))
        carry, products = jax.tree.map(lambda leaf: leaf[column], (state.above, state.products))
        if cell.gated is None:
            carry, y = cell.step(params, carry, z)
        else:
            a = preactivations(z, products, cell.gated.biases(params))
            carry = cell.gated.combine(carry, a)
            y = carry[0]
        here = jax.tree.map(lambda old, new: old.at[column].set(new), state.here, carry)
        return state._replace(rows=rows, here=here), self.project(x, y)

    def _gather(self, x: Array) -> Array:
        """The taps of each pixel."""
        sequences = x.shape[1] * x.shape[2]
        if choose(compiled_for(), sequences, self.cell.features).columns:
            return grids.gather_columns(x, self.taps)
        return grids.gather(x, self.taps)

    def _params(self) -> dict:
        return self.recurrent.params["cell"] if self.learned else self.recurrent.params

    def _products(self, carry: Carry) -> dict[str, Array]:
        gated = self.inner.gated
        if gated is None:
            return {}
        return multiplier(gated.kernels(self._params()))(gated.spread(carry[0]))
