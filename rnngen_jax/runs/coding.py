"""A run's images as the content of a .rnn file, and back: without loss, or by their codes alone."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from rnngen_jax.data.source import array_split
from rnngen_jax.errors import RunError, UserError
from rnngen_jax.evaluation import codec, coding_steps, container, likelihood, lossy
from rnngen_jax.evaluation.batching import split_batches
from rnngen_jax.evaluation.codec import Coder
from rnngen_jax.evaluation.container import Container, Grid
from rnngen_jax.models.base import Model

if TYPE_CHECKING:  # which uses this module
    from rnngen_jax.runs.run import Run


class Compressed(NamedTuple):
    """Compressed images.

    Attributes:
      whole: the bytes of a file.
      payload: how many of them the range coder has written; the others are headers.
      items: what was coded: the images `[N, H, W, C]`, or their codes in rows `[N, 1, V, 1]`.
      compiling, coding: seconds.
    """

    whole: bytes
    payload: int
    items: np.ndarray
    compiling: float
    coding: float


class Decompressed(NamedTuple):
    """Decompressed images.

    Attributes:
      images: grey levels `[N, H, W, C]`: those that were compressed, or the nearest to what is
        expected given their codes.
      labels: int32 `[N]`, or `None` if the model is not `codec.labelled`.
      compiling, decoding: seconds.
    """

    images: np.ndarray
    labels: np.ndarray | None
    compiling: float
    decoding: float


def model_coded(model: Model, loss: bool) -> Model:
    """The model of what is coded: the model itself, or that of its codes.

    Raises:
      UserError: the model has no exact probability of each value, or no codes.
    """
    found = lossy.lossy_of(model).rows if loss else model
    coding_steps.stages_of(found)
    return found


def grids_of(model: Model) -> tuple[Grid, ...]:
    """The grids that stand in the place of an image of the model, in a file."""
    lossy.lossy_of(model)
    return tuple(Grid(spec.shape, spec.levels) for spec in model.codes.specs)


def compress(
    run: "Run",
    images: np.ndarray,
    labels: np.ndarray | None,
    *,
    loss: bool = False,
    names: Sequence[str] | None = None,
) -> Compressed:
    """Compresses images, on all devices of this process.

    Args:
      run: the run.
      images: grey levels `[N, H, W, C]`, of the spec's dtype.
      labels: int32 `[N]` if the model is class-conditional.
      loss: whether to keep the codes alone.
      names: the images' names without ending.

    Raises:
      UserError: the model cannot compress, or not with loss.
      RunError: probabilities that are not finite.
    """
    model, items = model_coded(run.model, loss), images
    start = time.perf_counter()
    size = codec.batch_size(model, run.params, run.extra, len(images))
    coder = _coder(run, model, size, codec.devices_for(len(images), size))
    compiled = time.perf_counter()
    if loss:
        items = lossy.encoder(run.model, run.track)(run.params, run.extra, images)
    streams = coder.encode(items, labels)
    done = time.perf_counter()
    content = Container(
        shape=run.spec.shape,
        levels=run.spec.levels,
        num=len(images),
        batch_size=size,
        labelled=codec.labelled(model),
        model=run.digest,
        arithmetic=coder.arithmetic,
        pixels=codec.digests(items, labels, size),
        maker=codec.maker(),
        names=None if names is None else tuple(names),
        streams=streams,
        grids=grids_of(run.model) if loss else (),
    )
    payload = sum(map(len, streams))
    return Compressed(container.pack(content), payload, items, compiled - start, done - compiled)


def decompress(run: "Run", content: Container, source: str) -> Decompressed:
    """Decompresses images, on all devices of this process.

    Args:
      run: the run that compressed them.
      content: the file's content.
      source: the file's name, for messages.

    Raises:
      UserError: the content is another model's, or forged.
      RunError: it cannot be decoded here, as floating point differs from the machine that coded it.
    """
    check(run, content, source)
    model, size = model_coded(run.model, bool(content.grids)), content.batch_size
    start = time.perf_counter()
    devices = codec.devices_for(content.num, size, len(content.streams))
    coder = _coder(run, model, size, devices)
    compiled = time.perf_counter()
    images, labels = _decoded(coder, content, source)
    if content.grids:
        images = rebuilt(run, images)
    return Decompressed(images, labels, compiled - start, time.perf_counter() - compiled)


def rebuilt(run: "Run", codes: np.ndarray) -> np.ndarray:
    """The images of codes in rows `[N, 1, V, 1]`: the grey levels next to the expected values."""
    return lossy.decoder(run.model, run.track)(run.params, run.extra, codes)


def code_nats(run: "Run", codes: np.ndarray, labels: np.ndarray | None) -> np.ndarray:
    """The negative log-likelihood of codes in rows `[N, 1, V, 1]`, float64 `[N]`, nats."""
    score = likelihood.scorer(lossy.lossy_of(run.model).rows, lambda batch, key: batch)
    size = run.experiment.evaluation.batch_size
    batches = split_batches(array_split(codes, labels), size, track=run.track)
    return likelihood.nats_of_each(score, run.params, run.extra, batches)


def check(run: "Run", content: Container, source: str) -> None:
    """Raises a `UserError` unless a file was made with the run's model, or if it cannot compress.

    Args:
      run, content, source: as for `decompress`.
    """
    spec, loss = run.spec, bool(content.grids)
    if loss and run.model.lossy is None:
        raise UserError(
            f"{source} holds codes of images, and the model in {run.workdir}, {run.model.name}, "
            "has none. Give the --workdir it was made with."
        )
    model = model_coded(run.model, loss)
    if (content.shape, content.levels) != (spec.shape, spec.levels):
        raise UserError(
            f"{source} holds images of shape {content.shape} with {content.levels} levels; those "
            f"of the model in {run.workdir} are {spec.shape} with {spec.levels} levels. Give the "
            "--workdir it was made with."
        )
    if loss and content.grids != grids_of(run.model):
        raise UserError(
            f"{source} holds images as {named(content.grids)}; those of the model in "
            f"{run.workdir} are {named(grids_of(run.model))}. Give the --workdir it was made with."
        )
    mine = run.digest
    if content.model != mine:
        raise UserError(
            f"{source} was made with the model {content.model.hex()}; step {run.step} of "
            f"{run.workdir} is {mine.hex()}. Give the --workdir, --checkpoint and --seed_index "
            "it was made with."
        )
    largest = codec.largest_batch(model, run.params, run.extra, content.num)
    if content.batch_size > largest or content.labelled != codec.labelled(model):
        raise UserError(f"{source} is damaged: this model would not write such a file.")


def named(grids: Sequence[Grid]) -> str:
    """Grids in words."""
    return " and ".join(map(str, grids))


def _coder(run: "Run", model: Model, size: int, devices: Sequence) -> Coder:
    """The coder of a run's images or codes."""
    return codec.coder(model, run.params, run.extra, size, devices, run.track)


def _decoded(coder: Coder, content: Container, source: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Decodes the images or codes, and the labels, of a file.

    Raises:
      UserError: this model did not write the stream.
      RunError: it may have, but elsewhere, where its probabilities differed.
    """
    first = content.arithmetic is None  # version 1, which stores no fingerprint of probabilities
    try:
        each = None if first else content.pixels
        items, labels = coder.decode(content.streams, content.num, each)
        if first and (codec.digest(items, labels),) != content.pixels:
            raise codec.DecodingError(codec.OTHER_VALUES)
    except codec.DecodingError as error:
        here, same = codec.maker(), content.arithmetic == coder.arithmetic
        if content.maker != here and not same:
            raise RunError(
                f"{source} is intact, but {error}, as floating point differs between machines and "
                f"versions: it was made with JAX {content.maker}, and this is JAX {here}. "
                "Decompress it where it was made; nothing was written."
            ) from None
        doubt = "" if same else ", or made on another kind of processor"
        raise UserError(
            f"{source}: {error}. It was forged, or damaged before its checksum was made{doubt}; "
            "nothing was written."
        ) from None
    return items, labels
