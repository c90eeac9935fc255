"""Paths through latent space: between images, and along one latent variable."""

import jax.numpy as jnp
import numpy as np

from rnngen_jax.ops.paths import PATHS

FAR = 3.0  # a walk along one variable spans ± this many standard deviations of the prior


def pairs(latents: np.ndarray, steps: int, path: str) -> np.ndarray:
    """One row per pair of consecutive images: the path between their latents.

    Args:
      latents: `[N, S, Z]`; those of an image are interpolated as one vector.
      steps: points K of each path, ends included.
      path: "linear" or "spherical".

    Returns:
      `[N - 1, K, S, Z]`.
    """
    flat = jnp.asarray(latents.reshape(len(latents), -1))
    found = PATHS[path](flat[:-1], flat[1:], jnp.linspace(0, 1, steps))
    return np.asarray(found).reshape(-1, steps, *latents.shape[1:])


def grid(corners: np.ndarray, steps: int, path: str) -> np.ndarray:
    """A grid between four corners: paths down its left and right edges, then across.

    With the linear path this is bilinear interpolation.

    Args:
      corners: latents of the upper left, upper right, lower left and lower right, `[4, S, Z]`.
      steps: points K of each path, ends included.
      path: "linear" or "spherical".

    Returns:
      `[K, K, S, Z]`.
    """
    flat = jnp.asarray(corners.reshape(2, 2, -1))
    fractions = jnp.linspace(0, 1, steps)
    left, right = PATHS[path](flat[0], flat[1], fractions)
    found = PATHS[path](left, right, fractions)
    return np.asarray(found).reshape(steps, steps, *corners.shape[1:])


def along(latents: np.ndarray, number: int, steps: int) -> np.ndarray:
    """One row: an image's latents with one variable replaced by values from -3 to 3.

    Args:
      latents: `[S, Z]`.
      number: index of the variable in `[S, Z]`, flattened.
      steps: points K.

    Returns:
      `[1, K, S, Z]`.
    """
    found = np.repeat(latents.reshape(1, 1, -1), steps, axis=1)
    found[..., number] = np.linspace(-FAR, FAR, steps)
    return found.reshape(1, steps, *latents.shape)
