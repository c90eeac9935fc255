"""The network of a recurrent prior over latents: from earlier variables to the next one's."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from rnngen_jax.cells.base import Carry, Cell
from rnngen_jax.modules.dense import Dense
from rnngen_jax.modules.pixels import Table
from rnngen_jax.modules.recurrent import Recurrent
from rnngen_jax.ops import mixtures


class LatentRNN(nn.Module):
    """Recurrent cell over the variables in a row, and a mixture of normals for each.

    At first all variables are independent and close to standard normal ones.

    Attributes:
      cell: the recurrent cell.
      length: T, the number of variables.
      components: M, of the mixture.
      classes: number of classes whose embedding is an input; 0 for none.
    """

    cell: Cell
    length: int
    components: int
    classes: int

    def setup(self) -> None:
        """Declares the layers."""
        width, size = self.cell.features, 3 * self.components
        self.before = Dense(width)
        self.position = Table(self.length, width)
        if self.classes:
            self.label = Table(self.classes, width)
        self.recurrent = Recurrent(self.cell, width)
        self.readout = Dense(size, kernel_init=nn.initializers.zeros, use_bias=False)

        def first(key: Array) -> Array:
            del key
            return jnp.tile(mixtures.near_standard(self.components), (self.length, 1))

        self.bias = self.param("bias", first)

    def __call__(self, z: Array, label: Array) -> Array:
        """Raw outputs of every variable given those before it, `[T, B]` to `[T, B, 3 M]`."""
        before = jnp.concatenate([jnp.zeros_like(z[:1]), z[:-1]])
        y = self.recurrent(self._embed(before, jnp.arange(self.length)[:, None], label))
        return self.readout(y) + self.bias[:, None]

    def first(self, batch: int) -> Carry:
        """The carry before the first variable."""
        return self.recurrent.first((batch,), jnp.float32)

    def step(self, carry: Carry, before: Array, t: Array, label: Array) -> tuple[Carry, Array]:
        """Variable t given the one before it, `[B]`, which is 0 before the first: `[B, 3 M]`."""
        carry, y = self.recurrent.step(carry, self._embed(before, t, label))
        return carry, self.readout(y) + self.bias[t]

    def _embed(self, before: Array, t: Array, label: Array) -> Array:
        x: Any = self.before(before[..., None]) + self.position(t)
        if self.classes:
            x = x + self.label(label)
        return jax.nn.relu(x)
