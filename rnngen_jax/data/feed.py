"""Batches as a pure function of (seed, step), the same for any number of hosts and devices.

The stream of training examples, epoch after epoch in a new random order each, is cut into
consecutive batches, so a batch may straddle two epochs. Resuming needs no saved state.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from rnngen_jax.config import require
from rnngen_jax.data.base import Split
from rnngen_jax.data.source import permutation
from rnngen_jax.errors import UserError

DEVICE_BYTES = 512 * 2**20  # the largest split that placement "auto" puts on the device
_BUFFER_BYTES = 256 * 2**20  # about how much streaming reads ahead
_THREADS = 4

Chunks = Callable[[Sequence[tuple[int, int]], int, int], Iterator[dict[str, np.ndarray]]]


class Feed(NamedTuple):
    """The source of training batches; made by `make_feed`.

    Attributes:
      resident: the split's items `[N, ...]`, by their key such as "image", and "label" int32 `[N]`
        in host memory, for the trainer to put on the device; `None` when streaming.
      chunks: `chunks(calls, process_index=0, process_count=1)` yields, for each call
        `(start, stop)`, the batches of the training steps `start` to `stop - 1` as arrays with a
        leading axis K of `stop - start` steps: "index" int32 `[K, b]`, and when streaming the
        items `[K, b, ...]` and "label" int32 `[K, b]`, too. `b` is `batch_size /
        process_count`: this process's contiguous part of each batch. With N > 1 seeds the
        leading axes are `[K, N, b]`: each seed has its own batches.
    """

    resident: dict[str, np.ndarray] | None
    chunks: Chunks


def order(
    seed: int,
    start: int,
    count: int,
    num: int,
    permuted: Callable[[int, int, int], np.ndarray] = permutation,
) -> np.ndarray:
    """The examples at positions `start` to `start + count - 1` of the stream.

    Position p is in epoch `p // num`; each epoch is a new permutation of all `num` examples.

    Args:
      seed: of the whole stream.
      start: first position, ≥ 0.
      count: number of positions.
      num: number of examples.
      permuted: `permutation`, optionally cached by the caller.

    Returns:
      Indices of examples, int32 `[count]`: a pure function of the arguments.
    """
    places = np.arange(start, start + count, dtype=np.int64)
    epochs, within = np.divmod(places, num)
    indices = np.empty(count, np.int32)
    for epoch in np.unique(epochs):
        here = epochs == epoch
        indices[here] = permuted(seed, int(epoch), num)[within[here]]
    return indices


def make_feed(split: Split, batch_size: int, seed: int, placement: str, seeds: int = 1) -> Feed:
    """The feed of a split.

    Args:
      split: the images.
      batch_size: of the global batch, over all processes.
      seed: of the order.
      placement: "device", "stream" or "auto", as in `DataConfig`. The batches are the same.
      seeds: number of seeds; seed r has the order of `seed + r`.

    Raises:
      UserError: a batch size outside [1, number of images], or an image that cannot be read.
    """
    allowed = f"in [1, {split.num}] (the number of images)"
    require(1 <= batch_size <= split.num, "batch_size", batch_size, allowed)
    image, _ = split.read(np.zeros(1, np.int64))
    on_device = lies_on_device(placement, split, image.nbytes)

    # Each seed's batch lies in one epoch of its own order, or in two.
    permuted = functools.lru_cache(maxsize=4 * seeds)(permutation)

    def indices(call: tuple[int, int], process_index: int, process_count: int) -> np.ndarray:
        start, stop = call
        first, count = start * batch_size, (stop - start) * batch_size
        orders = [order(seed + r, first, count, split.num, permuted) for r in range(seeds)]
        wholes = [whole.reshape(stop - start, batch_size) for whole in orders]
        whole = wholes[0] if seeds == 1 else np.stack(wholes, axis=1)
        mine = batch_size // process_count
        return whole[..., process_index * mine : (process_index + 1) * mine]

    def gathered(
        calls: Sequence[tuple[int, int]], process_index: int = 0, process_count: int = 1
    ) -> Iterator[dict[str, np.ndarray]]:
        _check_divisible(batch_size, process_count)
        return ({"index": indices(call, process_index, process_count)} for call in calls)

    def streamed(
        calls: Sequence[tuple[int, int]], process_index: int = 0, process_count: int = 1
    ) -> Iterator[dict[str, np.ndarray]]:
        _check_divisible(batch_size, process_count)

        def read(call: tuple[int, int]) -> dict[str, np.ndarray]:
            index = indices(call, process_index, process_count)
            images, labels = split.read(index.reshape(-1))
            shape = index.shape
            return {
                split.key: images.reshape(shape + images.shape[1:]),
                "label": labels.reshape(shape),
                "index": index,
            }

        steps = max((stop - start for start, stop in calls), default=1)
        bytes_a_call = max(1, image.nbytes * steps * seeds * batch_size // process_count)
        ahead = int(np.clip(_BUFFER_BYTES // bytes_a_call, 1, _THREADS))
        return _in_background(calls, read, ahead)

    if on_device:
        images, labels = split.read(np.arange(split.num))
        return Feed({split.key: images, "label": labels}, gathered)
    return Feed(None, streamed)


def lies_on_device(placement: str, split: Split, item_bytes: int) -> bool:
    """Whether a split is put on the device; never one whose items are made as they are read.

    Args:
      placement: as for `make_feed`.
      split: the items.
      item_bytes: of one item.
    """
    small = item_bytes * split.num < DEVICE_BYTES
    return not split.made and (placement == "device" or (placement == "auto" and small))


def fetch(resident: Mapping[str, Array] | None, item: Mapping[str, Array]) -> dict[str, Array]:
    """One step's batch, within the jitted step; the same for both placements.

    Args:
      resident: the feed's `resident` arrays on the device; `None` when streaming.
      item: one step of a chunk: "index" `[B]`, and when streaming the items and "label".

    Returns:
      The items `[B, ...]` by their key, "label" int32 `[B]`, "index" int32 `[B]`.
    """
    if resident is None:
        return dict(item)
    # Indices are in range by construction; "clip" avoids the fill for others.
    taken = {name: jnp.take(a, item["index"], axis=0, mode="clip") for name, a in resident.items()}
    return {**taken, "index": item["index"]}


def _in_background(
    calls: Sequence[tuple[int, int]],
    read: Callable[[tuple[int, int]], dict[str, np.ndarray]],
    ahead: int,
) -> Iterator[dict[str, np.ndarray]]:
    """Reads the calls in order, `ahead` at a time, in threads that end with the iterator."""
    import grain  # here, as it takes seconds to import and small data sets do without

    source = grain.MapDataset.source(list(calls)).map(read)
    options = grain.ReadOptions(num_threads=ahead, prefetch_buffer_size=ahead)
    iterator = iter(source.to_iter_dataset(options))
    try:
        yield from iterator
    finally:
        iterator.close()


def _check_divisible(batch_size: int, process_count: int) -> None:
    if batch_size % process_count:
        raise UserError(
            f"config.training.batch_size must be a multiple of the {process_count} processes, "
            f"got {batch_size}."
        )
