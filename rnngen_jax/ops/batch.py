"""Batch statistics, also of a batch sharded over devices, and pairing of two batches.

Most of a model treats examples independently. What does not, such as batch normalisation, takes its
means from here, so that they do not depend on how a batch is sharded.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

BATCH_AXIS = "data"  # name of the device axis under jax.pmap


def mean_over_batch(x: Array, axes: int | Sequence[int] = 0) -> Array:
    """The mean over the whole batch, in float32 or wider.

    Inside `jax.pmap` over the axis `BATCH_AXIS`, where each device holds an equal shard of the
    batch, the shards' means are averaged. Everywhere else `x` is the whole batch: under `jax.jit`
    an array is global however it is sharded, and the compiler adds the communication. The two are
    told apart by the axis name: `jax.lax.pmean` publicly raises `NameError` for an unbound one.

    Inside `jax.pmap` the gradient of this mean, too, is that of the sum of all devices' losses, so
    the mean of the devices' gradients is the gradient of the mean loss.

    Args:
      x: `[B, ...]`, or the device's shard of it; never a single example under `jax.vmap`.
      axes: the axes to average over, including the batch axis 0.

    Returns:
      The array without those axes, the same on every device.
    """
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    mean = jnp.mean(x, _axes(axes), dtype=dtype)
    try:
        return jax.lax.pmean(mean, BATCH_AXIS)
    except NameError:
        return mean


def moments(x: Array, axes: int | Sequence[int] = 0) -> tuple[Array, Array]:
    """Mean and variance over the whole batch, in float32 or wider; see `mean_over_batch`.

    The variance is computed from deviations from the mean (two passes): the mean square minus the
    squared mean loses all digits where the mean is large.

    Args:
      x: `[B, ...]`, or the device's shard of it.
      axes: the axes to average over, including the batch axis 0.

    Returns:
      Both without those axes. The variance divides by the number of values N, not N - 1.
    """
    mean = mean_over_batch(x, axes)
    centred = x - jnp.expand_dims(mean, _axes(axes))
    return mean, mean_over_batch(jnp.square(centred), axes)


def parts() -> int:
    """Number of shards of the batch: the devices of `jax.pmap`, otherwise 1."""
    try:
        return jax.lax.axis_size(BATCH_AXIS)
    except NameError:
        return 1


def _axes(axes: int | Sequence[int]) -> tuple[int, ...]:
    return (axes,) if isinstance(axes, int) else tuple(axes)


def paired(one: Any, other: Any) -> Any:
    """Interleaves two batches: each example of the first is followed by the other's.

    In this order a device's shard holds the same examples of both.
    """

    def pair(a: Array, b: Array) -> Array:
        return jnp.stack([a, b], axis=1).reshape(-1, *a.shape[1:])

    return jax.tree.map(pair, one, other)
