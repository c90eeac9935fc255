"""Dropout for recurrent networks: one mask per sequence, drawn from each example's own key."""

import jax
import jax.numpy as jnp
from jax import Array


def mask(keys: Array, features: int, rate: float) -> Array:
    """Variational dropout mask `[B, F]` (Gal and Ghahramani 2016): the same for every time step.

    Args:
      keys: one key per example, `[B]`, so that a mask does not depend on the rest of the batch.
      features: F.
      rate: the fraction of features set to zero; the rest are divided by `1 - rate`.
    """
    keep = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - rate, (features,)))(keys)
    return keep.astype(jnp.float32) / (1 - rate)
