"""Lossless coding of images: a model's exact likelihood, made into bits by a range coder.

A value of probability p takes -log2 p bits (Shannon 1948), and a range coder (Martin 1979) comes
within a few words of their sum over a whole file. The coder is `constriction`'s. It rounds
probabilities to multiples of 2^-24 and leaves none at zero, so that every image can be coded.

The decoder needs the encoder's probabilities to the last bit. So both call the same compiled steps,
at the same batch shape, on the same inputs: an encoder, too, shows the model only what the decoder
knows by then.

A model of several stages, such as codes and the image given them, is coded stage by stage within a
batch: each is given the stages before it, which the decoder has by then.

Past the end of its stream a range decoder goes on with zeros, for ever. So what is decoded is coded
again, step by step: as soon as that takes more words than there are, the stream cannot be right.
"""

import collections
import math
import platform
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from rnngen_jax.errors import RunError, UserError
from rnngen_jax.evaluation import container
from rnngen_jax.evaluation.batching import Track, filled
from rnngen_jax.models.autoregressive import Stage, Steps, in_raster_order, see, unseen
from rnngen_jax.models.base import Extra, Model, Params

# These three may grow, but never shrink: files that were written with more could not be read.
LARGEST_BATCH = 1024
BATCH_BYTES = 2**27  # of a batch's state and its probabilities
MOST_BITS = 64  # that a stream may hold beside its words, in the coder's own state

WORD = np.dtype("<u4")
IN_FLIGHT = 4  # steps under way on the device, at most, while the encoder reads an earlier one's
STEP_COST = 128  # what a step costs however small its batch, in images

OTHER_PIXELS = "other pixels come out than went in"

Told = tuple[np.int32, np.ndarray]  # the first value of the last turn, and its values [S, B]
Standing = tuple[Any, Array]  # the model's own state, and the image so far


class DecodingError(Exception):
    """The stream cannot come from these probabilities; the message says what is wrong with it."""


class Coder(NamedTuple):
    """Both directions, for one model, its parameters and one batch size.

    Attributes:
      encode: `encode(images, labels) -> stream`: items `[N, ...]`; int32 `[N]`, or `None` where the
        model is not `labelled`; 32-bit words as bytes.
      decode: `decode(stream, num, each) -> (images, labels)`, the same back. A `DecodingError` as
        soon as the stream has too few words, or a batch not its digest in `each`, by `digests`;
        `None` compares nothing.
      arithmetic: as in `container.Container`, of the probabilities of made-up images: where it
        differs, so does floating point, and a stream decodes to other pixels.
    """

    encode: Callable[[np.ndarray, np.ndarray | None], bytes]
    decode: Callable[..., tuple[np.ndarray, np.ndarray | None]]
    arithmetic: bytes


class _Place(NamedTuple):
    """Where a step is: its program, number of the stop, and first value."""

    turn: int
    opening: bool
    t: np.int32
    start: np.int32


Begin = Callable[..., Standing]
Step = Callable[[Standing, Told, _Place], tuple[Standing, Array]]


class _Program(NamedTuple):
    """One stage, compiled for a batch size.

    Attributes:
      stage: the stage.
      places: all its steps, in their order.
      begin: `begin(label [B], *before) -> standing`, given the items of the stages before.
      step: `step(standing, told, place) -> (standing, probabilities [B, S, L])`, given the values
        of the step before.
      values: `values(image, label) -> items`, what an image stands for.
    """

    stage: Stage
    places: Sequence[_Place]
    begin: Begin
    step: Step
    values: Callable[[np.ndarray, np.ndarray], np.ndarray]


def labelled(model: Model) -> bool:
    """Whether labels are coded: a single class needs none."""
    return model.conditional and model.spec.classes > 1


def maker() -> str:
    """What a stream depends on beside its model: the JAX version and the machine."""
    device = jax.devices()[0]
    kind = platform.machine() if device.platform == "cpu" else device.device_kind
    return f"{jax.__version__} {device.platform} {kind}"


def digest(images: np.ndarray, labels: np.ndarray | None) -> bytes:
    """Checksum of images and labels, 8 bytes."""
    images = images.astype(images.dtype.newbyteorder("<"), copy=False)
    parts = [images] if labels is None else [images, labels.astype("<i4")]
    return container.digest(part.tobytes() for part in parts)


def digests(images: np.ndarray, labels: np.ndarray | None, size: int) -> tuple[bytes, ...]:
    """Checksums of each `size` images and their labels; the last may be of fewer."""
    parts = [slice(start, start + size) for start in range(0, len(images), size)]
    return tuple(digest(images[p], None if labels is None else labels[p]) for p in parts)


def batch_size(model: Model, params: Params, extra: Extra, num: int) -> int:
    """The fastest batch size for `num` images, a power of two.

    Raises:
      UserError: the model has no steps.
    """
    largest = largest_batch(model, params, extra, num)
    sizes = [2**k for k in range(largest.bit_length())]
    return min(sizes, key=lambda size: (math.ceil(num / size) * (size + STEP_COST), size))


