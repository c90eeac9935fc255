"""Attention over the steps of a sequence: weights that sum to 1, and the weighted mean."""

import jax
import jax.numpy as jnp
from jax import Array

from rnngen_jax.ops.precision import matmul

KINDS = ("additive", "dot")


def additive(query: Array, keys: Array, weights: Array) -> Array:
    """Scores `vᵀ tanh(q + k_s)` (Bahdanau et al. 2015, appendix A.1.2).

    Args:
      query: already projected, `[B, D]`.
      keys: already projected, `[S, B, D]`.
      weights: v, `[D]`.

    Returns:
      `[S, B]`.
    """
    return matmul(jnp.tanh(query + keys), weights)


def dot(query: Array, keys: Array) -> Array:
    """Scores `q · k_s / √D` (Luong et al. 2015, eq. 8; scaled as in Vaswani et al. 2017, eq. 1).

    Args:
      query: `[B, D]`.
      keys: `[S, B, D]`.

    Returns:
      `[S, B]`.
    """
    return (query * keys).sum(-1) * query.shape[-1] ** -0.5


def weighted_mean(scores: Array, values: Array) -> Array:
    """`Σ_s softmax(scores)_s v_s`, `[B, D]`, from scores `[S, B]` and values `[S, B, D]`."""
    return (jax.nn.softmax(scores, axis=0)[..., None] * values).sum(0)
