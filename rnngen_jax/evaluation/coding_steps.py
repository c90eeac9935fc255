"""A model's coding steps, compiled for one batch size and for each of some devices.

An encoder and a decoder must get the same probabilities to the last bit, so both run these compiled
steps on the same inputs. Several devices work on a batch each, and each has a program of its own,
compiled as for that device alone: one program over all of them (`jax.shard_map`) may differ in the
last bit, and a stream must not depend on how many devices there are.

Of many levels, a value is coded coarse to fine: first the interval of levels that it is in, then
the level within the interval. Where a distribution function is known, an interval takes two values
of it (`Stage.masses`), so that 2·√L intervals take the place of L levels. Both distributions are of

    p(v) + 2^-24   for each level v

so that no level takes more bits than it would at once, and an interval without any mass has one
within it, too.
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

FEW = 32  # levels up to which a value is coded at once; changing it changes the format
LEAST = 2.0**-24  # the coder's precision


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
Fine = Callable[[State, np.ndarray], Probabilities]


class Program(NamedTuple):
    """One stage, compiled for a batch size b on each of D devices; a group is B = D·b images.

    Attributes:
      stage: the stage.
      places: all its steps in order.
      begin: `begin(label [B], *before) -> state`, given the items of the earlier stages.
      step: `step(state, previous, place) -> (state, probabilities)`, given the values of the
        previous step; `[b, S, L]` of each device, which is not waited for. If `width` is above 0,
        those of the intervals, `[b, S, ⌈L / width⌉]`.
      values: `values(image, label) -> items`, the stage's items of an image.
      width: levels in an interval; 0 if values are coded at once.
      fine: `fine(state, interval) -> probabilities`, after a step: of the levels within these
        intervals, int32 `[S, B]`; `[b, S, width]` of each device. `None` if `width` is 0.
    """

    stage: Stage
    places: Sequence[Place]
    begin: Begin
    step: Step
    values: Callable[[np.ndarray, np.ndarray], np.ndarray]
    width: int = 0
    fine: Fine | None = None


def stages_of(model: Model) -> tuple[Stage, ...]:
    """The stages that an image is coded in, in order.

    Raises:
      UserError: the model has no steps.
    """
    if model.stages:
        return model.stages
    if model.steps is None or model.log_probs is None:
        raise UserError(f"{model.name} cannot compress: it has no exact probability of each value.")
    return (Stage(model.spec, model.steps, model.log_probs, masses=model.masses),)


def interval(stage: Stage) -> int:
    """Levels in an interval of a stage's values, a power of two; 0 if they are coded at once."""
    levels = stage.spec.levels
    if stage.masses is None or levels <= FEW:
        return 0
    return 2 ** (-(-(levels - 1).bit_length() // 2))


def compile_stages(
    model: Model,
    params: Params,
    extra: Extra,
    size: int,
    devices: Sequence[jax.Device],
    coarse: bool = True,
) -> list[Program]:
    """The model's stages in order, each compiled for a batch of `size` images on each device.

    Args:
      model, params, extra: the model.
      size: images in a batch.
      devices: some of this process's.
      coarse: whether values are coded coarse to fine in the stages that allow it, which files
        of earlier versions are not.

    Raises:
      UserError: the model has no steps.
    """
    stages = stages_of(model)

    def on(device: jax.Device) -> list[Program]:
        return [
            _program(stage, params, extra, size, stages[:number], device, coarse)
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
    for program in programs:
        stage = program.stage
        spec, turns, width = stage.spec, stage.steps.starts.shape[2], stage.steps.width
        state = program.begin(np.zeros(rows.size, np.int32), *before)
        previous = no_previous(stage, rows.size)
        for place in program.places[: turns + 1]:
            state, probabilities = program.step(state, previous, place)
            tables.append(np.asarray(probabilities[0], "<f4").tobytes())
            values = place.start + np.arange(width)[:, None] + rows
            previous = (place.start, (values % spec.levels).astype(np.int32))
            if program.fine is not None:
                within = program.fine(state, previous[1] // program.width)
                tables.append(np.asarray(within[0], "<f4").tobytes())
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
    coarse: bool,
) -> Program:
    """A stage, compiled for a device: a program for each turn, with or without a line's opening."""
    params, extra = jax.device_put((params, extra), device)
    spec, steps, bound = stage.spec, stage.steps, bound_params(stage, params, extra)
    stops, places = steps.starts.shape[1], _places(steps)
    width = interval(stage) if coarse else 0

    def masses(raw: Array, first: Array, width: int, num: int) -> Array:
        return stage.masses(raw, first, width, num) + width * LEAST

    def program(turn: int, opening: bool) -> Callable[..., tuple[Any, Array, Any, Array]]:
        def step(
            params: Any, state: Any, seen: Array, start: Array, values: Array, t: Array
        ) -> tuple[Any, Array, Any, Array]:
            seen = see(seen, start, values)
            if opening:
                state = steps.line(params, state, t // stops, seen)
            state, raw = steps.raw(params, state, t, turn, seen)
            if not width:
                return state, seen, None, jnp.exp(stage.log_probs(raw))
            lowest = jnp.zeros(raw.shape[:-1], jnp.int32)
            num = -(-spec.levels // width)
            return state, seen, raw, masses(raw, lowest, width, num)

        return jax.jit(step, donate_argnums=(1, 2))

    first = jax.jit(steps.first)

    def begin(label: np.ndarray, *before: np.ndarray) -> State:
        # Copies, as donated buffers must have no other holder and occur only once.
        given = jax.device_put((label, *before), device)
        state = jax.tree.map(lambda x: jnp.array(x, copy=True), first(bound, *given))
        return state, jax.device_put(unseen(spec, size), device), None

    place_there = SingleDeviceSharding(device)

    def abstract(x: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place_there)

    zeros = [np.zeros((size, *one.spec.shape), one.spec.dtype) for one in earlier]
    state, seen, _ = jax.tree.map(abstract, begin(np.zeros(size, np.int32), *zeros))
    number = abstract(np.int32(0))
    previous = (number, abstract(np.zeros((steps.width, size), np.int32)))
    arguments = (jax.tree.map(abstract, bound), state, seen, *previous, number)
    kinds = {(place.turn, place.opening) for place in places}
    compiled = {kind: program(*kind).lower(*arguments).compile() for kind in kinds}

    def step(state: State, previous: Previous, place: Place) -> tuple[State, Probabilities]:
        run = compiled[place.turn, place.opening]
        state, seen, _ = state
        state, seen, raw, probabilities = run(bound, state, seen, *previous, place.t)
        return (state, seen, raw), (probabilities,)

    fine = None
    if width:
        _, _, raw, _ = jax.eval_shape(program(*next(iter(kinds))), *arguments)
        part = jax.ShapeDtypeStruct((steps.width, size), np.int32)
        within = jax.jit(lambda raw, part: masses(raw, width * part.T, 1, width))
        of_levels = within.lower(abstract(raw), abstract(part)).compile()

        def fine(state: State, interval: np.ndarray) -> Probabilities:
            _, _, raw = state
            return (of_levels(raw, interval),)

    found = None if stage.values is None else jax.jit(stage.values)

    def values(image: np.ndarray, label: np.ndarray) -> np.ndarray:
        if found is None:
            return image
        return np.asarray(found(params, extra, *jax.device_put((image, label), device)))

    return Program(stage, places, begin, step, values, width, fine)


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

    def fine(state: State, interval: np.ndarray) -> Probabilities:
        return tuple(
            one.fine(own, interval[:, part])[0]
            for (one, part), own in zip(each, state, strict=True)
        )

    return first._replace(
        begin=begin, step=step, values=values, fine=None if first.fine is None else fine
    )
