"""Images as sequences of equal patches, such as rows, columns or squares."""

import jax.numpy as jnp
from jax import Array


def to_steps(images: Array, height: int, width: int) -> Array:
    """Cuts images into patches, in raster order.

    Args:
      images: `[B, H, W, C]`.
      height, width: of a patch; they divide H and W.

    Returns:
      `[T, B, V]`, T patches of V = height·width·C values in raster order.
    """
    batch, rows, columns, channels = images.shape
    grid = images.reshape(batch, rows // height, height, columns // width, width, channels)
    return jnp.moveaxis(grid, (1, 3), (0, 1)).reshape(-1, batch, height * width * channels)


def from_steps(steps: Array, shape: tuple[int, int, int], height: int, width: int) -> Array:
    """Reassembles patches: undoes `to_steps`.

    Args:
      steps: `[T, B, V, ...]`, as from `to_steps`; trailing axes belong to each value.
      shape: the image's, (H, W, C).
      height, width: of a patch.

    Returns:
      `[B, H, W, C, ...]`.
    """
    rows, columns, channels = shape
    batch, rest = steps.shape[1], steps.shape[3:]
    grid = steps.reshape(rows // height, columns // width, batch, height, width, channels, *rest)
    return jnp.moveaxis(grid, (0, 1), (1, 3)).reshape(batch, *shape, *rest)
