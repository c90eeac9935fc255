"""A function over many batches of one shape, each device at work on a batch of its own.

The program of a device is the one that a single device runs, at the same batch shape, so what comes
back is the same however many devices there are.
"""

import functools
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from rnngen_jax.ops.batch import BATCH_AXIS

# `function(shared, batch) -> results`, trees of arrays; a batch's arrays have a leading axis.
Function = Callable[[Any, Any], Any]
Spread = Callable[[Any, Iterable[Any], int], Iterator[Any]]


def spread(function: Function) -> Spread:
    """Makes the function that runs over all batches; each call of `spread` compiles anew.

    Args:
      function: `function(shared, batch) -> results`, pure and of one example at a time, so without
        `ops.batch`: trees of arrays.

    Returns:
      `run(shared, batches, count)` yields each batch's results as NumPy arrays, in order. `shared`,
      such as parameters and a key, goes to every device once. The `count` batches are of NumPy
      arrays of one shape, and are read while the devices are at work on those before. They are
      spread over all devices of all processes, of which each must run this alike; one process uses
      no more devices than there are batches.
    """
    compiled = functools.cache(lambda devices: on_each(function, make_mesh(devices)))

    def run(shared: Any, batches: Iterable[Any], count: int) -> Iterator[Any]:
        devices = chosen(count)
        if len(devices) == 1:
            place, call = (lambda group: group[0]), alone
        else:
            mesh = make_mesh(devices)
            shared = _replicated(shared, mesh)
            place, call = functools.partial(_stacked, mesh=mesh), compiled(devices)
        waiting: list[tuple[int, Any]] = []
        for group in _groups(batches, len(devices)):
            full = group + group[-1:] * (len(devices) - len(group))
            waiting.append((len(group), call(shared, place(full))))
            if len(waiting) > 1:  # the devices are at work on the newest while this one is read
                yield from _read(*waiting.pop(0), len(devices))
        for each in waiting:
            yield from _read(*each, len(devices))

    alone = jax.jit(function)
    return run


def on_each(function: Function, mesh: Mesh) -> Callable[[Any, Any], Any]:
    """`call(shared, stacked)`, jitted: one device per batch of `[devices, ...]`, likewise back."""

    def one(shared: Any, batch: Any) -> Any:
        results = function(shared, jax.tree.map(lambda x: x[0], batch))
        return jax.tree.map(lambda x: x[None], results)

    across = PartitionSpec(BATCH_AXIS)
    mapped = jax.shard_map(
        one, mesh=mesh, in_specs=(PartitionSpec(), across), out_specs=across, check_vma=False
    )
    sharded = NamedSharding(mesh, across)
    whole = NamedSharding(mesh, PartitionSpec())
    return jax.jit(mapped, in_shardings=(whole, sharded), out_shardings=sharded)


def chosen(count: int) -> tuple[jax.Device, ...]:
    """The devices for so many batches: of one process, those that make the fewest rounds."""
    devices = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    if jax.process_count() > 1:
        return tuple(devices)
    rounds = math.ceil(count / len(devices))
    return tuple(devices[: math.ceil(count / max(rounds, 1)) or 1])


def make_mesh(devices: tuple[jax.Device, ...]) -> Mesh:
    """A mesh of one axis, over which batches are spread."""
    return Mesh(np.array(devices), (BATCH_AXIS,), axis_types=(AxisType.Auto,))


def _groups(batches: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """`size` batches at a time, at the end fewer."""
    group: list[Any] = []
    for batch in batches:
        group.append(batch)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def _stacked(group: list[Any], mesh: Mesh) -> Any:
    """A batch for each device, along a leading axis that lies over the devices."""
    place = NamedSharding(mesh, PartitionSpec(BATCH_AXIS))
    first, own = 0, len(group)
    if jax.process_count() > 1:
        own = len(mesh.local_devices)
        first = next(i for i, device in enumerate(mesh.devices) if device in mesh.local_devices)
    mine = group[first : first + own]

    def stack(*each: Any) -> Array:
        return jax.make_array_from_process_local_data(place, np.stack(each))

    return jax.tree.map(stack, *mine)


def _replicated(tree: Any, mesh: Mesh) -> Any:
    """Arrays of one device, or of the host, on all devices."""
    place = NamedSharding(mesh, PartitionSpec())

    def put(x: Any) -> Array:
        if jax.process_count() == 1:
            return jax.device_put(x, place)
        if isinstance(x, Array) and jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(put(jax.random.key_data(x)))
        return jax.make_array_from_process_local_data(place, np.asarray(x))

    return jax.tree.map(put, tree)


def _read(num: int, results: Any, devices: int) -> Iterator[Any]:
    """The results of the batches that count, one after the other."""
    if devices == 1:
        yield jax.tree.map(np.asarray, results)
        return
    if jax.process_count() > 1:
        results = multihost_utils.process_allgather(results, tiled=True)
    host = jax.tree.map(np.asarray, results)
    for place in range(num):
        yield jax.tree.map(lambda x: x[place], host)  # noqa: B023, read at once
