"""Lossless coding of images: a range coder turns a model's exact likelihood into bits.

A value of probability p takes -log2 p bits (Shannon 1948), and a range coder (Martin 1979) comes
within a few words of their sum over a whole batch. The coder is `constriction`'s. It rounds
probabilities to multiples of 2^-24 and leaves none at zero, so that every image can be coded.

The decoder needs the encoder's probabilities to the last bit. So both call the same compiled steps
(`coding_steps`), at the same batch shape, on the same inputs: the encoder, too, shows the model
only what the decoder knows at that step.

Each batch has a stream of its own, so that devices can decode a batch each. Beside what one stream
for all of them would take, a batch so costs about two words: one that names its stream's length,
and on average one that ends it. A batch's stream does not depend on how many devices code it.

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

from rnngen_jax.errors import RunError
from rnngen_jax.evaluation import container
from rnngen_jax.evaluation.batching import Track
from rnngen_jax.evaluation.coding_steps import (
    Probabilities,
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

Draw = Callable[[Any, Any], np.ndarray]

OTHER_VALUES = "other values come out than went in"


class DecodingError(Exception):
    """The stream cannot come from these probabilities; the message says what is wrong with it."""


class Coder(NamedTuple):
    """An encoder and a decoder for one model, its parameters and one batch size.

    Attributes:
      encode: `encode(images, labels) -> streams`: items `[N, ...]`; int32 `[N]`, or `None` if the
        model is not `labelled`; for each batch 32-bit words as bytes.
      decode: `decode(streams, num, each) -> (images, labels)`, the inverse. It raises a
        `DecodingError` as soon as a stream has too few words or a batch differs from its digest in
        `each` (from `digests`; `None` checks no digests). Files of earlier versions have a single
        stream for all batches, which a coder on one device decodes.
      arithmetic: as in `container.Container`, of the probabilities of synthetic images. Where it
        differs, floating point does, and a stream decodes to other pixels.
    """

    encode: Callable[[np.ndarray, np.ndarray | None], tuple[bytes, ...]]
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


def devices_for(num: int, size: int, streams: int | None = None) -> list[jax.Device]:
    """This process's devices to code `num` images on, no more than there are batches of `size`.

    Args:
      num: number of images.
      size: images in a batch.
      streams: that the images are in; one for all batches is decoded by one device.
    """
    return jax.local_devices()[: 1 if streams == 1 else math.ceil(num / size)]


def coder(
    model: Model,
    params: Params,
    extra: Extra,
    size: int,
    devices: Sequence[jax.Device] | None = None,
    track: Track = iter,
) -> Coder:
    """The coder of a model, compiled for a batch size.

    Images are coded batch by batch, a batch stage by stage in the order of its steps, a step image
    by image; as many batches at once as there are devices. The last batch is filled up with copies
    of its first image, which are not coded. A batch's labels come before its images and are coded
    as equally likely.

    Args:
      model: with `steps`, or `stages`.
      params, extra: its parameters and state.
      size: images per batch; a stream must be decoded at the size that it was encoded at.
      devices: some of this process's; by default the first. They do not change the streams.
      track: wraps the range over groups of batches.

    Raises:
      UserError: the model has no steps.
    """
    from constriction import stream as coding  # here, as most verbs do not need it

    devices = jax.local_devices()[:1] if devices is None else devices
    family = coding.model.Categorical(perfect=False)
    classes = coding.model.Uniform(model.spec.classes) if labelled(model) else None
    programs = compile_stages(model, params, extra, size, devices)
    group = size * len(devices)

    def encode(images: np.ndarray, labels: np.ndarray | None) -> tuple[bytes, ...]:
        encoders = [coding.queue.RangeEncoder() for _ in range(0, len(images), size)]
        waiting: collections.deque[tuple[int, Program, Probabilities, np.ndarray]]
        waiting = collections.deque()

        def code(
            first: int, program: Program, probabilities: Probabilities, values: np.ndarray
        ) -> None:
            table = _table(model, program.stage, probabilities)
            for batch, place in _batches(first, len(images), size, group):
                mine = np.ascontiguousarray(values.T[place]).reshape(-1)
                encoders[batch].encode(mine, family, table[place].reshape(-1, table.shape[-1]))

        for first in track(range(0, len(images), group)):
            rows = first + _rows(min(len(images) - first, group), size, group)
            whole, label, before = images[rows], _labels_of(labels, rows), []
            if classes is not None:
                for batch, place in _batches(first, len(images), size, group):
                    encoders[batch].encode(label[place], classes)
            for program in programs:
                items = program.values(whole, label)
                known = in_raster_order(items).astype(np.int32)
                state, previous = program.begin(label, *before), no_previous(program.stage, group)
                for place in program.places:
                    state, probabilities = program.step(state, previous, place)
                    values = known[place.start : place.start + program.stage.steps.width]
                    previous = (place.start, values)
                    waiting.append((first, program, probabilities, values))
                    if len(waiting) > IN_FLIGHT:
                        code(*waiting.popleft())
                before.append(items)
        while waiting:
            code(*waiting.popleft())
        return tuple(each.get_compressed().astype(WORD).tobytes() for each in encoders)

    def decode(
        streams: Sequence[bytes], num: int, each: Sequence[bytes] | None = None
    ) -> tuple[np.ndarray, np.ndarray | None]:
        batches = math.ceil(num / size)
        if len(streams) not in (1, batches) or (len(streams) < batches and len(devices) > 1):
            raise AssertionError(
                f"{len(streams)} streams, {batches} batches, {len(devices)} devices"
            )
        joined = len(streams) < batches
        readers = [_reader(stream) for stream in streams]

        def labels_in(number: int, count: int) -> np.ndarray:
            """The labels that a stream begins with."""
            most = len(streams[number])
            # Checked before memory for so many labels is allocated.
            if count * math.log2(model.spec.classes) > 8 * most + MOST_BITS:
                raise DecodingError(f"its {count} labels take more than {most} bytes")
            return readers[number](classes, count)

        def items_of(
            program: Program, label: np.ndarray, before: Sequence[np.ndarray], first: int
        ) -> np.ndarray:
            """The items of a stage."""
            stage = program.stage
            known = np.empty((stage.spec.dims, group), np.int32)
            rows = _rows(min(num - first, group), size, group)
            state, previous = program.begin(label, *before), no_previous(stage, group)
            for place in program.places:
                state, probabilities = program.step(state, previous, place)
                table = _table(model, stage, probabilities)
                drawn = [
                    readers[0 if joined else batch](
                        family, table[mine].reshape(-1, table.shape[-1])
                    )
                    for batch, mine in _batches(first, num, size, group)
                ]
                values = np.concatenate(drawn).reshape(-1, stage.steps.width)[rows].T
                known[place.start : place.start + stage.steps.width] = values
                previous = (place.start, values)
            return known.T.astype(stage.spec.dtype).reshape(group, *stage.spec.shape)

        found, labels = [], None
        if classes is not None:
            labels = labels_in(0, num) if joined else np.empty(0, np.int32)
        for first in track(range(0, num, group)):
            real = min(num - first, group)
            mine = _batches(first, num, size, group)
            if classes is not None and not joined:
                own = [labels_in(batch, place.stop - place.start) for batch, place in mine]
                labels = np.concatenate([labels, *own])
            label = _labels_of(labels, first + _rows(real, size, group))
            before: list[np.ndarray] = []
            for program in programs:
                before.append(items_of(program, label, before, first))
            whole = whole_items(model, before)
            for batch, place in mine:
                items = whole[place]
                whose = None if labels is None else label[place]
                if each is not None and digest(items, whose) != each[batch]:
                    raise DecodingError(OTHER_VALUES)
                found.append(items)
        return np.concatenate(found), labels

    return Coder(encode, decode, arithmetic(programs, size, len(devices)))


def whole_items(model: Model, each: Sequence[np.ndarray]) -> np.ndarray:
    """What the items of all stages are together: the image, the last one's, or all in a row."""
    if stages_of(model)[-1].values is None:
        return each[-1]
    row = np.concatenate([items.reshape(len(items), -1) for items in each], axis=1)
    return row.astype(model.spec.dtype).reshape(-1, *model.spec.shape)


