"""Checks of the numbers and arrays given to a run, before anything is computed."""

import operator
from typing import Any

import numpy as np

from rnngen_jax.config import require
from rnngen_jax.errors import UserError
from rnngen_jax.models.base import Model
from rnngen_jax.shapes import ImageSpec

TEMPERATURES = (1e-6, 1e6)  # outside, float32 logits overflow and draws are not samples


def check_count(name: str, count: int, least: int) -> None:
    """Raises a `UserError` unless `count` is an integer ≥ `least`."""
    require(_is_integer(count) and count >= least, name, count, f"an integer ≥ {least}")


def check_seed(seed: int, name: str = "seed") -> None:
    """Raises a `UserError` unless JAX accepts `seed` on every platform."""
    require(_is_integer(seed), name, seed, "an integer")
    require(0 <= seed < 2**31, name, seed, "in [0, 2147483647]")


def check_temperature(temperature: float, name: str = "temperature") -> None:
    """Raises a `UserError` unless float32 logits stay finite when divided by `temperature`."""
    low, high = TEMPERATURES
    require(_is_number(temperature), name, temperature, "a number")
    require(low <= temperature <= high, name, temperature, f"in [{low:g}, {high:g}]")


def check_images(images: np.ndarray, spec: ImageSpec) -> np.ndarray:
    """Checks grey levels, codes or sequences; returns them in the model's shape and dtype.

    Args:
      images: integers `[N, ...]` with the axes of `spec.shape`; a last axis of size 1 may be left
        out.
      spec: the model's images.

    Raises:
      UserError: another shape or dtype, no images, or a level outside `[0, spec.levels)`.
    """
    images = np.asarray(images)
    if spec.channels == 1 and images.shape[1:] == spec.shape[:-1]:
        images = images[..., None]
    if images.dtype.kind not in "iu" or images.shape[1:] != spec.shape or not images.size:
        raise UserError(
            f"images must be integers of shape {('N', *spec.shape)}, grey levels 0 to "
            f"{spec.levels - 1}, got {images.dtype} of shape {images.shape}."
        )
    low, high = int(images.min()), int(images.max())
    allowed = f"grey levels in [0, {spec.levels - 1}], which are not rescaled"
    worst = high if high >= spec.levels else low
    require(low >= 0 and high < spec.levels, "images", worst, allowed)
    return images.astype(spec.dtype)


def check_mask(mask: np.ndarray, num: int, spec: ImageSpec) -> np.ndarray:
    """Checks a mask; returns bool `[N, H, W]`, or `[N, T, H, W]` for sequences, true where known.

    Args:
      mask: bool `[N, H, W]`, or `[H, W]` for all images, true where a pixel is known.
      num: number of images N.
      spec: the images.

    Raises:
      UserError: another shape or dtype.
    """
    mask, one = np.asarray(mask), spec.shape[:-1]
    if mask.dtype != bool or mask.shape not in (one, (num, *one)):
        raise UserError(
            f"mask must be bool of shape {one} or {(num, *one)}, true where a pixel is known, got "
            f"{mask.dtype} of shape {mask.shape}."
        )
    return np.broadcast_to(mask, (num, *one))


def check_labels(labels: np.ndarray | None, num: int, model: Model) -> np.ndarray | None:
    """Checks classes; returns int32 `[N]`, or `None` for a model that is not class-conditional.

    Args:
      labels: integers `[N]`, or `None`.
      num: number of images N.
      model: the model.

    Raises:
      UserError: labels of another shape, dtype or range, missing labels, or labels for a model that
        is not class-conditional.
    """
    classes = model.spec.classes
    if not model.conditional:
        if labels is None:
            return None
        raise UserError("labels are given, but the model is not class-conditional; leave them out.")
    found = np.asarray([] if labels is None else labels)
    fits = found.shape == (num,) and found.dtype.kind in "iu"
    given = "none" if labels is None else f"{found.dtype} of shape {found.shape}"
    if fits and num:
        worst = found.max() if found.max() >= classes else found.min()
        fits, given = 0 <= worst < classes, str(worst)
    if not fits:
        raise UserError(f"labels must be {num} integers in [0, {classes - 1}], got {given}.")
    return found.astype(np.int32)


def _is_integer(value: Any) -> bool:
    """Whether `value` is an integer, of Python or a scalar array."""
    try:
        operator.index(value)
    except TypeError:
        return False
    return True


def _is_number(value: Any) -> bool:
    """Whether `value` is a real number, of Python or a scalar array."""
    found = np.asarray(value)
    return found.ndim == 0 and found.dtype.kind in "iuf"
