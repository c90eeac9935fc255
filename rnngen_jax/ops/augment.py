"""Differentiable augmentation of a discriminator's inputs (Zhao et al. 2020, DiffAugment).

Real and generated images are augmented alike, and the generator's gradient passes through, so the
augmentation does not leak into generated images.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from rnngen_jax import keys
from rnngen_jax.config import require, require_choice

DARKEST = -1.0


def require_policy(policy: str) -> None:
    """Raises a `UserError` unless `policy` is a comma-separated list of distinct augmentations."""
    where = "config.model.augmentation"
    names = _names(policy)
    for name in names:
        require_choice(where, name, AUGMENTATIONS)
    require(len(set(names)) == len(names), where, policy, "a list without repeats")


def augment(images: Array, each: Array, policy: str) -> Array:
    """Augments each image with its own key, in the order of `policy`.

    The result for an image and a key does not depend on the rest of the batch. Each augmentation
    has its own key, so it does the same with or without the others.

    Args:
      images: float `[B, H, W, C]` in [-1, 1].
      each: one key per example, `[B]`.
      policy: comma-separated names from `AUGMENTATIONS`; may be empty.

    Returns:
      Images of the same shape and dtype; "color" may leave [-1, 1].
    """
    for name in _names(policy):
        own = jax.vmap(lambda key, name=name: keys.named(key, name))(each)
        images = jax.vmap(_AUGMENTATIONS[name])(images, own)
    return images


def color(image: Array, key: Array) -> Array:
    """Brightness, then saturation, then contrast of one image `[H, W, C]`.

    Brightness adds a value from [-½, ½), saturation scales the distance from each pixel's grey by a
    factor from [0, 2), contrast the distance from the image's mean by one from [½, 1½). Saturation
    does nothing to an image of one channel.
    """
    brightness, saturation, contrast = jax.random.uniform(key, (3,), image.dtype)
    image = image + (brightness - 0.5)
    grey = image.mean(-1, keepdims=True)
    image = grey + (image - grey) * 2 * saturation
    mean = image.mean()
    return mean + (image - mean) * (contrast + 0.5)


def translation(image: Array, key: Array) -> Array:
    """Moves one image `[H, W, C]` by whole pixels, up to an eighth of its height and width.

    All shifts are equally likely. The uncovered border is filled with the darkest value, like the
    background of digits; the authors' code fills it with 0, mid grey.
    """
    most = [int(size / 8 + 0.5) for size in image.shape[:2]]
    wide = jnp.pad(image, [(m, m) for m in most] + [(0, 0)], constant_values=DARKEST)
    start = [
        jax.random.randint(part, (), 0, 2 * m + 1)
        for part, m in zip(jax.random.split(key), most, strict=True)
    ]
    return jax.lax.dynamic_slice(wide, (*start, 0), image.shape)


def cutout(image: Array, key: Array) -> Array:
    """Sets a rectangle of half the height and width of one image `[H, W, C]` to 0, mid grey.

    Its centre is anywhere in the image, so it may extend beyond the border.
    """
    covered = [
        _stretch(part, size)
        for part, size in zip(jax.random.split(key), image.shape[:2], strict=True)
    ]
    return jnp.where((covered[0][:, None] & covered[1])[..., None], 0.0, image)


def flip(image: Array, key: Array) -> Array:
    """Mirrors one image `[H, W, C]` left-right with probability one half."""
    return jnp.where(jax.random.bernoulli(key), jnp.flip(image, 1), image)


_AUGMENTATIONS: dict[str, Callable[[Array, Array], Array]] = {
    "color": color,
    "translation": translation,
    "cutout": cutout,
    "flip": flip,
}
AUGMENTATIONS = tuple(_AUGMENTATIONS)


def _stretch(key: Array, size: int) -> Array:
    """Which of `size` rows or columns are cut out: half of them around a random one, bool."""
    half = int(size / 2 + 0.5)
    # With an even length the centre lies between two rows, which gives one more position.
    middle = jax.random.randint(key, (), 0, size + 1 - half % 2)
    place = jnp.arange(size) - (middle - half // 2)
    return (place >= 0) & (place < half)


def _names(policy: str) -> list[str]:
    return policy.split(",") if policy else []
