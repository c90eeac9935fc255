"""The lossless codec at 256 grey levels: today's streams against those of earlier file formats.

A shape T,B,I,H is T batches of B images of I by I pixels, for models with H features. The images
are noise and the parameters random: neither changes what is computed.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from rnngen_jax import models
from rnngen_jax.benchmarks.machine import Machine
from rnngen_jax.benchmarks.problem import Settings, Shape, draw_parameters
from rnngen_jax.benchmarks.report import Record, compare, of_work, summary, timed
from rnngen_jax.benchmarks.timing import interleaved
from rnngen_jax.errors import RunError
from rnngen_jax.evaluation import codec
from rnngen_jax.models.base import Model
from rnngen_jax.shapes import ImageSpec

TITLE = "the lossless codec at 256 levels: values coded coarse to fine, against all levels at once"
COLUMNS = ("ms", "least", "most", "core ms", "ratio", "images/s", "bits/dim")
PLOTTED = "images/s"

SHAPES = (Shape(1, 64, 28, 32),)
LEVELS = 256
# The pixel's distribution of the presets for images of 256 levels, and a table of all levels.
MIXED = {"pixels": "scalar", "readout": "logistic_mixture", "mixtures": 10}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "row_lstm": ("row_lstm", MIXED),
    "pixel_rnn": ("pixel_rnn", {"above": 2, **MIXED}),
    "row_lstm categorical": ("row_lstm", {"pixels": "scalar"}),
}
FLAT = "all levels at once, formats 1 to 4"
OFFSET = 0.1
MOST_LONGER = 1.001  # a stream's length over that of the earlier formats


class Coded(NamedTuple):
    """A coder, with the streams of a case's images.

    Attributes:
      encode: `encode() -> streams`.
      decode: `decode() -> images`, from these streams.
      length: bytes of all streams.
    """

    encode: Callable[[], Any]
    decode: Callable[[], Any]
    length: int


def run(settings: Settings, machine: Machine) -> Iterator[Record]:
    """Times encoding and decoding, after all images came back and streams are of like length."""
    for shape in settings.shapes_or(SHAPES):
        for name in MODELS:
            yield from _case(name, shape, settings.rounds)


def _case(name: str, shape: Shape, rounds: int) -> Iterator[Record]:
    case = f"{name} {shape}"
    model, params = model_of(name, shape)
    num = shape.steps * shape.batch
    images = np.random.default_rng(0).integers(0, LEVELS, (num, *model.spec.shape), np.uint8)
    found = {"ours": coded(case, model, params, images, shape.batch, coarse=True)}
    if codec.coarse(model):
        found[FLAT] = coded(case, model, params, images, shape.batch, coarse=False)
        if found["ours"].length > MOST_LONGER * found[FLAT].length + 64:
            lengths = " and ".join(str(one.length) for one in found.values())
            raise RunError(f"{case}: streams of {lengths} bytes. Nothing was timed.")
    for work in ("encode", "decode"):
        calls = {contender: getattr(one, work) for contender, one in found.items()}
        timings = interleaved(calls, rounds)
        for record in timed(f"{name} {work} {shape}", timings, {"images/s": num}):
            bits = 8 * found[record.contender].length / images.size
            yield record._replace(values={**record.values, "bits/dim": bits})


def model_of(name: str, shape: Shape) -> tuple[Model, Any]:
    """One of `MODELS` and its random parameters."""
    kind, fields = MODELS[name]
    spec = ImageSpec(shape.inputs, shape.inputs, levels=LEVELS)
    model = models.build(kind, {"features": shape.hidden, **fields}, spec)
    rng = np.random.default_rng(0)
    return model, jax.device_put(draw_parameters(lambda key: model.init(key)[0], rng, OFFSET))


def coded(
    case: str, model: Model, params: Any, images: np.ndarray, size: int, coarse: bool
) -> Coded:
    """A coder for batches of `size` images, which has given these images back.

    Raises:
      RunError: it has not.
    """
    coder = codec.coder(model, params, {}, size, coarse=coarse)
    streams = coder.encode(images, None)
    back, _ = coder.decode(streams, len(images))
    if not np.array_equal(back, images):
        raise RunError(f"{case}: other images come out than went in. Nothing was timed.")
    return Coded(
        lambda: coder.encode(images, None),
        lambda: coder.decode(streams, len(images))[0],
        sum(map(len, streams)),
    )


def notes(records: Sequence[Record]) -> list[str]:
    """The meaning of the columns, and the earlier formats' time over today's."""
    lines = [
        "ratio: the time divided by ours, so ours is faster above 1. core ms: of all cores "
        "together. Compiling is not timed."
    ]
    for work in ("encode", "decode"):
        ratios = compare(of_work(records, work), "ratio", (FLAT.split()[0],))
        if ratios:
            lines.append(f"{work}: {FLAT} / ours: {summary(ratios)}")
    return lines
