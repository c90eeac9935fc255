"""A function over many batches of one shape, each device at work on a batch of its own.

The program of a device is the one that a single device runs, at the same batch shape, so what comes
back is the same however many devices there are, but for last bits where the compiler, which is
given all devices at once, has simplified the program differently: seen in the scores of DRAW,
1.4e-7 of them.
"""

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from rnngen_jax.models.base import Extra, Params
from rnngen_jax.ops.batch import BATCH_AXIS

# `function(params, extra, batch, common) -> results`: trees of arrays. Those of `batch` and of the
# results belong to one batch; `common`, such as a key, is the same for all.
Function = Callable[[Params, Extra, Any, Any], Any]
Run = Callable[[Params, Extra, Iterable[tuple[int, Any]], Any], Iterator[tuple[int, Any]]]


@functools.lru_cache(maxsize=32)
def spread(function: Function) -> Run:
    """Makes the function that runs over all batches, compiled once per `function`.

    Args:
      function: pure, and of one example at a time, so without `ops.batch`.

    Returns:
      `run(params, extra, batches, common)` takes pairs of a number of rows and a batch, and yields
      pairs of that number and the batch's results as NumPy arrays, in order. The batches are of
      NumPy arrays of one shape, and are read while the devices compute those before. They are
      spread over all devices of all processes, each of which has to run this alike; a single
      process uses no more devices than there are batches.
    """
    alone = jax.jit(function)
    compiled = functools.cache(lambda devices: on_each(function, make_mesh(devices)))

    def run(
        params: Params, extra: Extra, batches: Iterable[tuple[int, Any]], common: Any
    ) -> Iterator[tuple[int, Any]]:
        remaining, every = iter(batches), all_devices()
        first = list(itertools.islice(remaining, len(every)))
        if not first:
            return
        devices = every[: len(first)] if jax.process_count() == 1 else every
        shared = params, extra, common
        if len(devices) > 1:
            mesh = make_mesh(devices)
            shared = _replicated(shared, mesh)
        groups = itertools.chain([first], iter(lambda: _take(remaining, len(devices)), []))
        waiting: list[tuple[list[int], Any]] = []
        for group in groups:
            counts, each = [num for num, _ in group], [batch for _, batch in group]
            if len(devices) == 1:
                results = alone(*shared[:2], each[0], shared[2])
            else:
                each += each[-1:] * (len(devices) - len(each))
                results = compiled(devices)(shared, _stacked(each, mesh))
            waiting.append((counts, results))
            if len(waiting) > 1:  # the devices compute the newest while this one is read
                yield from _read(*waiting.pop(0), len(devices))
        yield from _read(*waiting.pop(), len(devices))

    return run


def on_each(function: Function, mesh: Mesh) -> Callable[[Any, Any], Any]:
    """`call((params, extra, common), stacked)`, jitted: a device per batch of `[devices, ...]`."""

    def one(shared: tuple[Params, Extra, Any], batch: Any) -> Any:
        params, extra, common = shared
        results = function(params, extra, jax.tree.map(lambda x: x[0], batch), common)
        return jax.tree.map(lambda x: x[None], results)

    across = PartitionSpec(BATCH_AXIS)
    mapped = jax.shard_map(
        one, mesh=mesh, in_specs=(PartitionSpec(), across), out_specs=across, check_vma=False
    )
    sharded = NamedSharding(mesh, across)
    whole = NamedSharding(mesh, PartitionSpec())
    return jax.jit(mapped, in_shardings=(whole, sharded), out_shardings=sharded)


def all_devices() -> tuple[jax.Device, ...]:
    """The devices of all processes, those of each side by side."""
    return tuple(sorted(jax.devices(), key=lambda device: (device.process_index, device.id)))


def make_mesh(devices: tuple[jax.Device, ...]) -> Mesh:
    """A mesh of one axis, over which batches are spread."""
    return Mesh(np.array(devices), (BATCH_AXIS,), axis_types=(AxisType.Auto,))


def _take(batches: Iterator[tuple[int, Any]], size: int) -> list[tuple[int, Any]]:
    """The next `size` batches, at the end fewer."""
    return list(itertools.islice(batches, size))


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


def _read(counts: list[int], results: Any, devices: int) -> Iterator[tuple[int, Any]]:
    """The results of the batches that count, one after the other."""
    if devices == 1:
        yield counts[0], jax.tree.map(np.asarray, results)
        return
    if jax.process_count() > 1:
        results = multihost_utils.process_allgather(results, tiled=True)
    host = jax.tree.map(np.asarray, results)
    for place, count in enumerate(counts):
        yield count, jax.tree.map(lambda x: x[place], host)  # noqa: B023, read at once
