"""VQ-VAE and models of codes: training steps against PyTorch, and sampling.

A shape T,B,I,H is T training steps in one call, each of B images of I by I pixels, with H features
in the largest map. There are two halvings, 512 codes of 32 numbers, and a codebook of moving
averages. Images are binary, or have 256 levels and a mixture of three logistics.

Sampling draws B such images of 256 levels: by the models of `configs/code_rnn.py:mnist`, which has
64 codes, and by the pixel RNN with either of its distributions over levels.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array

from rnngen_jax import models
from rnngen_jax.benchmarks.agreement import require_close
from rnngen_jax.benchmarks.machine import Machine
from rnngen_jax.benchmarks.peers import torch_nn
from rnngen_jax.benchmarks.peers.base import not_installed
from rnngen_jax.benchmarks.problem import Settings, Shape, draw_parameters
from rnngen_jax.benchmarks.report import Record, number, timed, torch_notes
from rnngen_jax.benchmarks.textbook_vqvae import (
    BETA,
    BETAS,
    DECAY,
    LEARNING_RATE,
    Sizes,
    torch_vqvae,
)
from rnngen_jax.benchmarks.timing import interleaved
from rnngen_jax.cells.base import Params
from rnngen_jax.config import require
from rnngen_jax.errors import RunError
from rnngen_jax.models import vqvae
from rnngen_jax.models.base import Model
from rnngen_jax.models.two_stage import Frozen, two_stage
from rnngen_jax.modules.quantisers.base import Assigned, Quantiser, unchanged
from rnngen_jax.shapes import ImageSpec
from rnngen_jax.training.config import OptimizerConfig
from rnngen_jax.training.optimizers import make_optimizer
from rnngen_jax.training.state import create
from rnngen_jax.training.step import many_steps, train_step

TITLE = "VQ-VAE's training steps against PyTorch with vector-quantize-pytorch; sampling from codes"
COLUMNS = ("ms", "least", "most", "core ms", "ratio", "steps/s", "images/s")
PLOTTED = "ms"

SHAPES = (Shape(10, 64, 28, 32),)
READOUTS = {"bernoulli": 2, "logistic_mixture": 256}  # and grey levels
STAGES, CODES, VECTORS, MIXTURES = 2, 512, 32, 3
PLAIN = f"codebook:codes={CODES},decay={DECAY},beta={BETA},start=normal,revive=0.0"
BARE = "ours, no quantiser"
USUAL = "ours, k-means and revival"
TORCH = "torch eager, vector-quantize-pytorch"
PIXELS = {  # the presets' distribution of 256 levels, and the default one
    "ours, pixel_rnn": {"readout": "logistic_mixture", "mixtures": 10},
    "ours, pixel_rnn categorical": {},
}
DRAWN = "codebook:codes=64"
SEED = 0
OFFSET = 0.1
# Allowed differences of trained parameters and codes, as in `gan`.
DISPLACEMENT_TOLERANCE = 0.02


class Ours(NamedTuple):
    """Our model, trained by the trainer's own step.

    Attributes:
      params: the initial parameters, NumPy.
      codes: the initial codebook, `[K, D]`.
      images: int `[T, B, I, I]`.
      train: `train() -> (losses [T], final parameters, final codebook)`, always from the start.
    """

    params: Params
    codes: np.ndarray | None
    images: np.ndarray
    train: Callable[[], tuple[Array, Params, Array | None]]


def run(settings: Settings, machine: Machine) -> Iterator[Record]:
    """Times training steps, after losses and trained parameters agree, and sampling."""
    for shape in settings.shapes_or(SHAPES):
        for readout in READOUTS:
            yield from _training(readout, shape, settings.rounds)
    for shape in settings.shapes_or(SHAPES):
        yield from _sampling(shape, settings.rounds)


def _training(readout: str, shape: Shape, rounds: int) -> Iterator[Record]:
    case, sizes = f"{readout} train {shape}", sizes_of(readout, shape)
    own = ours(sizes, shape.steps, PLAIN)
    calls: dict[str, Callable[[], Any]] = {"ours": own.train}
    calls[USUAL] = ours(sizes, shape.steps, f"codebook:codes={CODES}", begun=True).train
    calls[BARE] = ours(sizes, shape.steps, None).train
    if torch_nn.missing() is None and not_installed("vector_quantize_pytorch") is None:
        check(case, own, sizes)
        torch = torch_vqvae(own.params, own.codes, count_of(sizes), sizes)
        calls[TORCH] = lambda: torch.train(own.images)
    yield from timed(case, interleaved(calls, rounds), {"steps/s": shape.steps})


def sizes_of(readout: str, shape: Shape) -> Sizes:
    """The sizes of networks for a shape.

    Raises:
      UserError: a side that cannot be halved twice.
    """
    side = shape.inputs
    require(side % 2**STAGES == 0, "--shapes: I", side, f"a multiple of {2**STAGES}")
    levels = READOUTS[readout]
    return Sizes(readout, levels, shape.batch, side, shape.hidden, CODES, VECTORS, MIXTURES)


def count_of(sizes: Sizes) -> float:
    """Vectors per batch that each code begins with: as many as in equal use."""
    return sizes.batch * (sizes.side >> STAGES) ** 2 / sizes.codes


def check(case: str, own: Ours, sizes: Sizes) -> None:
    """Compares the losses of the training steps, the final parameters and the final codebook.

    Raises:
      RunError: they differ by more than the benchmark's tolerance.
    """
    torch = torch_vqvae(own.params, own.codes, count_of(sizes), sizes)
    losses, after, codes = own.train()
    require_close(f"{case}: losses of {TORCH}", torch.train(own.images), np.asarray(losses))
    parts = {
        "parameter": (torch.params(), _networks(after), own.params),
        "code": (torch.codes(), codes, own.codes),
    }
    for part, (theirs, wanted, start) in parts.items():
        found, expected = (_displacement(end, start) for end in (theirs, wanted))
        size = np.linalg.norm(found - expected) / np.linalg.norm(expected)
        if not size < DISPLACEMENT_TOLERANCE:
            raise RunError(
                f"{case}: {part} displacement of {TORCH} differs from ours by {size:.1g} of its "
                f"length; allowed: {DISPLACEMENT_TOLERANCE:g}. Nothing was timed."
            )


def _displacement(after: Any, before: Any) -> np.ndarray:
    """The change of all arrays as one vector."""
    changes = jax.tree.map(lambda a, b: np.ravel(np.asarray(a) - np.asarray(b)), after, before)
    return np.concatenate(jax.tree.leaves(changes))


def _networks(params: Params) -> Params:
    """The parameters of encoder and decoder; a codebook of averages has none."""
    return {name: params["model"][name] for name in ("encoder", "decoder")}


def ours(sizes: Sizes, steps: int, quantiser: str | None, begun: bool = False) -> Ours:
    """Our model, its training steps, and random images.

    Args:
      sizes: of images and networks.
      steps: T.
      quantiser: its spec; `None` for no quantiser between encoder and decoder.
      begun: whether T steps were taken before, such as the one that starts with k-means.
    """
    model = _model(sizes, quantiser)
    spec, rng = model.spec, np.random.default_rng(SEED)
    optimizer = OptimizerConfig(learning_rate=LEARNING_RATE, b1=BETAS[0], b2=BETAS[1])
    optimizers = {player: make_optimizer(optimizer) for player in model.losses}
    state = jax.jit(lambda: create(model, optimizers, SEED))()
    images = rng.integers(0, spec.levels, (steps, sizes.batch, *spec.shape), np.uint8)
    index = np.arange(steps * sizes.batch, dtype=np.int32).reshape(steps, sizes.batch)
    chunk = jax.device_put({"image": images, "label": np.zeros_like(index), "index": index})
    step = train_step(model, optimizers, 0.0, lambda batch, key: batch)
    call = jax.jit(many_steps(step, lambda resident, item: item, SEED))

    if begun:
        state, _ = call(state, None, chunk)

    def codes_in(extra: Any) -> Any:
        return extra["quantiser"].get("codes")

    def train() -> tuple[Array, Params, Array | None]:
        after, metrics = call(state, None, chunk)
        return metrics["loss/model"], after.params, codes_in(after.extra)

    params = jax.tree.map(np.asarray, _networks(state.params))
    codes = None if quantiser is None else np.asarray(codes_in(state.extra))
    return Ours(params, codes, images[..., 0], train)


def _model(sizes: Sizes, quantiser: str | None) -> Model:
    spec = ImageSpec(sizes.side, sizes.side, levels=sizes.levels)
    fields = _fields(sizes, quantiser or f"codebook:codes={sizes.codes}")
    if quantiser is not None:
        return models.build("vqvae", fields, spec)
    return vqvae.build(_Bare(**fields), spec)


class _Bare(vqvae.Config):
    """A VQ-VAE whose vectors are not quantised, to see what the quantiser takes."""

    def make_quantiser(self) -> Quantiser:
        """Passes the vectors on; all of them have code 0."""

        def assign(params: Any, extra: Any, z: Array, train: Any, mask: Any) -> Assigned:
            del params, train, mask
            return Assigned(z, jax.numpy.zeros((*z.shape[:-1], 1), "int32"), {}, extra, {})

        def no_codes(*given: Any) -> Any:
            raise NotImplementedError("without a quantiser there are no codes to decode")

        kept = self.vectors, CODES, 1, lambda key: ({}, {})
        return Quantiser(*kept, assign, unchanged, decode=no_codes, alternatives=no_codes)


def _fields(sizes: Sizes, quantiser: str) -> dict[str, Any]:
    """The fields of a VQ-VAE's config."""
    mixed = {"mixtures": sizes.mixtures} if sizes.readout == "logistic_mixture" else {}
    return {
        "quantiser": quantiser,
        "vectors": sizes.vectors,
        "features": sizes.features,
        "stages": STAGES,
        "readout": sizes.readout,
        **mixed,
    }


