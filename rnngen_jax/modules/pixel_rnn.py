"""The network of the pixel RNN: from earlier pixels to a distribution over the next one."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from rnngen_jax.cells.base import Carry, Cell
from rnngen_jax.modules.pixels import PixelDense, PixelNetwork, Readout, Table
from rnngen_jax.modules.recurrent import Recurrent, Run


class PixelRNN(PixelNetwork):
    """A recurrent network over pixels, in the order in which its caller gathers them.

    Attributes:
      cell: the recurrent cell.
      input_features: width D of the cell's inputs.
      position: adds embeddings of the pixel's row and column.
      readout_hidden: units of the readout's hidden layer, 0 for none.
      run: how the cell is run over pixels.
    """

    cell: Cell
    input_features: int
    readout_hidden: int
    run: Run = Run()

    def setup(self) -> None:
        """Declares the layers."""
        spec, width = self.spec, self.input_features
        self.pixels = PixelDense(width, spec.levels, self.encoding)
        self.bias = self.param("bias", nn.initializers.zeros, (width,))
        if self.position:
            self.row, self.column = Table(spec.height, width), Table(spec.width, width)
        if self.conditional:
            self.label = Table(spec.classes, width)
        self.recurrent = Recurrent(self.cell, width, self.run)
        self.readout = Readout(
            self.readout_size, spec.channels, spec.levels, self.encoding, self.readout_hidden
        )

    def __call__(
        self,
        context: Array,
        place: Array,
        values: Array,
        label: Array,
        masks: tuple[Array, Array] | None = None,
    ) -> Array:
        """Raw outputs for every pixel at once.

        Args:
          context: values of earlier pixels, int `[T, B, K·C]`, `levels` outside the image.
          place: row and column of each step's pixel, int `[T, 2]`.
          values: the pixels themselves, int `[T, B, C]`; channel c of a pixel sees `[..., :c]`.
          label: int `[B]`.
          masks: dropout masks for the cell's inputs `[B, D]` and outputs `[B, F]`.

        Returns:
          `[T, B, C, P]`.
        """
        x = self._embed(context, place[:, None], label)
        y = self.recurrent(x if masks is None else x * masks[0])
        return self.readout(y if masks is None else y * masks[1], values)

    def first(self, batch: int) -> Carry:
        """The carry before the first pixel."""
        return self.recurrent.first((batch,), jnp.float32)

    def step(self, carry: Carry, context: Array, place: Array, label: Array) -> tuple[Carry, Array]:
        """One pixel: `context [B, K·C]`, `place [2]` to the cell's output y `[B, F]`."""
        return self.recurrent.step(carry, self._embed(context, place, label))

    def read(self, y: Array, values: Array) -> Array:
        """Raw outputs `[B, C, P]` of one pixel, given y and its earlier channels."""
        return self.readout(y, values)

    def _embed(self, context: Array, place: Array, label: Array) -> Array:
        x: Any = self.pixels(context) + self.bias
        if self.position:
            x = x + self.row(place[..., 0]) + self.column(place[..., 1])
        if self.conditional:
            x = x + self.label(label)
        return nn.relu(x)
