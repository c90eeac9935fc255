"""A model's coding steps, compiled once for one batch size and a number of devices.

An encoder and a decoder must get the same probabilities to the last bit, so both run these compiled
steps on the same inputs. Several devices work on a batch each: what one of them runs is the program
of a single device, at the same shapes, so a stream does not depend on how many there are.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import NamedSharding, PartitionSpec

from rnngen_jax.errors import UserError
from rnngen_jax.evaluation import container, spread
from rnngen_jax.models.autoregressive import Stage, Steps, see, unseen
from rnngen_jax.models.base import Extra, Model, Params
from rnngen_jax.ops.batch import BATCH_AXIS

Previous = tuple[np.int32, np.ndarray]  # a step's first position, and its values [S, B]
State = tuple[Any, Array]  # the model's own state, and the image so far


class Place(NamedTuple):
    """Where a step is in an image.

    Attributes:
      turn: number of the turn within the stop.
      opening: whether the step opens a line.
      t: number of the stop within the image.
      start: position of the step's first value.
    """

    turn: int
    opening: bool
    t: np.int32
    start: np.int32


Begin = Callable[..., State]
Step = Callable[[State, Previous, Place], tuple[State, Array]]


class Program(NamedTuple):
    """One stage, compiled for a batch size b on each of D devices; a group is B = D·b images.

    Attributes:
      stage: the stage.
      places: all its steps in order.
      begin: `begin(label [B], *before) -> state`, given the items of the earlier stages.
      step: `step(state, previous, place) -> (state, probabilities [B, S, L])`, given the values of
        the previous step.
      values: `values(image, label) -> items`, the stage's items of an image.
    """

    stage: Stage
    places: Sequence[Place]
    begin: Begin
    step: Step
    values: Callable[[np.ndarray, np.ndarray], np.ndarray]


def stages_of(model: Model) -> tuple[Stage, ...]:
    """The stages that an image is coded in, in order.

    Raises:
      UserError: the model has no steps.
    """
    if model.stages:
        return model.stages
    if model.steps is None or model.log_probs is None:
        raise UserError(f"{model.name} cannot compress: it has no exact probability of each value.")
    return (Stage(model.spec, model.steps, model.log_probs),)


def compile_stages(
    model: Model, params: Params, extra: Extra, size: int, devices: Sequence[jax.Device]
) -> list[Program]:
    """The model's stages in order, each compiled for a batch of `size` images on each device.

    Raises:
      UserError: the model has no steps.
    """
    stages = stages_of(model)
    return [
        _program(stage, params, extra, size, stages[:number], tuple(devices))
        for number, stage in enumerate(stages)
    ]


def bound_params(stage: Stage, params: Params, extra: Extra) -> Any:
    """The parameters that a stage's steps take."""
    return params if stage.bind is None else stage.bind(params, extra)


def no_previous(stage: Stage, num: int) -> Previous:
    """The first step's `Previous` for `num` images: no values are known yet."""
    return np.int32(0), np.full((stage.steps.width, num), stage.spec.levels, np.int32)


def arithmetic(programs: Sequence[Program], size: int, devices: int = 1) -> bytes:
    """Digest of the probabilities in the first steps over items that count up the levels.

    The steps are all turns of the first stop and one of the next, so that every compiled program
    contributes. Every device computes the same, and the first one's is taken.
    """
    tables, before = [], []
    rows = np.tile(np.arange(size), devices)
    for stage, places, begin, step, _ in programs:
        spec, turns, width = stage.spec, stage.steps.starts.shape[2], stage.steps.width
        state = begin(np.zeros(rows.size, np.int32), *before)
        previous = no_previous(stage, rows.size)
        for place in places[: turns + 1]:
            state, probabilities = step(state, previous, place)
            tables.append(np.asarray(probabilities, "<f4")[:size].tobytes())
            values = place.start + np.arange(width)[:, None] + rows
            previous = (place.start, (values % spec.levels).astype(np.int32))
        counted = np.arange(size * spec.dims).reshape(size, *spec.shape) % spec.levels
        before.append(counted.astype(spec.dtype)[rows])
    return container.arithmetic(tables)


def _places(steps: Steps) -> list[Place]:
    """All steps of an image in order."""
    lines, stops, turns = steps.starts.shape
    return [
        Place(
            turn,
            steps.line is not None and stop == turn == 0,
            np.int32(line * stops + stop),
            np.int32(steps.starts[line, stop, turn]),
        )
        for line in range(lines)
        for stop in range(stops)
        for turn in range(turns)
    ]


