"""A model's coding steps, compiled for one batch size and for each of some devices.

An encoder and a decoder must get the same probabilities to the last bit, so both run these compiled
steps on the same inputs. Several devices work on a batch each, and each has a program of its own,
compiled as for that device alone: one program over all of them (`jax.shard_map`) may differ in the
last bit, and a stream must not depend on how many devices there are.
"""

from collections.abc import Callable, Sequence
from concurrent import futures
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import SingleDeviceSharding

from rnngen_jax.errors import UserError
from rnngen_jax.evaluation import container
from rnngen_jax.models.autoregressive import Stage, Steps, see, unseen
from rnngen_jax.models.base import Extra, Model, Params

Previous = tuple[np.int32, np.ndarray]  # a step's first position, and its values [S, B]
State = Any  # of each device, the model's own state and the image so far
Probabilities = tuple[Array, ...]  # of each device


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
Step = Callable[[State, Previous, Place], tuple[State, Probabilities]]


class Program(NamedTuple):
    """One stage, compiled for a batch size b on each of D devices; a group is B = D·b images.

    Attributes:
      stage: the stage.
      places: all its steps in order.
      begin: `begin(label [B], *before) -> state`, given the items of the earlier stages.
      step: `step(state, previous, place) -> (state, probabilities)`, given the values of the
        previous step; `[b, S, L]` of each device, which is not waited for.
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

    def on(device: jax.Device) -> list[Program]:
        return [
            _program(stage, params, extra, size, stages[:number], device)
            for number, stage in enumerate(stages)
        ]

    with futures.ThreadPoolExecutor(len(devices)) as pool:  # compiling takes a core for each
        each = list(pool.map(on, devices))
    return [_together(programs, size) for programs in zip(*each, strict=True)]


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
            tables.append(np.asarray(probabilities[0], "<f4").tobytes())
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
    device: jax.Device,
) -> Program:
    """A stage, compiled for a device: a program for each turn, with or without a line's opening."""
    params, extra = jax.device_put((params, extra), device)
    spec, steps, bound = stage.spec, stage.steps, bound_params(stage, params, extra)
    stops, places = steps.starts.shape[1], _places(steps)

    def program(turn: int, opening: bool) -> Callable[..., tuple[Any, Array, Array]]:
        def step(
            params: Any, state: Any, seen: Array, start: Array, values: Array, t: Array
        ) -> tuple[Any, Array, Array]:
            seen = see(seen, start, values)
            if opening:
                state = steps.line(params, state, t // stops, seen)
            state, raw = steps.raw(params, state, t, turn, seen)
            return state, seen, jnp.exp(stage.log_probs(raw))

        return jax.jit(step, donate_argnums=(1, 2))

    first = jax.jit(steps.first)

    def begin(label: np.ndarray, *before: np.ndarray) -> State:
        # Copies, as donated buffers must have no other holder and occur only once.
        given = jax.device_put((label, *before), device)
        state = jax.tree.map(lambda x: jnp.array(x, copy=True), first(bound, *given))
        return state, jax.device_put(unseen(spec, size), device)

    place_there = SingleDeviceSharding(device)

    def abstract(x: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place_there)

    zeros = [np.zeros((size, *one.spec.shape), one.spec.dtype) for one in earlier]
    state, seen = jax.tree.map(abstract, begin(np.zeros(size, np.int32), *zeros))
    number = abstract(np.int32(0))
    previous = (number, abstract(np.zeros((steps.width, size), np.int32)))
    arguments = (jax.tree.map(abstract, bound), state, seen, *previous, number)
    kinds = {(place.turn, place.opening) for place in places}
    compiled = {kind: program(*kind).lower(*arguments).compile() for kind in kinds}

    def step(state: State, previous: Previous, place: Place) -> tuple[State, Probabilities]:
        run = compiled[place.turn, place.opening]
        state, seen, probabilities = run(bound, *state, *previous, place.t)
        return (state, seen), (probabilities,)

    found = None if stage.values is None else jax.jit(stage.values)

    def values(image: np.ndarray, label: np.ndarray) -> np.ndarray:
        if found is None:
            return image
        return np.asarray(found(params, extra, *jax.device_put((image, label), device)))

    return Program(stage, places, begin, step, values)


def _together(programs: Sequence[Program], size: int) -> Program:
    """One stage's programs on several devices as one, for a batch of `size` images on each."""
    if len(programs) == 1:
        return programs[0]
    first, parts = programs[0], [slice(k * size, (k + 1) * size) for k in range(len(programs))]
    each = list(zip(programs, parts, strict=True))

    def begin(label: np.ndarray, *before: np.ndarray) -> State:
        return tuple(one.begin(label[part], *(x[part] for x in before)) for one, part in each)

    def step(state: State, previous: Previous, place: Place) -> tuple[State, Probabilities]:
        start, values = previous
        done = [  # no device is waited for
            one.step(own, (start, values[:, part]), place)
            for (one, part), own in zip(each, state, strict=True)
        ]
        return tuple(own for own, _ in done), tuple(found[0] for _, found in done)

    def values(image: np.ndarray, label: np.ndarray) -> np.ndarray:
        return np.concatenate([one.values(image[part], label[part]) for one, part in each])

    return Program(first.stage, first.places, begin, step, values)
