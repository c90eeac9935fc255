"""The network of the row RNN: from the previous row to a distribution over the next one."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from rnngen_jax.cells.base import Carry, Cell
from rnngen_jax.modules.dense import Dense
from rnngen_jax.modules.pixels import PixelDense, PixelNetwork, Readout, Table
from rnngen_jax.modules.recurrent import Recurrent, Run
from rnngen_jax.ops.precision import matmul


class RowRNN(PixelNetwork):
    """A recurrent network over rows.

    Attributes:
      cell: the recurrent cell over rows.
      input_features: width D of the cell's inputs.
      encoding: "onehot" or "scalar", of pixel values; a row outside the image is all zeros.
      position: adds an embedding of the row's index.
      tied: the readout is the transpose of the input weights, `raw = y Wᵀ + b`.
      within: a second cell along each row's pixels, so that a pixel sees those to its left and a
        channel the earlier ones; `None` makes a row's values independent given the rows above.
      run: how the cells are run; its `remat` applies to rows only.
    """

    cell: Cell
    input_features: int
    tied: bool
    within: Cell | None = None
    run: Run = Run()

    def setup(self) -> None:
        """Declares the layers."""
        spec, width = self.spec, self.input_features
        values = spec.width * spec.channels
        inputs = values * (spec.levels if self.encoding == "onehot" else 1)
        kernel = nn.initializers.variance_scaling(1.0, "fan_in", "normal")
        self.kernel = self.param("kernel", kernel, (inputs, width))
        if self.position:
            self.row = Table(spec.height, width)
        if self.conditional:
            self.label = Table(spec.classes, width)
        self.recurrent = Recurrent(self.cell, width, self.run)
        outputs = values * self.readout_size
        if self.within is not None:
            inner = self.within.features
            self.context = Dense(inner)
            self.left = PixelDense(inner, spec.levels, self.encoding)
            if self.position:
                self.column = Table(spec.width, inner)
            self.along = Recurrent(self.within, inner, self.run._replace(remat=0))
            self.pixel_readout = Readout(
                self.readout_size, spec.channels, spec.levels, self.encoding
            )
        elif self.tied:
            self.bias = self.param("bias", nn.initializers.zeros, (outputs,))
        else:
            self.readout = Dense(outputs)

    def __call__(
        self,
        rows: Array,
        label: Array,
        masks: tuple[Array, Array] | None = None,
    ) -> Array:
        """Raw outputs for every pixel at once.

        Args:
          rows: the image, int `[T, B, W, C]`, T = H.
          label: int `[B]`.
          masks: dropout masks for the cell's inputs `[B, D]` and outputs `[B, F]`.

        Returns:
          `[T, B, W, C, P]`.
        """
        outside = jnp.full_like(rows[:1], self.spec.levels)
        above = jnp.concatenate([outside, rows[:-1]])
        x = self._embed(above, jnp.arange(rows.shape[0])[:, None], label)
        y = self.recurrent(x if masks is None else x * masks[0])
        y = y if masks is None else y * masks[1]
        if self.within is None:
            return self.read_row(y)
        values = jnp.moveaxis(rows, 2, 0)
        before = jnp.concatenate([jnp.full_like(values[:1], self.spec.levels), values[:-1]])
        places = jnp.arange(self.spec.width)[:, None, None]
        along = self.along(self._embed_pixel(before, y, places))
        return jnp.moveaxis(self.pixel_readout(along, values), 0, 2)

    def first(self, batch: int) -> Carry:
        """The carry before the first row."""
        return self.recurrent.first((batch,), jnp.float32)

    def step(self, carry: Carry, above: Array, row: Array, label: Array) -> tuple[Carry, Array]:
        """One row: the previous row, int `[B, W, C]`, to the cell's output y `[B, F]`."""
        return self.recurrent.step(carry, self._embed(above, row, label))

    def read_row(self, y: Array) -> Array:
        """Raw outputs `[..., W, C, P]` of a row of independent values."""
        flat = matmul(y, self.kernel.T) + self.bias if self.tied else self.readout(y)
        return flat.reshape(*y.shape[:-1], self.spec.width, self.spec.channels, self.readout_size)

    def first_along(self, batch: int) -> Carry:
        """The carry before a row's first pixel."""
        return self.along.first((batch,), jnp.float32)

    def step_along(
        self, carry: Carry, before: Array, y: Array, place: Array
    ) -> tuple[Carry, Array]:
        """One pixel of a row: the pixel to its left, int `[B, C]`, to the inner cell's output."""
        return self.along.step(carry, self._embed_pixel(before, y, place))

    def read_pixel(self, y: Array, values: Array) -> Array:
        """Raw outputs `[B, C, P]` of one pixel, given the inner cell's output."""
        return self.pixel_readout(y, values)

    def _embed(self, above: Array, row: Array, label: Array) -> Array:
        levels = self.spec.levels
        if self.encoding == "onehot":
            encoded = jax.nn.one_hot(above, levels, dtype=self.kernel.dtype)
        else:
            encoded = jnp.where(above == levels, 0.0, 2.0 * above / (levels - 1) - 1.0)
        x = matmul(encoded.reshape(*above.shape[:-2], -1), self.kernel)
        if self.position:
            x = x + self.row(row)
        if self.conditional:
            x = x + self.label(label)
        return x

    def _embed_pixel(self, before: Array, y: Array, place: Array) -> Array:
        x = self.left(before) + self.context(y)
        if self.position:
            x = x + self.column(place)
        return nn.relu(x)
