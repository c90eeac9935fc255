"""Layers that encoders and decoders of latents share."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from rnngen_jax.modules.dense import Dense
from rnngen_jax.ops.gaussians import Gaussian
from rnngen_jax.ops.precision import matmul


class GaussianHead(nn.Module):
    """Two linear maps, to a diagonal Gaussian's mean and log-scale (Gregor et al. 2015, eqs. 1-2).

    Attributes:
      latents: Z.
    """

    latents: int

    @nn.compact
    def __call__(self, y: Array) -> Gaussian:
        """`[..., F]` to a Gaussian over `[..., Z]`, close to the standard normal at first."""
        return Gaussian(
            Dense(self.latents, name="mean")(y),
            Dense(self.latents, name="log_scale", kernel_init=nn.initializers.normal(0.01))(y),
        )


def affine(gain: Array | float = 1.0, bias: Array | float = 0.0) -> Callable[..., dict[str, Array]]:
    """Initialises `linear`: `init(key, inputs, features) -> {"kernel", "bias"}`.

    For linear maps inside a loop over time, where Flax modules cannot be called.

    Args:
      gain: scale of the outputs for inputs of unit variance; a scalar or `[F]`.
      bias: initial bias; likewise.
    """

    def init(key: Array, inputs: int, features: int) -> dict[str, Array]:
        kernel = gain * jax.random.normal(key, (inputs, features)) * inputs**-0.5
        return {"kernel": kernel, "bias": jnp.broadcast_to(jnp.float32(bias), (features,))}

    return init


def linear(params: dict[str, Array], x: Array) -> Array:
    """`x W + b`, `[..., D]` to `[..., F]`."""
    return matmul(x, params["kernel"]) + params["bias"]


def scaled(image: Array, levels: int) -> Array:
    """Grey levels, int, as float32 in [0, 1]."""
    return image.astype(jnp.float32) / (levels - 1)
