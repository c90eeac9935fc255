"""Batches, also where each device holds a part of one: means over the whole, and pairs of two.

Most of a model looks at one example at a time. What does not, such as batch normalisation, takes
its means from here, so that they do not depend on how a batch is cut over devices.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

BATCH_AXIS = "data"  # the name of the axis of devices under jax.pmap


def mean_over_batch(x: Array, axes: int | Sequence[int] = 0) -> Array:
    """The mean over the whole batch, in float32 or wider.

    Inside `jax.pmap` over the axis `BATCH_AXIS`, where each device holds an equal part of the
    batch, the means of the parts are averaged. Everywhere else `x` is the batch itself: under
    `jax.jit` an array is whole however it lies over devices, and the compiler adds the
    communication. The two are told apart by the axis's name: of `jax.lax.pmean` it is public
    behaviour that a name which nothing binds is a `NameError`.

    Inside `jax.pmap` the gradient of this, too, is that of the sum of all devices' losses, so that
    the mean of the devices' gradients is the gradient of the mean loss.

    Args:
      x: `[B, ...]`, or the device's part of that; never a single example under `jax.vmap`.
      axes: what to average over, the batch axis 0 among them.

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

    The variance is that of the deviations from the mean (two passes): the difference of the mean
    square and the squared mean loses all digits where the mean is large.

    Args:
      x: `[B, ...]`, or the device's part of that.
      axes: what to average over, the batch axis 0 among them.

    Returns:
      Both without those axes. The variance divides by the number of values, not by one less.
    """
    mean = mean_over_batch(x, axes)
    centred = x - jnp.expand_dims(mean, _axes(axes))
    return mean, mean_over_batch(jnp.square(centred), axes)


def parts() -> int:
    """Into how many equal parts the batch is cut here: the devices of `jax.pmap`, otherwise 1."""
    try:
        return jax.lax.axis_size(BATCH_AXIS)
    except NameError:
        return 1


def _axes(axes: int | Sequence[int]) -> tuple[int, ...]:
    return (axes,) if isinstance(axes, int) else tuple(axes)


def paired(one: Any, other: Any) -> Any:
    """Two batches as one, each example of the first followed by that of the other.

    In this order a device that has a share of either has the same share of both.
    """

    def pair(a: Array, b: Array) -> Array:
        return jnp.stack([a, b], axis=1).reshape(-1, *a.shape[1:])

    return jax.tree.map(pair, one, other)
