"""What a user hands to a run: numbers and arrays, checked before anything is computed."""

import numpy as np

from rnngen_jax.config import require
from rnngen_jax.errors import UserError
from rnngen_jax.models.base import Model
from rnngen_jax.shapes import ImageSpec

TEMPERATURES = (1e-6, 1e6)  # beyond, float32 logits overflow, and what is drawn is no sample


def check_seed(seed: int, name: str = "seed") -> None:
    """Raises a `UserError` unless `seed` is one that JAX takes on every platform."""
    require(0 <= seed < 2**31, name, seed, "in [0, 2147483647]")


def check_temperature(temperature: float, name: str = "temperature") -> None:
    """Raises a `UserError` unless `temperature` can divide float32 logits and leave numbers."""
    low, high = TEMPERATURES
    require(low <= temperature <= high, name, temperature, f"in [{low:g}, {high:g}]")


def check_images(images: np.ndarray, spec: ImageSpec) -> np.ndarray:
    """Grey levels of a model, or its codes or sequences, in their shape and dtype.

    Args:
      images: integers `[N, ...]`, with the spec's axes, the last of which may lack where it is one.
      spec: the model's images.

    Raises:
      UserError: another shape or dtype, no image, or a level that the model does not know.
    """
    images = np.asarray(images)
    if spec.channels == 1 and images.shape[1:] == spec.shape[:-1]:
        images = images[..., None]
    if images.dtype.kind not in "iu" or images.shape[1:] != spec.shape or not images.size:
        raise UserError(
            f"images are {images.dtype} of shape {images.shape}; allowed: integers of shape "
            f"{('N', *spec.shape)}, grey levels 0 to {spec.levels - 1}."
        )
    low, high = images.min(), images.max()
    if low < 0 or high >= spec.levels:
        raise UserError(
            f"images hold the grey level {high if high >= spec.levels else low}; allowed: 0 to "
            f"{spec.levels - 1}, which are not rescaled."
        )
    return images.astype(spec.dtype)


def check_mask(mask: np.ndarray, num: int, spec: ImageSpec) -> np.ndarray:
    """Which pixels are known, as bool `[N, H, W]`, of sequences `[N, T, H, W]`.

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
            f"mask is {mask.dtype} of shape {mask.shape}; allowed: bool of shape {one} or "
            f"{(num, *one)}, true where a pixel is known."
        )
    return np.broadcast_to(mask, (num, *one))


def check_labels(labels: np.ndarray | None, num: int, model: Model) -> np.ndarray | None:
    """Classes as int32 `[N]`; `None` for a model that is not conditional.

    Args:
      labels: integers `[N]`, or `None`.
      num: number of images N.
      model: the model.

    Raises:
      UserError: labels that do not fit, that are needed and not given, or given and not read.
    """
    classes = model.spec.classes
    if not model.conditional:
        if labels is None:
            return None
        raise UserError("labels are given, but the model is not class-conditional; leave them out.")
    found = np.asarray([] if labels is None else labels)
    fits = found.shape == (num,) and found.dtype.kind in "iu"
    if not fits or (num and (found.min() < 0 or found.max() >= classes)):
        given = "missing" if labels is None else f"{found.dtype} of shape {found.shape}"
        raise UserError(
            f"labels are {given}; the model needs {num} classes, integers 0 to {classes - 1}."
        )
    return found.astype(np.int32)
