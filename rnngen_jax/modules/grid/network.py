"""The network around layers over pixels: from values to a distribution over every value."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from rnngen_jax.modules.grid.parts import FirstConv, Head
from rnngen_jax.modules.pixels import PixelDense, PixelNetwork, Table
from rnngen_jax.shapes import ImageSpec


class GridNetwork(PixelNetwork):
    """A masked convolution of the values, layers, and a head.

    Attributes:
      layers: modules with the two evaluations of `modules.grid`.
      width: features D of the map.
      position: adds embeddings of the pixel's row and column.
      readout_hidden: units of the head's hidden layer, 0 for none.
      coarser: the grids of a coarser level of codes that these are given; `None` without one.
      above: number of the first convolution's values from rows above a pixel, for layers with a
        separate map of them; 0 for one map.
    """

    layers: Sequence[nn.Module]
    width: int
    readout_hidden: int
    coarser: ImageSpec | None = None
    above: int = 0

    def setup(self) -> None:
        """Declares the layers."""
        spec, width = self.spec, self.width
        self.conv = FirstConv(width, spec.channels, spec.levels, self.encoding)
        if self.above:
            self.vertical = PixelDense(width, spec.levels, self.encoding)
        if self.position:
            self.row_table, self.column_table = Table(spec.height, width), Table(spec.width, width)
        if self.conditional:
            self.label_table = Table(spec.classes, width)
        if self.coarser is not None:
            self.coarser_codes = PixelDense(width, self.coarser.levels, "onehot")
        self.head = Head(spec.channels, self.readout_size, self.readout_hidden)

    def __call__(
        self,
        context: Array,
        own: Array,
        label: Array,
        masks: Sequence[Array] | None = None,
        coarser: Array | None = None,
    ) -> Array:
        """Raw outputs for every pixel at once.

        Args:
          context: values of earlier pixels, int `[H, W, B, K · C]`, `levels` outside the image.
          own: the pixels themselves, int `[H, W, B, C]`; channel c of a pixel sees `[..., :c]`.
          label: int `[B]`.
          masks: dropout masks, one `[B, F]` per layer.
          coarser: codes of the coarser level around each pixel, int `[H, W, B, N]`, its K outside
            of it; `None` without one.

        Returns:
          `[H, W, B, C, P]`.
        """
        height, width = context.shape[:2]
        seen = None if coarser is None else self.see(coarser)
        rows, columns = jnp.arange(height)[:, None, None], jnp.arange(width)[:, None]
        extra = self._extra(rows, columns, label, seen)
        above = self._above(context, extra)
        x = self.conv(context[..., self.above :], own) + extra
        for n, layer in enumerate(self.layers):
            above, x = layer(above, x, None if masks is None else masks[n])
        return self.head(x)

    def see(self, coarser: Array) -> Array:
        """What each pixel is given of a coarser level, `[H, W, B, D]`; `coarser` as in a call."""
        return self.coarser_codes(coarser)

    def first(self, batch: int) -> tuple[Any, ...]:
        """The sampler's state before the first row."""
        return tuple(layer.first(batch) for layer in self.layers)

    def row(
        self,
        states: tuple[Any, ...],
        context: Array,
        row: Array,
        label: Array,
        seen: Array | None = None,
    ) -> tuple[Any, ...]:
        """The state before row `row`, given the `context` of all its pixels, `[W, B, K · C]`.

        `seen` is a row of `see`, `[W, B, D]`, or `None` without a coarser level.
        """
        columns = jnp.arange(context.shape[0])[:, None]
        above, new = self._above(context, self._extra(row, columns, label, seen)), []
        for layer, state in zip(self.layers, states, strict=True):
            state, above = layer.row(state, above)
            new.append(state)
        return tuple(new)

    def pixel(
        self,
        states: tuple[Any, ...],
        context: Array,
        own: Array,
        row: Array,
        column: Array,
        label: Array,
        seen: Array | None = None,
    ) -> tuple[tuple[Any, ...], Array]:
        """Raw outputs `[B, C, P]` of a pixel, with `context [B, K · C]` and `own [B, C]`.

        `seen` is the pixel's of `see`, `[B, D]`, or `None` without a coarser level.
        """
        x, new = self.conv(context[..., self.above :], own), []
        x = x + self._extra(row, column, label, seen)
        for layer, state in zip(self.layers, states, strict=True):
            state, x = layer.pixel(state, x, column)
            new.append(state)
        return tuple(new), self.head(x)

    def _above(self, context: Array, extra: Array | float) -> Array | None:
        """The separate map of the rows above, for layers that have one."""
        return self.vertical(context[..., : self.above]) + extra if self.above else None

    def _extra(self, row: Array, column: Array, label: Array, seen: Array | None) -> Array | float:
        """Embeddings of a pixel's position and of the image's class, and what is `seen`."""
        extra: Array | float = 0.0
        if self.position:
            extra = self.row_table(row) + self.column_table(column)
        if self.conditional:
            extra = extra + self.label_table(label)
        return extra if seen is None else extra + seen
