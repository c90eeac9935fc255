"""A distance of images in the activations of a network that was trained to classify them."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array

TINY = 1e-10  # keeps norms from zero


def distance(one: Sequence[Array], other: Sequence[Array]) -> Array:
    """The sum over layers of the mean squared distance of activations of unit length.

    Zhang et al. 2018, eq. 1, with all channels' weights 1:

        d = Σ_l 1/(h_l w_l) Σ_places ‖f̂_l(x) - f̂_l(x')‖²,  f̂ = f / ‖f‖ along the channels

    Each layer's addend is in [0, 4], whatever the scale of its activations.

    Args:
      one, other: each layer's activations, `[B, ..., F]`.

    Returns:
      `[B]`.
    """
    total: Array | float = 0.0
    for a, b in zip(one, other, strict=True):
        apart = jnp.square(_unit(a) - _unit(b)).sum(-1)
        total = total + apart.reshape(apart.shape[0], -1).mean(-1)
    return jnp.asarray(total)


def _unit(x: Array) -> Array:
    """`x / ‖x‖` along the last axis; its gradient at 0 is finite."""
    return x * jax.lax.rsqrt(jnp.square(x).sum(-1, keepdims=True) + TINY)
