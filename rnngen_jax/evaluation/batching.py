"""Batches of one compiled shape; the last one is filled up with copies that do not count."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np

from rnngen_jax.data.base import Split
from rnngen_jax.evaluation.spread import Function, spread
from rnngen_jax.models.base import Extra, Params

Track = Callable[[range], Iterable[int]]  # wraps the range over batches, such as a progress bar
Batches = Iterable[tuple[int, dict[str, np.ndarray]]]  # as `split_batches` yields them


def filled(rows: np.ndarray, size: int) -> np.ndarray:
    """`rows` `[N, ...]`, N in [1, `size`], with the first one repeated up to `[size, ...]`."""
    return np.concatenate([rows, np.repeat(rows[:1], size - len(rows), axis=0)])


def split_batches(
    split: Split, batch_size: int, num_images: int = 0, track: Track = iter
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """Each image of a split exactly once, in batches of one shape.

    Args:
      split: the images.
      batch_size: images in a batch, no more than there are.
      num_images: number of images to read, from the split's start; 0 for all.
      track: wraps the range over batches, such as a progress bar.

    Yields:
      How many images of the batch count, from its start, and the batch; the last one is filled up
      with copies of its first image.
    """
    total = min(num_images, split.num) if num_images else split.num
    batch_size = min(batch_size, total)
    for start in track(range(0, total, batch_size)):
        index = np.arange(start, min(start + batch_size, total), dtype=np.int32)
        padded = filled(index, batch_size)
        image, label = split.read(padded)
        yield index.size, {split.key: image, "label": label, "index": padded}


def map_batches(
    function: Function,
    params: Params,
    extra: Extra,
    common: Any,
    num: int,
    size: int,
    *arrays: np.ndarray | None,
    track: Track = iter,
    axis: int = 0,
) -> Any:
    """Applies a function to arrays batch by batch, over all devices, and joins what it returns.

    Args:
      function: `function(params, extra, (number, *batch), common)`: the batch's number, from 0,
        int32, and `[size, ...]` of each array. It returns a tree of arrays. It is compiled once,
        so it has to be the same object in every call.
      params, extra, common: as for `function`.
      num: number of rows N.
      size: rows in a batch; the last batch is filled up.
      *arrays: `[N, ...]`; `None` is passed on as it is.
      track: wraps the range over batches.
      axis: the axis of the returned arrays that has the batch's rows.

    Returns:
      The tree with NumPy arrays that have N rows along `axis`.
    """

    def batches() -> Iterator[tuple[int, Any]]:
        for number, start in enumerate(track(range(0, num, size))):
            rows = [None if a is None else filled(a[start : start + size], size) for a in arrays]
            yield size, (np.int32(number), *rows)

    parts = [found for _, found in spread(function)(params, extra, batches(), common)]
    rows = (slice(None),) * axis + (slice(num),)
    return jax.tree.map(lambda *each: np.concatenate(each, axis)[rows], *parts)
