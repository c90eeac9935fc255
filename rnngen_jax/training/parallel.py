"""One interface over two ways to spread a batch over devices: `jax.shard_map`, and `jax.pmap`.

The program of a device is the program of one device: both run the same function on every device's
shard, an equal and contiguous part of each batch, beside a whole copy of the state. What devices
tell each other is written out in `ops.batch`, so that nothing in a model can make the compiler
gather a batch. Every random number belongs to an example or to the step, so the losses are those of
one device up to the order of sums.

Seeds need nothing of each other, so they are spread over the devices before the batch is; see
`make_mesh`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from rnngen_jax.config import require
from rnngen_jax.errors import UserError
from rnngen_jax.ops.batch import BATCH_AXIS as AXIS
from rnngen_jax.training.seeds import many_steps_each, numbers
from rnngen_jax.training.state import TrainState
from rnngen_jax.training.step import Call, Fetch, Step

SEEDS = "seed"
Arrays = dict[str, np.ndarray]


class Parallel(NamedTuple):
    """Functions that put data on the devices, run steps there, and bring results back.

    Attributes:
      place: a state, as host or single-device arrays, to all devices. What is placed is a copy, so
        that the donation of the placed state leaves the given one alone.
      place_resident: the arrays of a data set, or `None`, to all devices.
      place_chunk: this process's part of the batches of one call, leaves `[K, b, ...]`, or
        `[K, N, b, ...]` for N seeds.
      lowered: `lowered(state, resident, chunk)`, a `jax.stages.Lowered` from the shapes alone.
      compiled: the executable for arguments like `(state, resident, chunk)`; compiled once for each
        number of steps K. `call(state, resident, chunk) -> (state, metrics)` returns without
        waiting for the result and gives up the given state's memory (donation).
      local: `local(tree, seed_index=0)`: one seed's part of a placed state as arrays on one device,
        without copying where that is possible: of use until the state is given to the next call.
      host: a placed tree as NumPy copies, with all seeds.
    """

    place: Callable[[TrainState], TrainState]
    place_resident: Callable[[Mapping[str, np.ndarray] | None], Any]
    place_chunk: Callable[[Arrays], Any]
    lowered: Callable[[TrainState, Any, Any], Any]
    compiled: Callable[[TrainState, Any, Any], Call]
    local: Callable[..., Any]
    host: Callable[[Any], Any]


def make_parallel(
    kind: str,
    step: Step,
    fetch: Fetch,
    seed: int,
    batch_size: int,
    devices: Sequence[jax.Device] | None = None,
    seeds: int = 1,
    micro_batches: int = 1,
) -> Parallel:
    """Spreads a train step over devices.

    Args:
      kind: "jit", for any number of processes, or "pmap", for one.
      step: the training step, as `train_step` makes it.
      fetch: `fetch(resident, item) -> batch`.
      seed: the run's seed.
      batch_size: images in a seed's batch, over all devices of all processes.
      micro_batches: parts that a device's shard is cut into.
      devices: the devices of all processes to use; all there are by default.
      seeds: how many the state has, with "jit".

    Raises:
      UserError: the batch does not divide over the devices, or pmap with several processes.
    """
    devices = jax.devices() if devices is None else devices
    # By process, so that a process's part of the batch is one contiguous range.
    devices = sorted(devices, key=lambda device: (device.process_index, device.id))
    mesh = make_mesh(devices, seeds)
    parts = mesh.shape[AXIS]
    whose = f"{parts} devices" + ("" if seeds == 1 else " of each seed")
    if micro_batches > 1:
        whose += f", {micro_batches} micro-batches each"
    unit = parts * micro_batches
    allowed = f"a multiple of {unit} ({whose})"
    require(batch_size % unit == 0, "config.training.batch_size", batch_size, allowed)
    if kind == "pmap" and jax.process_count() > 1:
        raise UserError(
            "config.training.parallelism='pmap' runs in one process and there are "
            f"{jax.process_count()}; use 'jit'."
        )
    call = many_steps_each(step, fetch, seeds)
    if kind == "jit":
        return _jit(call, mesh, numbers(seed, seeds))
    return _pmap(lambda *given: call(seed, *given), devices)


def make_mesh(devices: Sequence[jax.Device], seeds: int) -> Mesh:
    """A mesh with the axes "seed" and "data".

    Of the L devices of a process, as many go to the axis of seeds as divide both L and the
    number of seeds N: their greatest common divisor R. Each of these holds N / R seeds, and
    the L / R devices beside it share their batches. 8 seeds on 8 devices so have one each, which
    never talk; 4 have two each, and 3, as they do not divide 8, all lie on every device.

    The processes lie along the data axis, so that each of them holds all seeds, for the
    checkpoints and validations, and a contiguous part of every batch, as the feed gives it.

    Args:
      devices: in the order of their processes, of which each has as many.
      seeds: how many, N.
    """
    processes = len({device.process_index for device in devices})
    rows = math.gcd(len(devices) // processes, seeds)
    grid = np.array(devices).reshape(processes, rows, -1).swapaxes(0, 1).reshape(rows, -1)
    # Not jax.make_mesh, which may order the devices for fast links and mix processes.
    return Mesh(grid, (SEEDS, AXIS), axis_types=(AxisType.Auto, AxisType.Auto))


def _jit(call: Callable[..., Any], mesh: Mesh, each_seed: np.ndarray) -> Parallel:
    """The program of one device over shards of global arrays: of their seeds and of their batch."""
    seeds = each_seed.size
    axis = () if seeds == 1 else (SEEDS,)

    def spread(*spec: str | None) -> NamedSharding:
        return NamedSharding(mesh, PartitionSpec(*spec))

    whole, states, metrics = spread(), spread(*axis), spread(None, *axis)
    batches = spread(None, *axis, AXIS)
    # The reductions are our own, so the outputs are the same on every device; a checker that could
    # tell would want the carry of every loop marked by hand.
    mapped = jax.shard_map(
        call,
        mesh=mesh,
        in_specs=(states.spec, states.spec, whole.spec, batches.spec),
        out_specs=(states.spec, metrics.spec),
        check_vma=False,
    )
    jitted = jax.jit(
        lambda state, resident, chunk: mapped(each_seed, state, resident, chunk),
        in_shardings=(states, whole, batches),
        out_shardings=(states, metrics),
        donate_argnums=0,
    )
    take = jax.jit(lambda tree, place: jax.tree.map(lambda x: x[place], tree))

    def local(tree: Any, seed_index: int = 0) -> Any:
        if seeds == 1:
            return jax.tree.map(_first_shard, tree)
        row, place = divmod(seed_index, seeds // mesh.shape[SEEDS])
        holder = next(device for device in mesh.devices[row] if device in mesh.local_devices)
        held = jax.tree.map(lambda x: _shard_on(holder, x), tree)
        # All to one device, so that what works on a seed is compiled once.
        return take(jax.device_put(held, mesh.local_devices[0]), place)

    return Parallel(
        place=lambda state: _put(_copies(state), states),
        place_resident=lambda resident: _put(resident, whole),
        place_chunk=lambda chunk: _put(chunk, batches),
        lowered=jitted.lower,
        compiled=_compiling(jitted),
        local=local,
        host=lambda tree: jax.tree.map(_gathered, tree),
    )


def _pmap(call: Call, devices: list[jax.Device]) -> Parallel:
    """One program a device, over arrays with a leading axis of devices."""
    count = len(devices)
    mesh = Mesh(np.array(devices), (AXIS,), axis_types=(AxisType.Auto,))
    split = NamedSharding(mesh, PartitionSpec(AXIS))
    pmapped = jax.pmap(call, axis_name=AXIS, devices=devices, donate_argnums=0)

    def repeated(tree: Any) -> Any:
        return jax.tree.map(lambda x: np.broadcast_to(x, (count, *np.shape(x))), tree)

    def cut(x: np.ndarray) -> np.ndarray:
        return x.reshape(x.shape[0], count, -1, *x.shape[2:]).swapaxes(0, 1)

    def put(tree: Any) -> Any:
        return jax.tree.map(lambda x: jax.device_put(x, split, may_alias=False), tree)

    def local(tree: Any, seed_index: int = 0) -> Any:
        del seed_index  # there is one
        return jax.tree.map(lambda x: _first_shard(x)[0], tree)

    return Parallel(
        place=lambda state: put(repeated(_copies(state))),
        place_resident=lambda resident: put(repeated(resident)),
        place_chunk=lambda chunk: put({name: cut(x) for name, x in chunk.items()}),
        lowered=pmapped.lower,
        compiled=_compiling(pmapped),
        local=local,
        host=lambda tree: _copies(local(tree)),
    )


def _compiling(wrapped: Any) -> Callable[[TrainState, Any, Any], Call]:
    """Compiles ahead of the first call, so that the time of compiling can be told apart."""
    executables: dict[Any, Call] = {}

    def compiled(state: TrainState, resident: Any, chunk: Any) -> Call:
        shapes = tuple(sorted((name, x.shape) for name, x in chunk.items()))
        if shapes not in executables:
            executables[shapes] = wrapped.lower(state, resident, chunk).compile()
        return executables[shapes]

    return compiled


def _put(tree: Any, sharding: NamedSharding) -> Any:
    """Host arrays to all devices; of a sharded axis each process gives its own part."""
    if jax.process_count() == 1:
        return jax.tree.map(lambda x: jax.device_put(x, sharding, may_alias=False), tree)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), tree)


def _copies(tree: Any) -> Any:
    """NumPy copies; a mere view of a device's buffer would be lost with its donation."""
    # A CPU's array that could not be allocated would never be ready for NumPy; this raises.
    return jax.tree.map(lambda x: np.array(x), jax.block_until_ready(tree))


def _first_shard(x: Array) -> Array:
    """What lies on this process's first device."""
    return x.addressable_shards[0].data


def _shard_on(device: jax.Device, x: Array) -> Array:
    """What lies on one of this process's devices."""
    return next(shard.data for shard in x.addressable_shards if shard.device == device)


def _gathered(x: Array) -> np.ndarray:
    """A NumPy copy of an array of which this process's devices hold all parts."""
    jax.block_until_ready(x)  # as in `_copies`
    if x.is_fully_replicated:
        return np.array(_first_shard(x))
    whole = np.zeros(x.shape, x.dtype)
    for shard in {str(shard.index): shard for shard in x.addressable_shards}.values():
        whole[shard.index] = shard.data
    return whole
