"""Interpolation between two vectors: linear and spherical."""

import jax.numpy as jnp
from jax import Array

PARALLEL = 1e-3  # sine of the angle below which a straight line replaces the great circle


def linear(first: Array, last: Array, fractions: Array) -> Array:
    """The straight line `(1 - f) first + f last`.

    Args:
      first, last: `[..., D]`, of shapes that broadcast.
      fractions: how far along the path, `[K]`: 0 is `first`, 1 is `last`.

    Returns:
      `[..., K, D]`.
    """
    f = fractions[:, None]
    return (1 - f) * first[..., None, :] + f * last[..., None, :]


def spherical(first: Array, last: Array, fractions: Array) -> Array:
    """Direction along a great circle (Shoemake 1985, section 3.3), length interpolated linearly.

    Samples of a standard normal in many dimensions have nearly equal lengths, and the midpoint of a
    straight line between two of them is shorter. For vectors that are zero, nearly parallel or
    nearly opposite, the great circle is ill-defined and the path is the straight line.

    Args:
      first, last, fractions: as for `linear`.

    Returns:
      `[..., K, D]`.
    """
    start, end = (jnp.linalg.norm(x, axis=-1, keepdims=True) for x in (first, last))
    whole = jnp.minimum(start, end) > 0
    start, end = jnp.where(whole, start, 1), jnp.where(whole, end, 1)
    u, v = first / start, last / end
    # Twice the half angle, as the arc cosine of a product near 1 has few digits.
    apart, together = (jnp.linalg.norm(x, axis=-1, keepdims=True) for x in (u - v, u + v))
    angle = 2 * jnp.arctan2(apart, together)
    sine = jnp.sin(angle)
    curved = whole & (sine > PARALLEL)
    angle, sine = jnp.where(curved, angle, 1), jnp.where(curved, sine, jnp.sin(1.0))
    f = fractions[:, None]
    start, end, angle, sine = (x[..., None, :] for x in (start, end, angle, sine))
    length = (1 - f) * start + f * end
    path = (jnp.sin((1 - f) * angle) / sine * (length / start)) * first[..., None, :] + (
        jnp.sin(f * angle) / sine * (length / end)
    ) * last[..., None, :]
    return jnp.where(curved[..., None, :], path, linear(first, last, fractions))


PATHS = {"linear": linear, "spherical": spherical}
