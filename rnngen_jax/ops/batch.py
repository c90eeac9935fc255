"""Means over a batch, which may be sharded over devices, and pairing of two batches.

A training step runs as one device's program on its shard of the batch (`jax.shard_map` or
`jax.pmap`). Devices communicate only here: one all-reduce for the gradients and metrics of an
update, one per pair of batch statistics, and one for all statistics of codebooks. Without an axis
`BATCH_AXIS`, or with one device on it, the batch is whole and nothing is communicated.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

BATCH_AXIS = "data"  # name of the axis of devices that share a batch


def parts() -> int:
    """Number of equal shards of the batch: the devices on `BATCH_AXIS`, or 1 without that axis."""
    try:
        return jax.lax.axis_size(BATCH_AXIS)
    except NameError:  # documented for an axis name that is not bound
        return 1


def mean_over_devices(tree: Any) -> Any:
    """The mean over the devices that share a batch, in one all-reduce per dtype.

    The leaves are concatenated into one buffer, so a step waits for the network once rather than
    once per array.

    Args:
      tree: floating-point arrays, each device's own.

    Returns:
      The tree of means, the same on every device.
    """
    # Divided before the sum: afterwards, every use of the buffer would divide all of it.
    return _summed(tree, lambda buffer: buffer / parts())


def sum_over_devices(tree: Any) -> Any:
    """The sum over the devices that share a batch, in one all-reduce per dtype.

    Args:
      tree: floating-point arrays, each device's own.

    Returns:
      The tree of sums, the same on every device.
    """
    return _summed(tree, lambda buffer: buffer)


def _summed(tree: Any, before: Callable[[Array], Array]) -> Any:
    """The sum over devices of what `before` makes of each buffer, one per dtype."""
    if parts() == 1:
        return tree
    leaves, structure = jax.tree.flatten(tree)
    leaves = [jnp.asarray(leaf) for leaf in leaves]
    places: dict[Any, list[int]] = {}
    for place, leaf in enumerate(leaves):
        places.setdefault(leaf.dtype, []).append(place)
    for group in places.values():
        ends = np.cumsum([leaves[place].size for place in group])
        buffer = before(jnp.concatenate([leaves[place].ravel() for place in group]))
        sums = jnp.split(jax.lax.psum(buffer, BATCH_AXIS), ends[:-1])
        for place, found in zip(group, sums, strict=True):
            leaves[place] = found.reshape(leaves[place].shape)
    return jax.tree.unflatten(structure, leaves)


def own_rows(x: Array, places: Array) -> Array:
    """A device's addends of the rows at `places` of the whole batch: `sum_over_devices` of them.

    So rows of a batch that is spread over devices are had without gathering it.

    Args:
      x: `[N, ...]`, the device's shard of the batch; shards are contiguous, in the devices' order.
      places: int `[M]`, in `[0, parts() * N)`, the same on every device.

    Returns:
      `[M, ...]`, zero for rows of other devices.
    """
    if parts() == 1:
        return x[places]
    own = places // x.shape[0] == jax.lax.axis_index(BATCH_AXIS)
    rows = x[places % x.shape[0]]
    return jnp.where(own.reshape(-1, *[1] * (x.ndim - 1)), rows, 0)


def mean_over_batch(x: Array, axes: int | Sequence[int] = 0) -> Array:
    """The mean over the whole batch, in float32 or wider.

    Its gradient is that of the sum of all devices' losses, so the mean of the devices' gradients is
    the gradient of the mean loss.

    Args:
      x: `[B, ...]`, or the device's shard of it; never a single example under `jax.vmap`.
      axes: the axes to average over, including the batch axis 0.

    Returns:
      The array without those axes, the same on every device.
    """
    return mean_over_devices(jnp.mean(x, _axes(axes), dtype=_wide(x)))


def moments(
    x: Array, axes: int | Sequence[int] = 0, near: Array | float = 0.0
) -> tuple[Array, Array]:
    """Mean and variance over the whole batch, in float32 or wider.

    A shard's variance is computed from deviations from its mean (two passes), since the mean square
    minus the squared mean loses all digits where the mean is large. Those of the shards are joined
    in one all-reduce, from the shards' means m_i and variances v_i and a value r near the mean (the
    shifted data of Chan, Golub and LeVeque 1983): with d_i = m_i - r, mean(d_i) + r is the mean and
    mean(v_i + d_i²) - mean(d_i)² the variance.

    Args:
      x: `[B, ...]`, or the device's shard of it.
      axes: the axes to average over, including the batch axis 0.
      near: a value near the mean, such as a running mean, the same on every device: of the shape of
        the results, or a number. Its distance from the mean may be large, but not by many orders of
        magnitude larger than the standard deviation.

    Returns:
      Both without those axes. The variance divides by the number of values N, not N - 1.
    """
    mean = jnp.mean(x, _axes(axes), dtype=_wide(x))
    centred = x - jnp.expand_dims(mean, _axes(axes))
    variance = jnp.mean(jnp.square(centred), _axes(axes), dtype=_wide(x))
    if parts() == 1:
        return mean, variance
    away = mean - near
    away, square = mean_over_devices((away, variance + jnp.square(away)))
    return away + near, jnp.maximum(square - jnp.square(away), 0)


def _wide(x: Array) -> Any:
    return jnp.promote_types(x.dtype, jnp.float32)


def _axes(axes: int | Sequence[int]) -> tuple[int, ...]:
    return (axes,) if isinstance(axes, int) else tuple(axes)


def paired(one: Any, other: Any) -> Any:
    """Interleaves two batches: each example of the first is followed by the other's.

    In this order a device's shard holds the same examples of both.
    """

    def pair(a: Array, b: Array) -> Array:
        return jnp.stack([a, b], axis=1).reshape(-1, *a.shape[1:])

    return jax.tree.map(pair, one, other)
