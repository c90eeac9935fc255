"""The two players of the GRU-GAN: noise as a sequence, a recurrent cell, then convolutions.

`near_0` and `near_1` are 3×3 convolutions of the same shapes in both players, which can share them.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from rnngen_jax.cells.base import Cell
from rnngen_jax.modules.adversarial import dropped
from rnngen_jax.modules.dense import Dense
from rnngen_jax.modules.halving import Double, Halve
from rnngen_jax.modules.maps import Same, activated
from rnngen_jax.modules.recurrent import Recurrent, Run
from rnngen_jax.shapes import ImageSpec

SHARED = ("near_0", "near_1")


def map_size(spec: ImageSpec) -> tuple[int, int]:
    """Height and width of the maps: half of the image's, rounded up."""
    return -(-spec.height // 2), -(-spec.width // 2)


class Generator(nn.Module):
    """A cell over the noise sequence, two convolutions, a transposed one to the image.

    Attributes:
      spec: the images.
      cell: any cell, or `None` for a dense layer from all of the noise to all of the steps.
      width: features per step of the dense layer without a cell.
      by: "row" for one step per row of the feature map, "patch" for one step per position.
      features: channels of the maps.
      slope: slope of LeakyReLU below 0.
      norm: "none", "batch", or "conditional_batch" by class.
      run: how the cell is run over the noise.
    """

    spec: ImageSpec
    cell: Cell | None
    width: int
    by: str
    features: int
    slope: float
    norm: str
    run: Run = Run()

    @nn.compact
    def __call__(self, noise: Array, label: Array, *, train: bool) -> Array:
        """`[B, S, Z]` and int `[B]` to images `[B, H, W, C]` in [-1, 1].

        S is the number of steps, or 1 for the same noise at every step.
        """
        size, given, inputs = noise.shape
        height, columns = map_size(self.spec)
        steps = height if self.by == "row" else height * columns
        if self.cell is None:
            y = Dense(steps * self.width, name="steps")(noise.reshape(size, -1))
            y = jax.nn.leaky_relu(y, self.slope).reshape(size, steps, self.width)
        else:
            each = noise if given == steps else jnp.broadcast_to(noise, (size, steps, inputs))
            net = Recurrent(self.cell, inputs, self.run, name="recurrent")
            y = jnp.moveaxis(net(jnp.moveaxis(each, 1, 0)), 0, 1)
        places = columns if self.by == "row" else 1
        x = Dense(places * self.features, name="places")(y)
        x = x.reshape(size, height, columns, self.features)
        how = self.norm, self.slope, self.spec.classes
        x = activated(x, label, train, *how)
        for name in SHARED:
            x = activated(Same(self.features, name=name)(x), label, train, *how)
        x = Double(self.spec.channels, 4, self.spec.height, self.spec.width, name="image")(x)
        return jnp.tanh(x)


class Body(nn.Module):
    """The discriminator's convolutions: one that halves the image, then two of 3×3.

    Attributes:
      features, slope: as in `Generator`.
      dropout: rate after each convolution.
      norm: "none" or "batch"; never on the first map.
    """

    features: int
    slope: float
    dropout: float
    norm: str

    @nn.compact
    def __call__(self, image: Array, *, train: bool, drop: Array | None = None) -> Array:
        """`[B, H, W, C]` to features `[B, F]`."""
        x = jax.nn.leaky_relu(Halve(self.features, 4)(image), self.slope)
        x = dropped(x, drop, "halved", self.dropout)
        for name in SHARED:
            x = Same(self.features, name=name)(x)
            x = activated(x, None, train, self.norm, self.slope)
            x = dropped(x, drop, name, self.dropout)
        x = jax.nn.leaky_relu(Halve(2 * self.features, 4)(x), self.slope)
        return x.reshape(x.shape[0], -1)


class RecurrentBody(nn.Module):
    """A recurrent discriminator: the image's rows are the steps of a cell.

    Attributes:
      cell: any cell.
      width: features of a row before the cell.
      slope: slope of LeakyReLU below 0.
      dropout: rate for the rows' features.
      run: how the cell is run over rows.
    """

    cell: Cell
    width: int
    slope: float
    dropout: float
    run: Run = Run()

    @nn.compact
    def __call__(self, image: Array, *, train: bool, drop: Array | None = None) -> Array:
        """`[B, H, W, C]` to features `[B, 2 F]`: the last step's and the mean of all."""
        del train
        rows = image.reshape(*image.shape[:2], -1)
        x = jax.nn.leaky_relu(Dense(self.width)(rows), self.slope)
        x = dropped(x, drop, "rows", self.dropout)
        net = Recurrent(self.cell, self.width, self.run)
        ys = net(jnp.moveaxis(x, 1, 0))
        return jnp.concatenate([ys[-1], ys.mean(0)], axis=-1)
