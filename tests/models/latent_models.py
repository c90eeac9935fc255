"""Small latent-variable models with random parameters, and the noise that they use."""

import functools
import importlib
import zlib
from typing import Any
from unittest import mock

import jax
import numpy as np

from rnngen_jax import models
from rnngen_jax.models.base import Model
from rnngen_jax.models.latent_networks import Network
from rnngen_jax.shapes import ImageSpec

# A model's name, fields of its Config, and the images.
Case = tuple[str, dict[str, Any], ImageSpec]

SMALL = {
    "vae": {"latents": 2, "features": 4, "stages": 1, "kernel": 2, "hidden": 6},
    "draw": {"features": 5, "steps": 3, "latents": 2, "read_size": 1, "write_size": 2},
}
COLOUR = ImageSpec(3, 4, channels=3, levels=17)
LABELLED = ImageSpec(3, 3, levels=4, classes=3)


def case_name(case: Case) -> str:
    """The case's id in test reports."""
    name, fields, spec = case
    parts = [str(value) for value in fields.values()]
    return "-".join([name, *parts, f"{spec.channels}x{spec.levels}"])


def built(case: Case, seed: int = 0, gain: float = 1.0) -> tuple[Model, dict, dict]:
    """The model with random parameters, biases included; in NumPy, which compiles nothing."""
    name, fields, spec = case
    model = models.build(name, SMALL[name] | fields, spec)
    shapes, extra = jax.eval_shape(model.init, jax.random.key(0))
    rng = np.random.default_rng(seed)

    def draw(path: tuple, leaf: Any) -> np.ndarray:
        scale = 0.4 if leaf.ndim < 2 else gain / np.sqrt(leaf.shape[-2])
        if "blank" in str(path):  # DRAW's first canvas is ten times this parameter
            scale *= 0.1
        return scale * rng.standard_normal(leaf.shape, np.float32)

    return model, jax.tree_util.tree_map_with_path(draw, shapes), extra


def network_of(case: Case) -> Network:
    """The encoder and the decoder that a model is made of."""
    name, fields, spec = case
    networks = []

    def kept(name: str, spec: ImageSpec, conditional: bool, network: Network, *rest: Any) -> None:
        networks.append(network)

    module = importlib.import_module(f"{models.__name__}.{name}")
    with mock.patch.object(module, "latent_model", kept):
        models.build(name, SMALL[name] | fields, spec)
    return networks[0]


def batch_of(images: np.ndarray, label: int = 0, first: int = 0) -> dict[str, np.ndarray]:
    """Images that all have the same label, numbered from `first`."""
    num = len(images)
    return {
        "image": images,
        "label": np.full(num, label, np.int32),
        "index": np.arange(first, first + num, dtype=np.int32),
    }


def random_images(spec: ImageSpec, seed: int = 0, num: int = 6) -> np.ndarray:
    """Images of independent values."""
    return np.random.default_rng(seed).integers(0, spec.levels, (num, *spec.shape), np.uint8)


def noise_of(key: jax.Array, index: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The noise of a bound's latents, `[B, S, Z]`, which depends on each image's index alone."""
    key = jax.random.fold_in(key, zlib.crc32(b"latents"))
    each = [jax.random.normal(jax.random.fold_in(key, number), shape) for number in index]
    return np.stack(each)


def sampled(model: Model, params: dict, num: int) -> np.ndarray:
    """How often each of the 16 binary 2x2 images is among `num` samples, `[16]`."""
    sample = jax.jit(model.sample, static_argnames="num")
    drawn = np.asarray(sample(params, {}, jax.random.key(7), num=num))
    return np.bincount(drawn.reshape(num, -1) @ [8, 4, 2, 1], minlength=16)


def completed(
    model: Model, params: dict, p: np.ndarray, num: int, **options: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Completes binary 2x2 images with one known row, each value of each row `num` times.

    Args:
      model, params: to complete with.
      p: probabilities of the 16 images, in the order of binary numbers.
      num: completions of each known row.
      **options: of `complete`.

    Returns:
      How often each value of the other row came out, and how often it should have, `[8, 4]` each:
      first those whose first row is known, then those whose second is.
    """
    values = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.uint8)
    images, known = np.zeros((2, 4, num, 2, 2, 1), np.uint8), np.zeros((2, 4, num, 2, 2), bool)
    for row in (0, 1):
        images[row, :, :, row] = values[:, None, :, None]
        known[row, :, :, row] = True
    complete = jax.jit(functools.partial(model.complete, **options))
    flat = images.reshape(-1, 2, 2, 1), known.reshape(-1, 2, 2)
    got = np.reshape(complete(params, {}, jax.random.key(1), *flat).image, images.shape)
    np.testing.assert_array_equal(got[known], images[known])
    drawn = np.stack([got[0, :, :, 1], got[1, :, :, 0]])[..., 0] @ [2, 1]
    counts = np.stack([(drawn == value).sum(-1) for value in range(4)], -1)
    pairs = np.stack([p.reshape(4, 4), p.reshape(4, 4).T])
    return counts.reshape(8, 4), (num * pairs / pairs.sum(-1, keepdims=True)).reshape(8, 4)
