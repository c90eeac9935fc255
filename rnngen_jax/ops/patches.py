"""Images as sequences or maps of equal patches, such as rows, columns or squares."""

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


def space_to_depth(images: Array, size: int) -> Array:
    """Makes each square patch of pixels one place of a smaller map.

    Args:
      images: `[..., H, W, C]`.
      size: side S of a patch; it divides H and W.

    Returns:
      `[..., H/S, W/S, S·S·C]`, a patch's values in raster order.

    Raises:
      ValueError: the images cannot be cut into such patches.
    """
    *lead, height, width, channels = images.shape
    if size < 1 or height % size or width % size:
        raise ValueError(f"patches of side {size} must divide images of {height} by {width}")
    grid = images.reshape(*lead, height // size, size, width // size, size, channels)
    return grid.swapaxes(-4, -3).reshape(*lead, height // size, width // size, size**2 * channels)


def depth_to_space(maps: Array, size: int) -> Array:
    """Undoes `space_to_depth`: `[..., H, W, S·S·C]` to `[..., H·S, W·S, C]`.

    Raises:
      ValueError: the features are no patches of that size.
    """
    *lead, height, width, features = maps.shape
    if size < 1 or features % size**2:
        raise ValueError(f"{features} features are no patches of side {size}")
    grid = maps.reshape(*lead, height, width, size, size, features // size**2)
    return grid.swapaxes(-4, -3).reshape(*lead, height * size, width * size, features // size**2)
