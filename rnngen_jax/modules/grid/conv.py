"""PixelCNN's layers: masked convolutions, plain and gated."""

from typing import NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from rnngen_jax.modules.grid.parts import GridLayer, MaskedDense, TapDense
from rnngen_jax.ops import grids


class ConvBlock(GridLayer):
    """PixelCNN's residual block (van den Oord et al. 2016, figure 5, left).

    With square kernels the layers leave a blind spot to the right: earlier pixels that are never
    seen, however many layers there are.

    Attributes:
      features: F within the block.
      radius: the square kernel's side is `2·radius + 1`.
    """

    features: int
    radius: int

    def setup(self) -> None:
        """Declares the layers."""
        super().setup()
        self.taps = (*grids.before(self.radius), (0, 0))
        self.narrow = MaskedDense(self.features, self.channels)
        self.conv = TapDense(self.features, self.channels, self.taps)

    def __call__(
        self, above: Array | None, x: Array, mask: Array | None = None
    ) -> tuple[Array | None, Array]:
        """Whole maps `[H, W, B, D]`; `mask [B, F]` is the dropout mask."""
        y = nn.relu(self.conv(grids.gather(self._inner(x), self.taps)))
        return above, self.project(x, y if mask is None else y * mask)

    def first(self, batch: int) -> Array:
        """The state before the first row."""
        return grids.first_rows(self.taps, self.columns, batch, self.features)

    def row(self, state: Array, above: Array | None) -> tuple[Array, Array | None]:
        """The state before a row."""
        return grids.next_row(state), above

    def pixel(self, state: Array, x: Array, column: Array) -> tuple[Array, Array]:
        """One pixel `[B, D]`."""
        state = grids.put(state, self.taps, self._inner(x), column)
        y = nn.relu(self.conv(grids.look(state, self.taps, column)))
        return state, self.project(x, y)

    def _inner(self, x: Array) -> Array:
        return nn.relu(self.narrow(nn.relu(x)))


class GatedState(NamedTuple):
    """The sampler's state.

    Attributes:
      rows: inputs of the horizontal stack, as `grids.first_rows`.
      above: the vertical stack's input in the row above, `[W, B, D]`.
      given: the vertical stack's output for the current row's pixels, `[W, B, 2F]`.
    """

    rows: Array
    above: Array
    given: Array


class GatedConv(GridLayer):
    """A layer of the Gated PixelCNN (van den Oord et al. 2016b, eq. 2 and figure 2).

        y = tanh(a) σ(b),  a and b from a convolution

    The vertical stack sees all rows above a pixel and feeds the horizontal stack, which sees the
    pixel's own row up to itself, so there is no blind spot. Place (i, j) of the map `above` depends
    on rows before i only.

    Both maps have `width` features; only the horizontal stack is residual.

    Attributes:
      features: F of the gated units.
      radius: kernels are `2·radius + 1` wide.
    """

    features: int
    radius: int

    def setup(self) -> None:
        """Declares the layers of both stacks."""
        super().setup()
        radius, both = self.radius, 2 * self.features
        aside = range(-radius, radius + 1)
        self.vertical_taps = tuple((-up, n) for up in range(radius, -1, -1) for n in aside)
        self.taps = (*grids.left(radius), (0, 0))
        self.vertical = TapDense(both, 1, self.vertical_taps)
        self.vertical_out = MaskedDense(self.width, 1)
        self.give = MaskedDense(both, 1)
        self.horizontal = TapDense(both, self.channels, self.taps, parts=2)

    def __call__(self, above: Array, x: Array, mask: Array | None = None) -> tuple[Array, Array]:
        """Whole maps `[H, W, B, D]`; `mask [B, F]` is the dropout mask."""
        found = self.vertical(grids.gather(above, self.vertical_taps))
        y = _gate(self.horizontal(grids.gather(x, self.taps)) + self.give(found))
        y = y if mask is None else y * mask
        return self.vertical_out(_gate(found)), self.project(x, y)

    def first(self, batch: int) -> GatedState:
        """The state before the first row."""
        rows = grids.first_rows(self.taps, self.columns, batch, self.width)
        above = jnp.zeros((self.radius, self.columns, batch, self.width))
        return GatedState(rows, above, jnp.zeros((self.columns, batch, 2 * self.features)))

    def row(self, state: GatedState, above: Array) -> tuple[GatedState, Array]:
        """Before a row: the vertical stack does not see it and runs for all its pixels at once."""
        maps = jnp.concatenate([state.above, above[None]])
        found = self.vertical(grids.gather(maps, self.vertical_taps)[-1])
        state = GatedState(grids.next_row(state.rows), maps[1:], self.give(found))
        return state, self.vertical_out(_gate(found))

    def pixel(self, state: GatedState, x: Array, column: Array) -> tuple[GatedState, Array]:
        """One pixel `[B, D]`."""
        rows = grids.put(state.rows, self.taps, x, column)
        y = _gate(self.horizontal(grids.look(rows, self.taps, column)) + state.given[column])
        return state._replace(rows=rows), self.project(x, y)


def _gate(both: Array) -> Array:
    a, b = jnp.split(both, 2, axis=-1)
    return jnp.tanh(a) * nn.sigmoid(b)
