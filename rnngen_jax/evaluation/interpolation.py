"""Ways through latent space: between images, and along one latent variable."""

import jax.numpy as jnp
import numpy as np

from rnngen_jax.ops.paths import PATHS

FAR = 3.0  # standard deviations of the prior that a walk along one variable goes to, either way


def pairs(latents: np.ndarray, steps: int, path: str) -> np.ndarray:
    """A row from each image's latents to the next one's.

    Args:
      latents: `[N, S, Z]`; each image's are one vector.
      steps: points K of each path, the ends included.
      path: "linear" or "spherical".

    Returns:
      `[N - 1, K, S, Z]`.
    """
    flat = jnp.asarray(latents.reshape(len(latents), -1))
    found = PATHS[path](flat[:-1], flat[1:], jnp.linspace(0, 1, steps))
    return np.asarray(found).reshape(-1, steps, *latents.shape[1:])


def grid(corners: np.ndarray, steps: int, path: str) -> np.ndarray:
    """A table between four corners: down its left and right edge, then across; bilinear if linear.

    Args:
      corners: latents of the upper left, upper right, lower left and lower right, `[4, S, Z]`.
      steps: points K of each path, the ends included.
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
    """One row: one image's latents, with one variable from -3 to 3 instead of its own value.

    Args:
      latents: `[S, Z]`.
      number: of the variable, from 0 in the order of steps and variables.
      steps: points K.

    Returns:
      `[1, K, S, Z]`.
    """
    found = np.repeat(latents.reshape(1, 1, -1), steps, axis=1)
    found[..., number] = np.linspace(-FAR, FAR, steps)
    return found.reshape(1, steps, *latents.shape)
