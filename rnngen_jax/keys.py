"""Random keys: folded from a seed, a step, a purpose and an example, never carried along.

A key for one example depends on that example's index and on nothing else, so that noise is the
same however a batch is cut over devices or an evaluation over batches.
"""

import zlib

import jax
from jax import Array


def named(key: Array, purpose: str) -> Array:
    """A key for one purpose, such as "dropout"; different names give independent keys."""
    return jax.random.fold_in(key, zlib.crc32(purpose.encode()))


def per_example(key: Array, index: Array) -> Array:
    """One key an example, `[B]`, from the examples' indices, int32 `[B]`."""
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, index)
