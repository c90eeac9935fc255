"""Drawing any number of images, or completions, in batches of one compiled shape."""

from collections.abc import Callable, Iterable

import jax
import numpy as np
from jax import Array

from rnngen_jax import keys
from rnngen_jax.errors import UserError
from rnngen_jax.models.base import Extra, Model, Params

# Images a draw. Batch number i has the key `fold_in(key, i)` and always this shape, so that the
# first n images of a large draw are those of a small one with the same seed.
BATCH = 64

Draw = Callable[..., np.ndarray]
Track = Callable[[range], Iterable[int]]  # wraps the range over batches, such as a progress bar


def cycled(model: Model, num: int) -> np.ndarray | None:
    """Labels that go round all classes, int32 `[num]`; `None` for an unconditional model."""
    if not model.conditional:
        return None
    return np.arange(num, dtype=np.int32) % model.spec.classes


def sampler(model: Model, track: Track = iter) -> Draw:
    """`draw(params, extra, key, num, labels, temperature) -> uint8 [num, H, W, C]`.

    `labels` is int32 `[num]`, or `None` for an unconditional model. Make it once and call it often:
    each call of `sampler` compiles anew.

    Raises:
      UserError: the model cannot sample.
    """
    if model.sample is None:
        raise UserError(f"{model.name} cannot draw samples.")
    sample = jax.jit(model.sample, static_argnames="num")

    def draw(
        params: Params,
        extra: Extra,
        key: Array,
        num: int,
        labels: np.ndarray | None,
        temperature: float,
    ) -> np.ndarray:
        key = keys.named(key, "sample")
        parts = []
        for number, start in enumerate(track(range(0, num, BATCH))):
            label = None if labels is None else _filled(labels[start : start + BATCH])
            images = sample(
                params,
                extra,
                jax.random.fold_in(key, number),
                num=BATCH,
                label=label,
                temperature=np.float32(temperature),
            )
            parts.append(np.asarray(images))
        return np.concatenate(parts)[:num]

    return draw


def completer(model: Model, track: Track = iter) -> Draw:
    """`draw(params, extra, key, images, known, labels, temperature) -> uint8 [N, H, W, C]`.

    `images` is uint8 `[N, H, W, C]`, `known` bool `[N, H, W]`, `labels` int32 `[N]` or `None`.

    Raises:
      UserError: the model cannot complete images.
    """
    if model.complete is None:
        raise UserError(f"{model.name} cannot complete images.")
    complete = jax.jit(model.complete)

    def draw(
        params: Params,
        extra: Extra,
        key: Array,
        images: np.ndarray,
        known: np.ndarray,
        labels: np.ndarray | None,
        temperature: float,
    ) -> np.ndarray:
        key = keys.named(key, "complete")
        parts = []
        for number, start in enumerate(track(range(0, len(images), BATCH))):
            batch = slice(start, start + BATCH)
            completed = complete(
                params,
                extra,
                jax.random.fold_in(key, number),
                _filled(images[batch]),
                _filled(known[batch]),
                None if labels is None else _filled(labels[batch]),
                np.float32(temperature),
            )
            parts.append(np.asarray(completed))
        return np.concatenate(parts)[: len(images)]

    return draw


def _filled(array: np.ndarray) -> np.ndarray:
    """`array` with its first row repeated up to the batch's size."""
    missing = BATCH - len(array)
    return np.concatenate([array, np.repeat(array[:1], missing, axis=0)])
