"""Small autoregressive models with random parameters, for tests."""

from typing import Any

import jax
import numpy as np

from rnngen_jax import models
from rnngen_jax.models.base import Model
from rnngen_jax.ops import orders
from rnngen_jax.shapes import ImageSpec

# A model's name, fields of its Config, and the images.
Case = tuple[str, dict[str, Any], ImageSpec]

_GRID = {"features": 6, "first_kernel": 3, "layers": 1, "readout_hidden": 7}
SMALL = {
    "pixel_rnn": {"features": 6, "input_features": 6, "learned_carry": True},
    "row_rnn": {"features": 6, "input_features": 6, "learned_carry": True},
    "code_rnn": {"features": 6, "input_features": 6, "deep_features": 5, "learned_carry": True},
    "row_lstm": _GRID,
    "diagonal_bilstm": _GRID,
    "pixel_cnn": _GRID,
}
ON_A_GRID = ("row_lstm", "diagonal_bilstm", "pixel_cnn")


def case_name(case: Case) -> str:
    """The case's id in test reports."""
    name, fields, spec = case
    parts = [str(value) for value in fields.values()]
    return "-".join([name, *parts, f"{spec.channels}x{spec.levels}"])


def built(case: Case, seed: int = 0) -> tuple[Model, dict, dict]:
    """The model with random parameters, biases included; in NumPy, which compiles nothing."""
    name, fields, spec = case
    model = models.build(name, SMALL[name] | fields, spec)
    shapes, extra = jax.eval_shape(model.init, jax.random.key(0))
    rng = np.random.default_rng(seed)
    gain = 1.0 if name in ON_A_GRID else 1.5  # a first convolution adds up many values

    def draw(leaf: Any) -> np.ndarray:
        scale = 0.4 if leaf.ndim < 2 else gain / np.sqrt(leaf.shape[-2])
        return scale * rng.standard_normal(leaf.shape, np.float32)

    return model, jax.tree.map(draw, shapes), extra


def scores(
    model: Model, params: dict, extra: dict, images: np.ndarray, label: int = 0
) -> np.ndarray:
    """Log-probabilities of images that all have the same label, in nats."""
    batch = {
        "image": images,
        "label": np.full(len(images), label, np.int32),
        "index": np.arange(len(images), dtype=np.int32),
    }
    return np.asarray(jax.jit(model.log_prob)(params, extra, batch, jax.random.key(0)))


def random_images(spec: ImageSpec, seed: int, num: int = 6) -> np.ndarray:
    """Images of independent values."""
    return np.random.default_rng(seed).integers(0, spec.levels, (num, *spec.shape), np.uint8)


def positions(case: Case) -> np.ndarray:
    """Row and column of every pixel in the model's own order, `[T, 2]`."""
    name, fields, spec = case
    order = fields.get("order", "raster") if name != "row_rnn" else "raster"
    where = orders.positions("raster" if order == "reverse" else order, spec.height, spec.width)
    return where[::-1] if order == "reverse" else where
