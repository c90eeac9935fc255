"""Draws from categorical distributions, by inversion of the distribution function."""

import jax
import jax.numpy as jnp
from jax import Array

FEW = 16  # categories up to which there are no blocks


def categorical(key: Array, logits: Array) -> Array:
    """Draws from softmax of logits, `[..., K]` to int32 `[...]`.

    `jax.random.categorical` adds Gumbel noise to each logit. Here a draw takes one random number or
    two, however many categories there are: of more than a few, one for a block of about √K of them,
    and one for the category within it. A probability is off by at most 2^-23 of the block's.
    """
    count = logits.shape[-1]
    p = jnp.exp(logits - logits.max(-1, keepdims=True))
    if count <= FEW:
        return _inverted(jax.random.uniform(key, logits.shape[:-1]), p)
    width = 2 ** (count.bit_length() // 2)
    blocks = -(-count // width)
    p = jnp.pad(p, [(0, 0)] * (p.ndim - 1) + [(0, blocks * width - count)])
    p = p.reshape(*logits.shape[:-1], blocks, width)
    u = jax.random.uniform(key, (2, *logits.shape[:-1]))
    block = _inverted(u[0], p.sum(-1))
    within = jnp.take_along_axis(p, block[..., None, None], axis=-2)[..., 0, :]
    return width * block + _inverted(u[1], within)


def _inverted(u: Array, weights: Array) -> Array:
    """The first category whose cumulative weight is above a share u in [0, 1) of the whole.

    So one without weight is never drawn.
    """
    total = jnp.cumsum(weights, axis=-1)
    return (total <= u[..., None] * total[..., -1:]).sum(-1, dtype=jnp.int32)
