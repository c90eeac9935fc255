"""The network of the code RNN: from earlier codes to a distribution over the next place's codes."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from rnngen_jax.cells.base import Carry, Cell
from rnngen_jax.modules.dense import Dense
from rnngen_jax.modules.pixels import PixelDense, Table
from rnngen_jax.modules.recurrent import Recurrent, Run
from rnngen_jax.shapes import ImageSpec


class CodeRNN(nn.Module):
    """Embedding, recurrent cell over places, dense layer; a second cell over a place's depths.

    Attributes:
      spec: the grids of codes, `(h, w, depth)` with K levels.
      cell: the recurrent cell over places.
      deep: the recurrent cell over the depths of a place; `None` for one depth.
      input_features: width D of the cells' inputs.
      position: adds embeddings of the place's row and column.
      conditional: adds an embedding of the class.
      coarser: the grids of a coarser level that these are given; `None` without one.
      size: raw outputs P per code; 0 for K logits.
      run: how the cells are run.
    """

    spec: ImageSpec
    cell: Cell
    deep: Cell | None
    input_features: int
    position: bool
    conditional: bool
    coarser: ImageSpec | None = None
    size: int = 0
    run: Run = Run()

    def setup(self) -> None:
        """Declares the layers."""
        spec, width = self.spec, self.input_features
        self.codes = PixelDense(width, spec.levels, "onehot")
        self.bias = self.param("bias", nn.initializers.zeros, (width,))
        if self.position:
            self.row, self.column = Table(spec.height, width), Table(spec.width, width)
        if self.conditional:
            self.label = Table(spec.classes, width)
        if self.coarser is not None:
            self.coarser_codes = PixelDense(width, self.coarser.levels, "onehot")
        self.recurrent = Recurrent(self.cell, width, self.run)
        self.readout = Dense(self.size or spec.levels)
        if self.deep is not None:
            self.place = Dense(width)
            self.depth = Table(spec.channels, width)
            self.earlier = Table(spec.channels * (spec.levels + 1), width)
            self.inner = Recurrent(self.deep, width, self.run)

    def __call__(
        self,
        context: Array,
        place: Array,
        codes: Array,
        label: Array,
        masks: tuple[Array, Array] | None = None,
        coarser: Array | None = None,
    ) -> Array:
        """Raw outputs for every code at once, such as its logits.

        Args:
          context: codes of earlier places, int `[T, B, N·depth]`, K outside the grid.
          place: row and column of each step's place, int `[T, 2]`.
          codes: the codes themselves, int `[T, B, depth]`; one sees the ones before it.
          label: int `[B]`.
          masks: dropout masks for the cell's inputs `[B, D]` and outputs `[B, F]`.
          coarser: codes of the coarser level around each place, int `[T, B, N'·depth]`, its K
            outside of it; `None` without one.

        Returns:
          `[T, B, depth, P]`.
        """
        seen = None if coarser is None else self.see(coarser)
        x = self._embed(context, place[:, None], label, seen)
        y = self.recurrent(x if masks is None else x * masks[0])
        y = y if masks is None else y * masks[1]
        if self.deep is None:
            return self.readout(y)[..., None, :]
        start = jnp.full_like(codes[..., :1], self.spec.levels)
        before = jnp.concatenate([start, codes[..., :-1]], axis=-1)
        xs = self.place(y)[..., None, :] + self._earlier(before, jnp.arange(self.spec.channels))
        flat = xs.reshape(-1, *xs.shape[-2:])
        out = jnp.moveaxis(self.inner(jnp.moveaxis(flat, 1, 0)), 0, 1)
        return self.readout(out.reshape(*xs.shape[:-1], -1))

    def first(self, batch: int) -> tuple[Carry, Carry | None]:
        """The carries before the first place, and before the first depth of a place."""
        deep = None if self.deep is None else self.inner.first((batch,), jnp.float32)
        return self.recurrent.first((batch,), jnp.float32), deep

    def see(self, coarser: Array) -> Array:
        """What each place is given of a coarser level, `[T, B, D]`; `coarser` as in a call."""
        return self.coarser_codes(coarser)

    def step(
        self, carry: Carry, context: Array, place: Array, label: Array, seen: Array | None = None
    ) -> tuple[Carry, Array]:
        """One place: `context [B, N·depth]`, `place [2]` to the cell's output y `[B, F]`.

        `seen` is a row of `see`, `[B, D]`, or `None` without a coarser level.
        """
        return self.recurrent.step(carry, self._embed(context, place, label, seen))

    def read(self, carry: Carry | None, y: Array, before: Array, depth: int) -> Any:
        """One depth: the carry over depths, and raw `[B, P]`, given the code `[B]` before it."""
        if self.deep is None:
            return carry, self.readout(y)
        x = self.place(y) + self._earlier(before[:, None], jnp.array([depth]))[:, 0]
        carry, out = self.inner.step(carry, x)
        return carry, self.readout(out)

    def _earlier(self, before: Array, depths: Array) -> Array:
        """Embeddings `[..., N, D]` of the codes before each of these depths, int `[..., N]`."""
        return self.earlier(depths * (self.spec.levels + 1) + before) + self.depth(depths)

    def _embed(self, context: Array, place: Array, label: Array, seen: Array | None) -> Array:
        x: Any = self.codes(context) + self.bias
        if self.position:
            x = x + self.row(place[..., 0]) + self.column(place[..., 1])
        if self.conditional:
            x = x + self.label(label)
        if seen is not None:
            x = x + seen
        return nn.relu(x)