def _program(
    stage: Stage,
    params: Params,
    extra: Extra,
    size: int,
    earlier: Sequence[Stage],
    devices: tuple[jax.Device, ...],
) -> Program:
    """A compiled stage: one program for each turn, with or without the opening of a line."""
    spec, steps = stage.spec, stage.steps
    stops, places, num = steps.starts.shape[1], _places(steps), size * len(devices)
    # Of the state, an axis of images may be anywhere: its arrays lie one device's after the other.
    whole, lanes, columns = (
        PartitionSpec(),
        PartitionSpec(BATCH_AXIS),
        PartitionSpec(None, BATCH_AXIS),
    )
    each, put = _on_each(devices)
    bound = put(bound_params(stage, params, extra), whole)

    def items(lead: int) -> list[jax.ShapeDtypeStruct]:
        shapes = ((one.spec.shape, one.spec.dtype) for one in earlier)
        return [jax.ShapeDtypeStruct((lead, *shape), dtype) for shape, dtype in shapes]

    number = jax.ShapeDtypeStruct((), jnp.int32)
    label = jax.ShapeDtypeStruct((size,), jnp.int32)
    like = jax.eval_shape(steps.first, bound, label, *items(size))

    def packed(state: Any) -> Any:  # what has no axis is given one, to lie along
        return jax.tree.map(lambda x: x[None] if x.ndim == 0 else x, state)

    def unpacked(state: Any) -> Any:
        return jax.tree.map(lambda x, as_: x[0] if as_.ndim == 0 else x, state, like)

    def program(turn: int, opening: bool) -> Callable[..., tuple[Any, Array, Array]]:
        def step(
            params: Any, state: Any, seen: Array, start: Array, values: Array, t: Array
        ) -> tuple[Any, Array, Array]:
            seen, state = see(seen, start, values), unpacked(state)
            if opening:
                state = steps.line(params, state, t // stops, seen)
            state, raw = steps.raw(params, state, t, turn, seen)
            return packed(state), seen, jnp.exp(stage.log_probs(raw))

        taken = (whole, lanes, columns, whole, columns, whole)
        return each(step, taken, (lanes, columns, lanes), donate_argnums=(1, 2))

    first = each(
        lambda params, label, *before: packed(steps.first(params, label, *before)),
        (whole, lanes, *(lanes for _ in earlier)),
        lanes,
    )

    def begin(label: np.ndarray, *before: np.ndarray) -> State:
        # Copies, as donated buffers must have no other holder and occur only once.
        state = jax.tree.map(lambda x: jnp.array(x, copy=True), first(bound, label, *before))
        return state, put(unseen(spec, num), columns)

    def abstract(x: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(x.shape, x.dtype)

    def together(x: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        lead = x.shape[0] if x.shape else 1
        return jax.ShapeDtypeStruct((len(devices) * lead, *x.shape[1:]), x.dtype)

    state, seen = (
        jax.tree.map(together, like),
        jax.ShapeDtypeStruct((spec.dims + 1, num), jnp.int32),
    )
    previous = (number, jax.ShapeDtypeStruct((steps.width, num), jnp.int32))
    arguments = (jax.tree.map(abstract, bound), state, seen, *previous, number)
    kinds = {(place.turn, place.opening) for place in places}
    compiled = {kind: program(*kind).lower(*arguments).compile() for kind in kinds}

    def step(state: State, previous: Previous, place: Place) -> tuple[State, Array]:
        run = compiled[place.turn, place.opening]
        state, seen, probabilities = run(bound, *state, *previous, place.t)
        return (state, seen), probabilities

    found = None
    if stage.values is not None:
        found = each(stage.values, (whole, whole, lanes, lanes), lanes)

    def values(image: np.ndarray, label: np.ndarray) -> np.ndarray:
        return image if found is None else np.asarray(found(params, extra, image, label))

    return Program(stage, places, begin, step, values)


def _on_each(devices: tuple[jax.Device, ...]) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Runs a function on each device's part of its arguments, and puts arrays there.

    Returns:
      `each(function, in_specs, out_specs, donate_argnums=())`, jitted, and `put(tree, spec)`. The
      specs are of a mesh with one axis of devices; a single device needs none.
    """
    if len(devices) == 1:
        return lambda function, _, __, **options: jax.jit(function, **options), lambda tree, _: tree
    mesh = spread.make_mesh(devices)

    def placed(specs: Any) -> Any:
        def of(spec: PartitionSpec) -> NamedSharding:
            return NamedSharding(mesh, spec)

        return jax.tree.map(of, specs, is_leaf=lambda x: isinstance(x, PartitionSpec))

    def each(function: Callable[..., Any], given: Any, gives: Any, **options: Any) -> Any:
        mapped = jax.shard_map(
            function, mesh=mesh, in_specs=given, out_specs=gives, check_vma=False
        )
        return jax.jit(mapped, in_shardings=placed(given), out_shardings=placed(gives), **options)

    return each, lambda tree, spec: jax.device_put(tree, NamedSharding(mesh, spec))
