"""The two players of the MLP GAN."""

import math

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from rnngen_jax.modules.adversarial import dropped
from rnngen_jax.modules.dense import Dense
from rnngen_jax.modules.maps import activated
from rnngen_jax.shapes import ImageSpec


class Generator(nn.Module):
    """Dense layers from noise to an image.

    Attributes:
      spec: the images.
      hidden: units of each hidden layer.
      layers: number of hidden layers.
      slope: slope of LeakyReLU below 0.
      norm: "none", "batch", or "conditional_batch" by class.
    """

    spec: ImageSpec
    hidden: int
    layers: int
    slope: float
    norm: str

    @nn.compact
    def __call__(self, noise: Array, label: Array, *, train: bool) -> Array:
        """`[B, S, Z]` and int `[B]` to images `[B, H, W, C]` in [-1, 1]."""
        x = noise.reshape(noise.shape[0], -1)
        for _ in range(self.layers):
            x = Dense(self.hidden)(x)
            x = activated(x, label, train, self.norm, self.slope, self.spec.classes)
        x = Dense(math.prod(self.spec.shape))(x)
        return jnp.tanh(x).reshape(-1, *self.spec.shape)


class Body(nn.Module):
    """The discriminator's dense layers.

    Attributes:
      hidden, layers, slope: as in `Generator`.
      dropout: rate after each layer.
      norm: "none" or "batch".
    """

    hidden: int
    layers: int
    slope: float
    dropout: float
    norm: str

    @nn.compact
    def __call__(self, image: Array, *, train: bool, drop: Array | None = None) -> Array:
        """`[B, H, W, C]` to features `[B, F]`."""
        x = image.reshape(image.shape[0], -1)
        for number in range(self.layers):
            x = activated(Dense(self.hidden)(x), None, train, self.norm, self.slope)
            x = dropped(x, drop, f"layer {number}", self.dropout)
        return x
