"""Small models of latent variables with drawn parameters, and how their noise is drawn."""

import functools
import zlib
from typing import Any

import jax
import numpy as np

from rnngen_jax import models
from rnngen_jax.models.base import Model
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
    """What a test's report calls it."""
    name, fields, spec = case
    parts = [str(value) for value in fields.values()]
    return "-".join([name, *parts, f"{spec.channels}x{spec.levels}"])


def built(case: Case, seed: int = 0, gain: float = 1.0) -> tuple[Model, dict, dict]:
    """The model with random parameters, biases included; in NumPy, for it compiles nothing."""
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
    """The noise of a bound's latents `[B, S, Z]`: of each image, by its index alone."""
    key = jax.random.fold_in(key, zlib.crc32(b"latents"))
    each = [jax.random.normal(jax.random.fold_in(key, number), shape) for number in index]
    return np.stack(each)


def completion_distances(
    model: Model, params: dict, p: np.ndarray, known_row: int, num: int, **options: Any
) -> np.ndarray:
    """Total variation of completions of one row of a 2x2 binary image to its true conditional.

    Args:
      model, params: to complete with.
      p: probabilities of the 16 images, in the order of binary numbers.
      known_row: which row is known.
      num: completions of each of its four values.
      **options: of `complete`.

    Returns:
      Total variation for each value of the known row, `[4]`.
    """
    pairs = p.reshape(4, 4) if known_row == 0 else p.reshape(4, 4).T
    images = np.zeros((4, num, 2, 2, 1), np.uint8)
    images[:, :, known_row] = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])[:, None, :, None]
    images = images.reshape(-1, 2, 2, 1)
    known = np.zeros((4 * num, 2, 2), bool)
    known[:, known_row] = True
    complete = jax.jit(functools.partial(model.complete, **options))
    got = np.asarray(complete(params, {}, jax.random.key(1), images, known).image)
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(got[known], images[known])
    drawn = got[:, 1 - known_row].reshape(4, num, 2) @ [2, 1]
    seen = np.stack([np.bincount(row, minlength=4) for row in drawn]) / num
    return np.abs(seen - pairs / pairs.sum(1, keepdims=True)).sum(1) / 2