def _reader(stream: bytes) -> Draw:
    """Decodes a stream: `draw(model, num)` or `draw(family, table) -> values`, one after the other.

    It raises a `DecodingError` as soon as what was drawn takes more words than there are.
    """
    from constriction import stream as coding

    decoder = coding.queue.RangeDecoder(np.frombuffer(stream, WORD).astype(np.uint32))
    again = coding.queue.RangeEncoder()

    def draw(model: Any, given: int | np.ndarray) -> np.ndarray:
        try:
            drawn = decoder.decode(model, given)
        except AssertionError:  # constriction's
            raise DecodingError("its code stands for no value") from None
        again.encode(drawn, model, *([] if isinstance(given, int) else [given]))
        if 32 * again.num_words() > 8 * len(stream) + MOST_BITS:
            raise DecodingError(f"its stream of {len(stream)} bytes ends before its images")
        return drawn

    return draw


def _batches(first: int, num: int, size: int, group: int) -> list[tuple[int, slice]]:
    """The batches in the group that begins with image `first` of `num`.

    Returns:
      The number of each, and where its images are in the group; the last may be shorter.
    """
    starts = range(first, min(first + group, num), size)
    return [
        (start // size, slice(start - first, min(start + size, num) - first)) for start in starts
    ]


def _rows(real: int, size: int, group: int) -> np.ndarray:
    """Which of the `real` images of a group stands in each of its rows, int `[group]`.

    A batch is filled up with copies of its first image, and a batch without any with the group's.
    """
    row = np.arange(group)
    start = row // size * size
    return np.where(row < real, row, np.where(start < real, start, 0))


def _table(model: Model, stage: Stage, probabilities: Probabilities) -> np.ndarray:
    """The probabilities of all devices on the host, `[B, S, L]`.

    Raises:
      RunError: one of them is not finite.
    """
    tables = [np.asarray(each) for each in probabilities]
    table = tables[0] if len(tables) == 1 else np.concatenate(tables)
    # A sum of probabilities is finite if and only if all of them are.
    if not np.isfinite(table.sum()):
        raise RunError(
            f"{model.name} gives probabilities that are not finite; give another --checkpoint."
        )
    return table


def _labels_of(labels: np.ndarray | None, rows: np.ndarray) -> np.ndarray:
    """The labels of a group's images, int32 `[B]`; zeros without labels."""
    return np.zeros(rows.size, np.int32) if labels is None else labels[rows]
