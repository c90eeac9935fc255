"""Models of images: training against textbook layers, sampling against one pass per value.

A shape T,B,I,H is B binary images of T pixels and I channels, for layers with H features. Images
are as square as T allows, and no higher than wide.
"""

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from rnngen_jax import cells, models
from rnngen_jax.benchmarks import agreement
from rnngen_jax.benchmarks.contenders import Case, Layer, contender
from rnngen_jax.benchmarks.machine import Machine
from rnngen_jax.benchmarks.problem import Settings, Shape, draw_parameters
from rnngen_jax.benchmarks.report import Record, summary, timed
from rnngen_jax.benchmarks.textbook import LAYERS, TextbookLayer
from rnngen_jax.benchmarks.timing import Timing, interleaved
from rnngen_jax.cells.base import Params
from rnngen_jax.config import from_mapping
from rnngen_jax.models.base import Model
from rnngen_jax.models.grid import grid_model
from rnngen_jax.modules.grid.diagonal_bilstm import DiagonalBiLSTM
from rnngen_jax.modules.grid.row_lstm import RowLSTM
from rnngen_jax.shapes import ImageSpec

TITLE = "gradients against textbook layers, sampling against one pass per value"
COLUMNS = ("ms", "least", "most", "ratio")
PLOTTED = "ms"

SHAPES = (Shape(784, 16, 1, 16), Shape(784, 64, 1, 32))
SAMPLED = (Shape(784, 16, 1, 32),)

MODULES = {
    "row_lstm": functools.partial(RowLSTM, radius=1),
    "diagonal_bilstm": DiagonalBiLSTM,
}
# By name: whether the inputs are convolved before the loop.
TEXTBOOKS = {"flax ConvLSTMCell": False, "flax Conv, inputs before the loop": True}

MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "row_lstm": ("row_lstm", {}),
    "diagonal_bilstm": ("diagonal_bilstm", {}),
    "pixel_cnn": ("pixel_cnn", {}),
    "pixel_cnn, gated": ("pixel_cnn", {"gated": True}),
    "pixel_rnn": ("pixel_rnn", {}),
}
# So many values of an image are sampled by whole passes; their time is scaled up to all values.
PASSES = 28
PASSED = PYTHON, COMPILED = [f"one pass per value, {loop}" for loop in ("Python", "fori_loop")]
# Standard deviation of random biases.
OFFSET = 0.3


def run(settings: Settings, machine: Machine) -> Iterator[Record]:
    """Times gradients, after outputs and gradients agree, and sampling, after logits agree."""
    for shape in settings.shapes_or(SHAPES):
        for kind in LAYERS:
            for part, contenders in (("layer", layers), ("network", networks)):
                yield from _training(f"{kind} {part}", shape, contenders(kind, shape), settings)
    for shape in settings.shapes_or(SAMPLED):
        for name in MODELS:
            yield from _sampling(name, shape, settings)


def cases(settings: Settings) -> Iterator[Case]:
    """The gradients, to be compiled for a machine that is not here."""
    for shape in settings.shapes_or(SHAPES):
        for kind in LAYERS:
            for part, found in (("layer", layers), ("network", networks)):
                name = f"{kind} {part} gradient {shape}"
                yield Case(name, "gradient", found(kind, shape))


