"""Pixel orders: an image as a sequence, and each pixel's neighbours in it."""

import jax.numpy as jnp
import numpy as np
from jax import Array

from rnngen_jax.config import require_choice

ORDERS = ("raster", "serpentine", "column")


def positions(order: str, height: int, width: int) -> np.ndarray:
    """Row and column of each step's pixel, int32 `[T, 2]` with T = H·W.

    "raster" goes along each row from left to right, rows from the top; "serpentine" turns at each
    row's end, so every step goes to an adjacent pixel; "column" goes down each column, columns
    from the left.

    Raises:
      UserError: an unknown order.
    """
    require_choice("config.model.order", order, ORDERS)
    rows, columns = np.mgrid[:height, :width].astype(np.int32)
    if order == "serpentine":
        columns[1::2] = columns[1::2, ::-1]
    grid = np.stack([rows, columns], axis=-1)
    if order == "column":
        grid = grid.transpose(1, 0, 2)
    return grid.reshape(-1, 2)


def to_sequence(image: Array, order: str) -> Array:
    """Image `[B, H, W, C]` as a time-major sequence of pixels `[T, B, C]`."""
    rows, columns = positions(order, *image.shape[1:3]).T
    return jnp.moveaxis(image[:, rows, columns], 1, 0)


def from_sequence(sequence: Array, order: str, height: int, width: int) -> Array:
    """The image `[B, H, W, C]` of a sequence `[T, B, C]`: undoes `to_sequence`."""
    step = np.empty((height, width), np.int32)
    step[tuple(positions(order, height, width).T)] = np.arange(height * width)
    return jnp.moveaxis(sequence, 0, 1)[:, step]


def neighbours(order: str, height: int, width: int, previous: int, above: int) -> np.ndarray:
    """The earlier pixels that each step sees.

    Args:
      order: as in `positions`.
      height: H.
      width: W.
      previous: number of pixels directly before it in the order.
      above: number of earlier lines. A line is a row, or a column in the order "column"; from each
        of the `above` lines before the pixel's own it sees the 2·above + 1 nearest pixels.

    Returns:
      int32 `[T, K]`, K = previous + above·(2·above + 1): the step of each neighbour, always earlier
      than the pixel's own, or T where it lies outside the image.
    """
    where = positions(order, height, width)
    length = len(where)
    step = {tuple(place): t for t, place in enumerate(where.tolist())}
    line, place = (1, 0) if order == "column" else (0, 1)
    table = np.full((length, previous + above * (2 * above + 1)), length, np.int32)
    for t in range(length):
        found = [t - n if t >= n else length for n in range(1, previous + 1)]
        for up in range(1, above + 1):
            for aside in range(-above, above + 1):
                neighbour = where[t].copy()
                neighbour[line] -= up
                neighbour[place] += aside
                found.append(step.get(tuple(neighbour.tolist()), length))
        table[t] = found
    return table


def coarser(shape: tuple[int, int], of: tuple[int, int], around: int) -> np.ndarray:
    """The places of a coarser grid around each place of a finer one, both in raster order.

    Args:
      shape: height and width of the finer grid.
      of: height and width of the coarser grid; each of its places covers as many of the finer's as
        the two heights and widths ask for, rounded up.
      around: number of places to each side of the one that covers the finer grid's place.

    Returns:
      int32 `[T, (2·around + 1)²]` with T places of the finer grid: indices of the coarser grid's
      places, in raster order, or their number where one lies outside it.
    """
    rows, columns = of
    border = [(around, around)] * 2
    number = np.arange(rows * columns, dtype=np.int32).reshape(of)
    padded = np.pad(number, border, constant_values=rows * columns)
    ratios = [-(-fine // coarse) for fine, coarse in zip(shape, of, strict=True)]
    side = np.arange(2 * around + 1)
    found = [
        padded[row + side[:, None], column + side].ravel()
        for row, column in positions("raster", *shape) // ratios
    ]
    return np.stack(found)
