"""What encoders and decoders of latents share."""

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from rnngen_jax.ops.gaussians import Gaussian


class GaussianHead(nn.Module):
    """Two linear maps, to a diagonal Gaussian's mean and log-scale (Gregor et al. 2015, eqs. 1-2).

    Attributes:
      latents: Z.
    """

    latents: int

    @nn.compact
    def __call__(self, y: Array) -> Gaussian:
        """`[..., F]` to a Gaussian over `[..., Z]`; at the start near the standard normal one."""
        return Gaussian(
            nn.Dense(self.latents, name="mean")(y),
            nn.Dense(self.latents, name="log_scale", kernel_init=nn.initializers.normal(0.01))(y),
        )


def scaled(image: Array, levels: int) -> Array:
    """Grey levels, int, as float32 in [0, 1]."""
    return image.astype(jnp.float32) / (levels - 1)