def image_spec(shape: Shape) -> ImageSpec:
    """The spec of the images for a shape."""
    sides = range(1, math.isqrt(shape.steps) + 1)
    height = max(side for side in sides if shape.steps % side == 0)
    return ImageSpec(height, shape.steps // height, shape.inputs, levels=2)


def layers(kind: str, shape: Shape) -> list[Layer]:
    """Our layer and the textbook layers, on maps with 2H features."""
    spec, rng = image_spec(shape), np.random.default_rng(0)
    width, cell = 2 * shape.hidden, cells.build("lstm", shape.hidden)
    module = MODULES[kind](cell=cell, width=width, columns=spec.width, channels=spec.channels)
    size = (spec.height, spec.width, shape.batch, width)
    xs, weights = (rng.standard_normal(size, np.float32) for _ in range(2))
    params = draw_parameters(lambda key: module.init(key, None, xs)["params"], rng, OFFSET)

    def apply(params: Params, xs: Array) -> Array:
        return module.apply({"params": params}, None, xs)[1]

    found = [Layer("ours", apply, params, xs, weights, np.asarray, _as_numpy)]
    textbook = LAYERS[kind]
    back = np.argsort(textbook.axes)
    for name, hoisted in TEXTBOOKS.items():
        theirs = functools.partial(textbook.apply, channels=spec.channels, hoisted=hoisted)
        found.append(
            Layer(
                name,
                theirs,
                jax.jit(textbook.params)(params),
                np.ascontiguousarray(xs.transpose(textbook.axes)),
                np.ascontiguousarray(weights.transpose(textbook.axes)),
                lambda ys: np.asarray(ys).transpose(back),
                _in_our_layout(textbook.params, params),
            )
        )
    return found


def networks(kind: str, shape: Shape) -> list[Layer]:
    """Our model, and the same with textbook layers; outputs are log-likelihoods `[B]`.

    Their weighted sum is the loss.
    """
    spec, rng = image_spec(shape), np.random.default_rng(0)
    fields = _fields(shape, learned_carry=False)
    config = from_mapping(models.config_class(kind), fields, "config.model")
    model = models.build(kind, fields, spec)
    params = draw_parameters(lambda key: model.init(key)[0], rng, OFFSET)
    images = rng.integers(0, spec.levels, (shape.batch, *spec.shape), np.uint8)
    weights = np.full(shape.batch, -1 / images.size, np.float32)

    def layer(name: str, model: Model, params: Params, back: Callable[[Params], Params]) -> Layer:
        def apply(params: Params, images: Array) -> Array:
            batch = {
                "image": images,
                "label": jnp.zeros(shape.batch, jnp.int32),
                "index": jnp.arange(shape.batch),
            }
            return model.log_prob(params, {}, batch, jax.random.key(0))

        return Layer(name, apply, params, images, weights, np.asarray, back)

    def convert(params: Params) -> Params:
        """Our parameters, with those of the layers converted for the textbook layers."""
        parts = {
            name: LAYERS[kind].params(part) if name.startswith("layers_") else part
            for name, part in params["model"].items()
        }
        return {"model": parts}

    found = [layer("ours", model, params, _as_numpy)]
    for name, hoisted in TEXTBOOKS.items():
        textbook = functools.partial(TextbookLayer, kind, spec.channels, hoisted)
        other = grid_model(kind, config, spec, lambda make=textbook, **_: make())
        found.append(layer(name, other, jax.jit(convert)(params), _in_our_layout(convert, params)))
    return found


class Passes(NamedTuple):
    """Some of an image's values, each sampled by one pass of the network over the whole image.

    Attributes:
      values: indices of these values, in raster order with the channels innermost.
      python: `python(params, images [B, H, W, C], key) -> images`, one compiled pass per value.
      compiled: the same in one compiled loop.
      logits: `logits(params, images) -> [B, n, P]`, the raw outputs for these values, each given
        the preceding values of the images.
    """

    values: np.ndarray
    python: Callable[[Params, Array, Array], Array]
    compiled: Callable[[Params, Array, Array], Array]
    logits: Callable[[Params, Array], np.ndarray]


def passes(model: Model) -> Passes:
    """Sampling that needs nothing but the network."""
    spec = model.spec
    chosen = np.unique(np.linspace(0, spec.dims - 1, PASSES).astype(np.int32))

    def draw(params: Params, images: Array, v: Array, key: Array) -> tuple[Array, Array]:
        raw = model.conditionals(params, {}, images, None)
        raw = raw.reshape(images.shape[0], spec.dims, -1)[:, v]
        drawn = jax.random.categorical(jax.random.fold_in(key, v), model.log_probs(raw))
        values = images.reshape(images.shape[0], -1).at[:, v].set(drawn.astype(images.dtype))
        return values.reshape(images.shape), raw

    compiled_draw = jax.jit(draw)

    def python(params: Params, images: Array, key: Array) -> Array:
        for v in chosen:
            images, _ = compiled_draw(params, images, v, key)
        return images

    @jax.jit
    def compiled(params: Params, images: Array, key: Array) -> Array:
        def body(n: Array, images: Array) -> Array:
            return draw(params, images, jnp.asarray(chosen)[n], key)[0]

        return jax.lax.fori_loop(0, len(chosen), body, images)

    def logits(params: Params, images: Array) -> np.ndarray:
        order, key = np.arange(spec.dims).reshape(spec.shape), jax.random.key(0)
        before = (jnp.where(order < v, images, 0) for v in chosen)
        found = [compiled_draw(params, *one, key)[1] for one in zip(before, chosen, strict=True)]
        return np.stack(found, axis=1)

    return Passes(chosen, python, compiled, logits)


def _training(
    what: str, shape: Shape, found: Sequence[Layer], settings: Settings
) -> Iterator[Record]:
    contenders = [contender(layer) for layer in found]
    agreement.check(f"{what} {shape}", contenders)
    calls = {one.name: one.gradient for one in contenders}
    yield from timed(f"{what} gradient {shape}", interleaved(calls, settings.rounds))


def _sampling(name: str, shape: Shape, settings: Settings) -> Iterator[Record]:
    kind, fields = MODELS[name]
    model = models.build(kind, _fields(shape, **fields), image_spec(shape))
    params = draw_parameters(lambda key: model.init(key)[0], np.random.default_rng(0), OFFSET)
    params, key, dims = jax.device_put(params), jax.random.key(0), model.spec.dims
    blank = jnp.zeros((shape.batch, *model.spec.shape), jnp.uint8)
    sample = jax.jit(lambda params, key: model.sample(params, {}, key, shape.batch))
    others = passes(model)

    images = sample(params, key)
    _, raw = jax.jit(model.walk)(params, {}, key, images, jnp.ones(images.shape[:-1], bool))
    wanted = np.asarray(raw).reshape(shape.batch, dims, -1)[:, others.values]
    what = f"{name} {shape}: logits of one pass per value"
    agreement.require_close(what, others.logits(params, images), wanted)

    calls = {
        "ours": lambda: sample(params, key),
        PYTHON: lambda: others.python(params, blank, key),
        COMPILED: lambda: others.compiled(params, blank, key),
    }
    timings = interleaved(calls, settings.rounds)
    for one in PASSED:
        scaled = (seconds * dims / len(others.values) for seconds in timings[one])
        timings[one] = Timing(*scaled)
    yield from timed(f"{name} sample {shape}", timings)


def _fields(shape: Shape, **fields: Any) -> dict[str, Any]:
    """The fields of a model's config; the others keep their defaults."""
    return {"features": shape.hidden, "readout": "bernoulli", **fields}


def _in_our_layout(convert: Callable[[Params], Params], ours: Params) -> Callable[[Params], Params]:
    """Converts gradients with respect to `convert(ours)` to our layout, by the chain rule."""
    back = jax.jit(lambda gradient: jax.vjp(convert, ours)[1](gradient)[0])
    return lambda gradient: _as_numpy(back(gradient))


def _as_numpy(tree: Any) -> Any:
    return jax.tree.map(np.asarray, tree)


def notes(records: Sequence[Record]) -> list[str]:
    """The meaning of the ratio, and its medians over models and shapes."""
    lines = [
        f"ratio: the time divided by ours. One pass per value: the time of {PASSES} values from "
        "all over the image, scaled up to all of them."
    ]
    compared = {"layer gradient": TEXTBOOKS, "network gradient": TEXTBOOKS, "sample": PASSED}
    for work, names in compared.items():
        for name in names:
            ratios = [
                record.values["ratio"] or 0.0
                for record in records
                if f" {work} " in record.case and record.contender == name
            ]
            if ratios:
                lines.append(f"{work}: {name} / ours: {summary(ratios)}")
    return lines
