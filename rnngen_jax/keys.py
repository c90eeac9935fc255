"""Random keys, folded from seed, step, purpose and example; no key is carried as state.

An example's key depends only on the example's index, so noise does not depend on how a batch is
sharded over devices or an evaluation is split into batches.
"""

import zlib

import jax
from jax import Array


def named(key: Array, purpose: str) -> Array:
    """A key for one purpose, such as "dropout"; different names give independent keys."""
    return jax.random.fold_in(key, zlib.crc32(purpose.encode()))


def per_example(key: Array, index: Array) -> Array:
    """One key per example, `[B]`, from the examples' indices, int32 `[B]`."""
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, index)
