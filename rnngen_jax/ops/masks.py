"""Masks of known pixels for completion: bool `[H, W]`, True where a pixel is known.

A mask is named after the missing part.
"""

import functools

import jax
import jax.numpy as jnp
from jax import Array

from rnngen_jax import keys


def lower(height: int, width: int) -> Array:
    """The lower half is missing: rows from `H // 2` on; bool `[H, W]`."""
    return jnp.broadcast_to(jnp.arange(height)[:, None] < height // 2, (height, width))


def upper(height: int, width: int) -> Array:
    """The upper half is missing: the rows before `H // 2`; bool `[H, W]`."""
    return ~lower(height, width)


def centre(height: int, width: int) -> Array:
    """A box of half the height and half the width in the middle is missing; bool `[H, W]`."""

    def inside(size: int) -> Array:
        box = max(size // 2, 1)
        start = (size - box) // 2
        place = jnp.arange(size)
        return (start <= place) & (place < start + box)

    return ~(inside(height)[:, None] & inside(width)[None, :])


def random(key: Array, height: int, width: int, fraction: float = 0.5) -> Array:
    """Pixels chosen at random are missing.

    Args:
      key: a random key.
      height, width: the image's size.
      fraction: missing fraction of the pixels, rounded to a whole number of pixels.

    Returns:
      bool `[H, W]`.
    """
    total = height * width
    place = jax.random.permutation(key, total).reshape(height, width)
    return place >= round(fraction * total)


def random_each(key: Array, index: Array, height: int, width: int, fraction: float = 0.5) -> Array:
    """One random mask per image, bool `[N, H, W]`, keyed by the images' `index` `[N]`."""
    of_one = functools.partial(random, height=height, width=width, fraction=fraction)
    return jax.vmap(of_one)(keys.per_example(key, index))


FIXED = {"lower": lower, "upper": upper, "centre": centre}
