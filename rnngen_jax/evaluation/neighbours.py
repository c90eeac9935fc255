"""The training images nearest to samples: whether a generator copies its training data.

Everything runs on the host in float64, one piece of the pool at a time.
"""

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from rnngen_jax.config import require
from rnngen_jax.evaluation import pictures

BLOCK = 2**22  # elements of the largest temporary array: 32 MiB in float64

Pool = np.ndarray | Iterable[tuple[int, np.ndarray]]


def squared_distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Squared Euclidean distances of all pairs of float64 `[N, D]` and `[M, D]`: float64 `[N, M]`.

    They are computed from inner products: exactly if all squares and sums are integers below 2^53,
    as for uint8 pixels; otherwise up to rounding at the scale of the vectors' squared lengths.
    """
    lengths = np.square(x).sum(1)[:, None] + np.square(y).sum(1)
    return np.maximum(lengths - 2 * (x @ y.T), 0)


def nearest(
    samples: np.ndarray, pool: Pool, k: int, levels: int = 256, rows: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The k images of a pool that are nearest to each sample in pixel space, nearest first.

    The distance is Euclidean over all pixels, with values in [0, 1]. It is exact; ties go to the
    image with the lower index.

    Args:
      samples: uint8 `[N, H, W, C]`.
      pool: uint8 `[M, H, W, C]`, or an iterable of such arrays, each with the index of its first
        image in the pool.
      k: number of neighbours.
      levels: number of grey levels of samples and pool.
      rows: images of the pool at once, by default as many as fit into 32 MiB; it does not change
        the result.

    Returns:
      Indices into the pool, int64 `[N, k]`, and distances, float64 `[N, k]`.

    Raises:
      UserError: the pool has fewer than k images, or images of another size than the samples.
    """
    flat = _flat(samples)
    index = np.empty((len(samples), 0), np.int64)
    squared = np.empty((len(samples), 0))
    for start, images in _pieces(pool, rows or max(1, BLOCK // max(flat.shape))):
        require(
            images.shape[1:] == samples.shape[1:],
            "the pool's image size",
            images.shape[1:],
            f"{samples.shape[1:]}, that of the samples",
        )
        index, squared = _merge(index, squared, start, squared_distances(flat, _flat(images)), k)
    _require_found(index, k)
    return index, np.sqrt(squared) / (levels - 1)


def in_features(
    samples: np.ndarray, pool: np.ndarray, k: int, rows: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The k members of a pool that are nearest to each sample in feature space, nearest first.

    Distances of the neighbours are computed from differences, so that a copy's is exactly 0.

    Args:
      samples: features `[N, F]`.
      pool: features `[M, F]`.
      k: number of neighbours.
      rows: members of the pool at once, by default as many as fit into 32 MiB.

    Returns:
      Indices into the pool, int64 `[N, k]`, and Euclidean distances, float64 `[N, k]`.

    Raises:
      UserError: the pool has fewer than k members, or another number of features.
    """
    require(
        pool.shape[1:] == samples.shape[1:],
        "the pool's number of features",
        pool.shape[1:],
        f"{samples.shape[1:]}, that of the samples",
    )
    # Inner products lose the digits that all vectors have in common.
    centre = pool[:1].astype(np.float64)
    moved = samples - centre
    index = np.empty((len(samples), 0), np.int64)
    squared = np.empty((len(samples), 0))
    for start, piece in _pieces(pool, rows or max(1, BLOCK // max(moved.shape))):
        index, squared = _merge(index, squared, start, squared_distances(moved, piece - centre), k)
    _require_found(index, k)
    away = pool[index].astype(np.float64) - samples[:, None]
    distance = np.sqrt(np.square(away).sum(-1))
    order = np.lexsort((index, distance))
    return np.take_along_axis(index, order, 1), np.take_along_axis(distance, order, 1)


def picture_rows(samples: np.ndarray, found: np.ndarray) -> np.ndarray:
    """One row per sample: the sample, then its neighbours, nearest first.

    Args:
      samples: uint8 `[N, H, W, C]`.
      found: the images with the indices from `nearest`, uint8 `[N, k, H, W, C]`.

    Returns:
      uint8 `[N, 1 + k, H, W, C]`.
    """
    return np.concatenate([samples[:, None], found], axis=1)


def picture(
    samples: np.ndarray,
    index: np.ndarray,
    read: Callable[[np.ndarray], np.ndarray],
    levels: int,
) -> np.ndarray:
    """A picture with samples in the first column and their neighbours beside them.

    Args:
      samples: uint8 `[N, H, W, C]`.
      index: from `nearest`, `[N, k]`.
      read: `read(index [B]) -> uint8 [B, H, W, C]`, images of the pool.
      levels: number of grey levels.

    Returns:
      uint8 RGB `[H', W', 3]`.
    """
    found = read(index.reshape(-1)).reshape(*index.shape, *samples.shape[1:])
    return pictures.tile(pictures.to_pixels(picture_rows(samples, found), levels))


def _flat(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1).astype(np.float64)


def _pieces(pool: Pool, rows: int) -> Iterator[tuple[int, np.ndarray]]:
    """The pool in pieces of at most `rows`, each with the index of its first image."""
    for first, part in [(0, pool)] if isinstance(pool, np.ndarray) else pool:
        for start in range(0, len(part), rows):
            yield first + start, part[start : start + rows]


def _merge(
    index: np.ndarray, squared: np.ndarray, start: int, new: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """The k smallest, in order, of the distances kept so far, `[N, K]`, and new ones, `[N, B]`."""
    numbers = np.broadcast_to(np.arange(start, start + new.shape[1]), new.shape)
    squared = np.concatenate([squared, new], axis=1)
    index = np.concatenate([index, numbers], axis=1)
    order = np.empty((len(squared), min(k, squared.shape[1])), np.intp)
    left = squared.copy()
    # A few searches for the minimum are faster than a stable sort, and break ties in the same way.
    for place in range(order.shape[1]):
        order[:, place] = left.argmin(1)
        np.put_along_axis(left, order[:, place, None], np.inf, axis=1)
    return np.take_along_axis(index, order, 1), np.take_along_axis(squared, order, 1)


def _require_found(index: np.ndarray, k: int) -> None:
    num = index.shape[1]
    require(k >= 1, "the number of neighbours", k, "≥ 1")
    require(num == k, "the number of neighbours", k, f"≤ {num} (the pool's size)")
