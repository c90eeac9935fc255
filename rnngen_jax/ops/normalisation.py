"""Normalisation by the statistics of one example."""

import jax
import jax.numpy as jnp
from jax import Array


def layer_norm(x: Array, scale: Array, bias: Array, epsilon: float = 1e-5) -> Array:
    """Normalises the last axis to mean 0 and variance 1 (Ba et al. 2016, eq. 4).

    Args:
      x: `[..., F]`.
      scale: multiplies the normalised values, `[F]`.
      bias: added after scaling, `[F]`.
      epsilon: added to the variance.
    """
    mean = x.mean(-1, keepdims=True)
    variance = jnp.square(x - mean).mean(-1, keepdims=True)
    return (x - mean) * jax.lax.rsqrt(variance + epsilon) * scale + bias
