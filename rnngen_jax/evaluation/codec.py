"""Lossless coding of images: a range coder turns a model's exact likelihood into bits.

A value of probability p takes -log2 p bits (Shannon 1948), and a range coder (Martin 1979) comes
within a few words of their sum over a whole file. The coder is `constriction`'s. It rounds
probabilities to multiples of 2^-24 and leaves none at zero, so that every image can be coded.

The decoder needs the encoder's probabilities to the last bit. So both call the same compiled steps
(`coding_steps`), at the same batch shape, on the same inputs: the encoder, too, shows the model
only what the decoder knows at that step.

A model of several stages, such as codes and the image given them, is coded stage by stage within a
batch: each stage is given the earlier ones, which the decoder has by then.

A range decoder reads zeros past the end of its stream, without end. So decoded values are encoded
again, step by step: once that takes more words than the stream has, the stream is invalid.
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

from rnngen_jax.errors import RunError
from rnngen_jax.evaluation import container
from rnngen_jax.evaluation.batching import Track, filled
from rnngen_jax.evaluation.coding_steps import (
    Program,
    arithmetic,
    bound_params,
    compile_stages,
    no_previous,
    stages_of,
)
from rnngen_jax.models.autoregressive import Stage, in_raster_order
from rnngen_jax.models.base import Extra, Model, Params

# These three may grow but never shrink, as existing files could then not be read.
LARGEST_BATCH = 1024
BATCH_BYTES = 2**27  # size limit of a batch's state and probabilities
MOST_BITS = 64  # information in the coder's own state, beyond a stream's words

WORD = np.dtype("<u4")
IN_FLIGHT = 4  # most steps that the device runs ahead of the encoder
STEP_COST = 128  # fixed cost of a step, in images

OTHER_PIXELS = "other pixels come out than went in"


class DecodingError(Exception):
    """The stream cannot come from these probabilities; the message says what is wrong with it."""


class Coder(NamedTuple):
    """An encoder and a decoder for one model, its parameters and one batch size.

    Attributes:
      encode: `encode(images, labels) -> stream`: items `[N, ...]`; int32 `[N]`, or `None` if the
        model is not `labelled`; 32-bit words as bytes.
      decode: `decode(stream, num, each) -> (images, labels)`, the inverse. It raises a
        `DecodingError` as soon as the stream has too few words or a batch differs from its digest
        in `each` (from `digests`; `None` checks no digests).
      arithmetic: as in `container.Container`, of the probabilities of synthetic images. Where it
        differs, floating point does, and a stream decodes to other pixels.
    """

    encode: Callable[[np.ndarray, np.ndarray | None], bytes]
    decode: Callable[..., tuple[np.ndarray, np.ndarray | None]]
    arithmetic: bytes


def labelled(model: Model) -> bool:
    """Whether labels are coded; a single class needs no labels."""
    return model.conditional and model.spec.classes > 1


def maker() -> str:
    """The JAX version and the machine, on which a stream depends beside its model."""
    device = jax.devices()[0]
    kind = platform.machine() if device.platform == "cpu" else device.device_kind
    return f"{jax.__version__} {device.platform} {kind}"


def digest(images: np.ndarray, labels: np.ndarray | None) -> bytes:
    """Digest of images and labels, 8 bytes."""
    images = images.astype(images.dtype.newbyteorder("<"), copy=False)
    parts = [images] if labels is None else [images, labels.astype("<i4")]
    return container.digest(part.tobytes() for part in parts)


def digests(images: np.ndarray, labels: np.ndarray | None, size: int) -> tuple[bytes, ...]:
    """Digests of each `size` images and their labels; the last may cover fewer."""
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
        bound = bound_params(stage, params, extra)
        state = jax.tree.leaves(jax.eval_shape(stage.steps.first, bound, label, *before))
        kept = sum(leaf.size * leaf.dtype.itemsize for leaf in state)
        each += kept + 4 * (stage.spec.dims + stage.steps.width * stage.spec.levels)
        before.append(jax.ShapeDtypeStruct((1, *stage.spec.shape), stage.spec.dtype))
    fitting = min(LARGEST_BATCH, max(1, BATCH_BYTES // each))
    return min(2 ** (fitting.bit_length() - 1), 2 ** (num - 1).bit_length())


def coder(model: Model, params: Params, extra: Extra, size: int, track: Track = iter) -> Coder:
    """The coder of a model, compiled for a batch size.

    Images are coded batch by batch, a batch stage by stage in the order of its steps, a step image
    by image. The last batch is filled up with copies of its first image, which are not coded.
    Labels come before all images and are coded as equally likely.

    Args:
      model: with `steps`, or `stages`.
      params, extra: its parameters and state.
      size: images per batch; a stream must be decoded at the size that it was encoded at.
      track: wraps the range over batches.

    Raises:
      UserError: the model has no steps.
    """
    from constriction import stream as streams  # here, as most verbs do not need it

    family = streams.model.Categorical(perfect=False)
    classes = streams.model.Uniform(model.spec.classes) if labelled(model) else None
    programs = compile_stages(model, params, extra, size)

    def encode(images: np.ndarray, labels: np.ndarray | None) -> bytes:
        encoder = streams.queue.RangeEncoder()
        if classes is not None:
            encoder.encode(labels, classes)
        waiting: collections.deque[tuple[Program, Array, np.ndarray]] = collections.deque()

        def code(program: Program, probabilities: Array, values: np.ndarray) -> None:
            table = _table(model, program.stage, probabilities, values.shape[1])
            encoder.encode(values.T.reshape(-1), family, table)

        for first in track(range(0, len(images), size)):
            batch, label = images[first : first + size], _labels_of(labels, first, size)
            whole, before = filled(batch, size), []
            for program in programs:
                items = program.values(whole, label)
                known = in_raster_order(items).astype(np.int32)
                state, previous = program.begin(label, *before), no_previous(program.stage, size)
                for place in program.places:
                    state, probabilities = program.step(state, previous, place)
                    values = known[place.start : place.start + program.stage.steps.width]
                    previous = (place.start, values)
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
            program: Program, label: np.ndarray, before: Sequence[np.ndarray], real: int
        ) -> np.ndarray:
            """The items of a stage, of which `real` are in the stream."""
            stage = program.stage
            known = np.empty((stage.spec.dims, size), np.int32)
            state, previous = program.begin(label, *before), no_previous(stage, size)
            for place in program.places:
                state, probabilities = program.step(state, previous, place)
                table = _table(model, stage, probabilities, real)
                drawn = draw(family, table)
                count(drawn, family, table)
                values = filled(drawn.reshape(real, stage.steps.width), size).T
                known[place.start : place.start + stage.steps.width] = values
                previous = (place.start, values)
            return known.T.astype(stage.spec.dtype).reshape(size, *stage.spec.shape)

        labels, batches = None, []
        if classes is not None:
            # Checked before memory for so many labels is allocated.
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

    return Coder(encode, decode, arithmetic(programs, size))


def _table(model: Model, stage: Stage, probabilities: Array, real: int) -> np.ndarray:
    """Probabilities as the coder takes them, `[real·S, L]`, without those that fill up the batch.

    Raises:
      RunError: one of them is not finite.
    """
    table = np.asarray(probabilities)[:real].reshape(-1, stage.spec.levels)
    # A sum of probabilities is finite if and only if all of them are.
    if not np.isfinite(table.sum()):
        raise RunError(
            f"{model.name} gives probabilities that are not finite; give another --checkpoint."
        )
    return table


def _labels_of(labels: np.ndarray | None, first: int, size: int) -> np.ndarray:
    """A batch's labels, int32 `[B]`; zeros without labels."""
    if labels is None:
        return np.zeros(size, np.int32)
    return filled(labels[first : first + size], size)