def largest_batch(model: Model, params: Params, extra: Extra, num: int) -> int:
    """The largest batch size that a file of `num` images may have, a power of two.

    Raises:
      UserError: the model has no steps.
    """
    each, before = 0, []
    for stage in stages_of(model):
        label = jax.ShapeDtypeStruct((1,), jnp.int32)
        bound = _bound(stage, params, extra)
        state = jax.tree.leaves(jax.eval_shape(stage.steps.first, bound, label, *before))
        kept = sum(leaf.size * leaf.dtype.itemsize for leaf in state)
        each += kept + 4 * (stage.spec.dims + stage.steps.width * stage.spec.levels)
        before.append(jax.ShapeDtypeStruct((1, *stage.spec.shape), stage.spec.dtype))
    fitting = min(LARGEST_BATCH, max(1, BATCH_BYTES // each))
    return min(2 ** (fitting.bit_length() - 1), 2 ** (num - 1).bit_length())


def coder(model: Model, params: Params, extra: Extra, size: int, track: Track = iter) -> Coder:
    """Compiles a model's steps for a batch size, to code and to decode with.

    Images are coded batch by batch, a batch stage by stage in the order of its steps, a step image
    by image. The last batch is filled up with copies of its first image, which are not coded.
    Labels come before all images, as if each class were as likely.

    Args:
      model: with `steps`, or `stages`.
      params, extra: its parameters and state.
      size: images that are coded together; a stream is decoded at the size that it was coded at.
      track: wraps the range over batches.

    Raises:
      UserError: the model has no steps.
    """
    from constriction import stream as streams  # most verbs do without

    family = streams.model.Categorical(perfect=False)
    classes = streams.model.Uniform(model.spec.classes) if labelled(model) else None
    programs = [
        _program(stage, params, extra, size, stages_of(model)[:number])
        for number, stage in enumerate(stages_of(model))
    ]

    def encode(images: np.ndarray, labels: np.ndarray | None) -> bytes:
        encoder = streams.queue.RangeEncoder()
        if classes is not None:
            encoder.encode(labels, classes)
        waiting: collections.deque[tuple[_Program, Array, np.ndarray]] = collections.deque()

        def code(program: _Program, probabilities: Array, values: np.ndarray) -> None:
            table = _table(model, program.stage, probabilities, values.shape[1])
            encoder.encode(values.T.reshape(-1), family, table)

        for first in track(range(0, len(images), size)):
            batch, label = images[first : first + size], _labels_of(labels, first, size)
            whole, before = filled(batch, size), []
            for program in programs:
                items = program.values(whole, label)
                known = in_raster_order(items).astype(np.int32)
                standing, told = program.begin(label, *before), _nothing(program.stage, size)
                for place in program.places:
                    standing, probabilities = program.step(standing, told, place)
                    values = known[place.start : place.start + program.stage.steps.width]
                    told = (place.start, values)
                    waiting.append((program, probabilities, values[:, : len(batch)]))
                    if len(waiting) > IN_FLIGHT:
                        code(*waiting.popleft())
                before.append(items)
        while waiting:
            code(*waiting.popleft())
        return encoder.get_compressed().astype(WORD).tobytes()

    def decode(
        stream: bytes, num: int, each: Sequence[bytes] | None = None
    ) -> tuple[np.ndarray, np.ndarray | None]:
        decoder = streams.queue.RangeDecoder(np.frombuffer(stream, WORD).astype(np.uint32))
        again = streams.queue.RangeEncoder()

        def draw(*arguments: Any) -> np.ndarray:
            try:
                return decoder.decode(*arguments)
            except AssertionError:  # constriction's
                raise DecodingError("its code stands for no value") from None

        def count(*drawn: Any) -> None:
            again.encode(*drawn)
            if 32 * again.num_words() > 8 * len(stream) + MOST_BITS:
                raise DecodingError(f"its stream of {len(stream)} bytes ends before its images")

        def items_of(
            program: _Program, label: np.ndarray, before: Sequence[np.ndarray], real: int
        ) -> np.ndarray:
            """A stage's items, of which `real` are in the stream."""
            stage = program.stage
            known = np.empty((stage.spec.dims, size), np.int32)
            standing, told = program.begin(label, *before), _nothing(stage, size)
            for place in program.places:
                standing, probabilities = program.step(standing, told, place)
                table = _table(model, stage, probabilities, real)
                drawn = draw(family, table)
                count(drawn, family, table)
                values = filled(drawn.reshape(real, stage.steps.width), size).T
                known[place.start : place.start + stage.steps.width] = values
                told = (place.start, values)
            return known.T.astype(stage.spec.dtype).reshape(size, *stage.spec.shape)

        labels, batches = None, []
        if classes is not None:
            # Looked at before there is memory for so many.
            if num * math.log2(model.spec.classes) > 8 * len(stream) + MOST_BITS:
                raise DecodingError(f"its {num} labels take more than {len(stream)} bytes")
            labels = draw(classes, num)
            count(labels, classes)
        for first in track(range(0, num, size)):
            real, label = min(size, num - first), _labels_of(labels, first, size)
            before: list[np.ndarray] = []
            for program in programs:
                before.append(items_of(program, label, before, real))
            batch = before[-1][:real]
            whose = None if labels is None else labels[first : first + real]
            if each is not None and digest(batch, whose) != each[first // size]:
                raise DecodingError(OTHER_PIXELS)
            batches.append(batch)
        return np.concatenate(batches), labels

    return Coder(encode, decode, _arithmetic(programs, size))


def stages_of(model: Model) -> tuple[Stage, ...]:
    """The parts that an image is coded in, one after the other.

    Raises:
      UserError: the model has no steps.
    """
    if model.stages:
        return model.stages
    if model.steps is None or model.log_probs is None:
        raise UserError(
            f"{model.name} cannot compress: it gives no exact probability value by value."
        )
    return (Stage(model.spec, model.steps, model.log_probs),)


def _places(steps: Steps) -> list[_Place]:
    """All steps of an image, in their order."""
    lines, stops, turns = steps.starts.shape
    return [
        _Place(
            turn,
            steps.line is not None and stop == turn == 0,
            np.int32(line * stops + stop),
            np.int32(steps.starts[line, stop, turn]),
        )
        for line in range(lines)
        for stop in range(stops)
        for turn in range(turns)
    ]


def _bound(stage: Stage, params: Params, extra: Extra) -> Any:
    """What a stage's steps take as parameters."""
    return params if stage.bind is None else stage.bind(params, extra)


def _nothing(stage: Stage, size: int) -> Told:
    """What the first step is told."""
    return np.int32(0), np.full((stage.steps.width, size), stage.spec.levels, np.int32)


def _arithmetic(programs: Sequence[_Program], size: int) -> bytes:
    """Digest of the probabilities of items that count up the levels, at their first steps.

    All turns of the first stop, and one of the next, so that each compiled program has its part.
    """
    tables, before = [], []
    for stage, places, begin, step, _ in programs:
        spec, turns, width = stage.spec, stage.steps.starts.shape[2], stage.steps.width
        standing, told = begin(np.zeros(size, np.int32), *before), _nothing(stage, size)
        for place in places[: turns + 1]:
            standing, probabilities = step(standing, told, place)
            tables.append(np.asarray(probabilities, "<f4").tobytes())
            values = place.start + np.arange(width)[:, None] + np.arange(size)
            told = (place.start, (values % spec.levels).astype(np.int32))
        counted = np.arange(size * spec.dims).reshape(size, *spec.shape) % spec.levels
        before.append(counted.astype(spec.dtype))
    return container.arithmetic(tables)


def _program(
    stage: Stage, params: Params, extra: Extra, size: int, earlier: Sequence[Stage]
) -> _Program:
    """A stage, compiled; whether a line begins and which turn it is are fixed in a program."""
    spec, steps, bound = stage.spec, stage.steps, _bound(stage, params, extra)
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

    def begin(label: np.ndarray, *before: np.ndarray) -> Standing:
        # Copies, as what is donated may not be held by anybody else, nor twice.
        state = jax.tree.map(lambda x: jnp.array(x, copy=True), first(bound, label, *before))
        return state, unseen(spec, size)

    def abstract(x: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(x.shape, x.dtype)

    zeros = [np.zeros((size, *one.spec.shape), one.spec.dtype) for one in earlier]
    state, seen = jax.tree.map(abstract, begin(np.zeros(size, np.int32), *zeros))
    number = jax.ShapeDtypeStruct((), jnp.int32)
    told = jax.ShapeDtypeStruct((steps.width, size), jnp.int32)
    arguments = (jax.tree.map(abstract, bound), state, seen, number, told, number)
    kinds = {(place.turn, place.opening) for place in places}
    compiled = {kind: program(*kind).lower(*arguments).compile() for kind in kinds}

    def step(standing: Standing, told: Told, place: _Place) -> tuple[Standing, Array]:
        run = compiled[place.turn, place.opening]
        state, seen, probabilities = run(bound, *standing, *told, place.t)
        return (state, seen), probabilities

    found = None if stage.values is None else jax.jit(stage.values)

    def values(image: np.ndarray, label: np.ndarray) -> np.ndarray:
        return image if found is None else np.asarray(found(params, extra, image, label))

    return _Program(stage, places, begin, step, values)


def _table(model: Model, stage: Stage, probabilities: Array, real: int) -> np.ndarray:
    """Probabilities as the coder takes them, `[real·S, L]`, without those that fill up the batch.

    Raises:
      RunError: one of them is not a number.
    """
    table = np.asarray(probabilities)[:real].reshape(-1, stage.spec.levels)
    # A sum of probabilities is finite just where they all are.
    if not np.isfinite(table.sum()):
        raise RunError(
            f"{model.name} gives probabilities that are not finite; give another --checkpoint."
        )
    return table


def _labels_of(labels: np.ndarray | None, first: int, size: int) -> np.ndarray:
    """A batch's labels, int32 `[B]`; zeros where there are none."""
    if labels is None:
        return np.zeros(size, np.int32)
    return filled(labels[first : first + size], size)