def _sampling(shape: Shape, rounds: int) -> Iterator[Record]:
    """Samples of a code RNN through its tokenizer, and of pixel RNNs of the same images."""
    calls = {"ours": coded(shape)}
    calls |= {name: pixelwise(shape, fields) for name, fields in PIXELS.items()}
    timings = interleaved(calls, rounds)
    yield from timed(f"sample {shape}", timings, {"images/s": shape.batch})


def coded(shape: Shape) -> Callable[[], Array]:
    """Draws B images of 256 levels: codes by `code_rnn`, then pixels by the decoder."""
    sizes = sizes_of("logistic_mixture", shape)
    tokenizer = _model(sizes, DRAWN)
    prior = models.build("code_rnn", {}, tokenizer.codes.spec)
    frozen = Frozen(*jax.jit(tokenizer.init)(jax.random.key(SEED)))
    return _sampler(two_stage(tokenizer, prior, frozen), shape.batch)


def pixelwise(shape: Shape, fields: dict[str, Any]) -> Callable[[], Array]:
    """Draws B images of 256 levels pixel by pixel, by `pixel_rnn`."""
    spec = ImageSpec(shape.inputs, shape.inputs, levels=256)
    fields = {"pixels": "scalar", "above": 2, **fields}
    return _sampler(models.build("pixel_rnn", fields, spec), shape.batch)


def _sampler(model: Model, num: int) -> Callable[[], Array]:
    """`draw() -> images`, with random parameters."""
    _, extra = jax.jit(model.init)(jax.random.key(SEED))
    rng = np.random.default_rng(SEED)
    params = jax.device_put(draw_parameters(lambda key: model.init(key)[0], rng, OFFSET))
    sample = jax.jit(lambda params, extra, key: model.sample(params, extra, key, num))
    return lambda: sample(params, extra, jax.random.key(SEED))


def notes(records: Sequence[Record]) -> list[str]:
    """The meaning of the ratio, the quantiser's share of a step, and others' times over ours."""
    lines = ["ratio: the time divided by ours, so ours is faster above 1."]
    for record in records:
        if record.contender == BARE:
            share = 100 * (1 - record.values["ratio"])
            lines.append(f"{record.case}: the quantiser takes {number(share)} % of a step")
        if record.contender in PIXELS:
            ratio = number(record.values["ratio"])
            lines.append(f"{record.case}: {record.contender} / ours: {ratio}")
    return [*lines, *torch_notes(records)]
