"""Sampling, completing and rebuilding any number of images in batches of one compiled shape."""

import functools
from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np
from jax import Array

from rnngen_jax import keys
from rnngen_jax.errors import UserError
from rnngen_jax.evaluation.batching import filled
from rnngen_jax.models.base import Canvases, Completion, Extra, Latent, Model, Params

# Images per call of a model. Batch number i has the key `fold_in(key, i)` and always this shape, so
# that the first n of many images are those of a few with the same seed.
BATCH = 64

Draw = Callable[..., np.ndarray]
Track = Callable[[range], Iterable[int]]  # wraps the range over batches, such as a progress bar


def cycled(model: Model, num: int) -> np.ndarray | None:
    """Labels that go round all classes, int32 `[num]`; `None` for an unconditional model."""
    if not model.conditional:
        return None
    return np.arange(num, dtype=np.int32) % model.spec.classes


def sampler(model: Model, track: Track = iter) -> Draw:
    """`sample(params, extra, key, num, labels, temperature) -> uint8 [num, H, W, C]`.

    `labels` is int32 `[num]`, or `None` for an unconditional model. Make it once and call it often:
    each call of `sampler` compiles anew.

    Raises:
      UserError: the model cannot sample.
    """
    if model.sample is None:
        raise UserError(f"{model.name} cannot draw samples.")
    one_batch = jax.jit(model.sample, static_argnames="num")

    def sample(
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
            label = None if labels is None else filled(labels[start : start + BATCH], BATCH)
            images = one_batch(
                params,
                extra,
                jax.random.fold_in(key, number),
                num=BATCH,
                label=label,
                temperature=np.float32(temperature),
            )
            parts.append(np.asarray(images))
        return np.concatenate(parts)[:num]

    return sample


def completer(
    model: Model, track: Track = iter, candidates: int | None = None
) -> Callable[..., Completion]:
    """`complete(params, extra, key, images, known, labels, temperature) -> Completion`.

    `images` is uint8 `[N, H, W, C]`, `known` bool `[N, H, W]`, `labels` int32 `[N]` or `None`; what
    comes back is of NumPy arrays. There are `candidates` draws to choose each image from; `None`
    stands for the model's own number.

    Raises:
      UserError: the model cannot complete images.
    """
    if model.complete is None:
        raise UserError(f"{model.name} cannot complete images.")
    candidates = candidates or model.candidates
    one_batch = jax.jit(functools.partial(model.complete, candidates=candidates))

    def complete(
        params: Params,
        extra: Extra,
        key: Array,
        images: np.ndarray,
        known: np.ndarray,
        labels: np.ndarray | None,
        temperature: float,
    ) -> Completion:
        key = keys.named(key, "complete")
        parts = []
        for number, start in enumerate(track(range(0, len(images), BATCH))):
            batch = slice(start, start + BATCH)
            completed = one_batch(
                params,
                extra,
                jax.random.fold_in(key, number),
                filled(images[batch], BATCH),
                filled(known[batch], BATCH),
                None if labels is None else filled(labels[batch], BATCH),
                np.float32(temperature),
            )
            parts.append(jax.tree.map(np.asarray, completed))
        return jax.tree.map(lambda *each: np.concatenate(each)[: len(images)], *parts)

    return complete


def latents_of(model: Model, purpose: str) -> Latent:
    """What a model of latent variables can do.

    Raises:
      UserError: the model has none; `purpose` ends the message, such as "to rebuild images from".
    """
    if model.latent is None:
        raise UserError(f"{model.name} has no latents {purpose}.")
    return model.latent


def prior_of(model: Model, purpose: str) -> Callable[..., Array]:
    """The prior of a model's latents.

    Raises:
      UserError: the model has no latents, or a code without a prior.
    """
    prior = latents_of(model, purpose).prior
    if prior is None:
        raise UserError(f"{model.name} has no prior over its latents {purpose}.")
    return prior


def require_canvases(model: Model) -> None:
    """Raises a `UserError` unless the model has canvases that an animation can show."""
    if model.latent is None or model.latent.canvases is None:
        raise UserError(
            f"{model.name} has no canvases for a .gif; "
            "it takes a model that draws its images step by step, such as draw."
        )


def imaginer(model: Model) -> Draw:
    """`draw(params, extra, key, num, labels, temperature) -> float32 [num, S, Z]`, from the prior.

    They are the latents that `sampler` draws images from, with the same arguments.

    Raises:
      UserError: the model has no prior.
    """
    prior = jax.jit(prior_of(model, "to draw from"), static_argnames="num")

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
        for number, start in enumerate(range(0, num, BATCH)):
            label = None if labels is None else filled(labels[start : start + BATCH], BATCH)
            latents = prior(
                params,
                extra,
                keys.named(jax.random.fold_in(key, number), "prior"),
                num=BATCH,
                label=label,
                temperature=np.float32(temperature),
            )
            parts.append(np.asarray(latents))
        return np.concatenate(parts)[:num]

    return draw


def encoder(model: Model, track: Track = iter) -> Draw:
    """`encode(params, extra, images, labels) -> float32 [N, S, Z]`: the posterior's means.

    `images` is uint8 `[N, H, W, C]`, `labels` int32 `[N]` or `None`.

    Raises:
      UserError: the model has no latents.
    """
    return _mapped(latents_of(model, "to bring images to").encode, track)


def decoder(model: Model, track: Track = iter) -> Draw:
    """`decode(params, extra, latents, labels) -> float32 [N, H, W, C]`: the expected images.

    `latents` is float32 `[N, S, Z]`, `labels` int32 `[N]` or `None`; images are in [0, 1].

    Raises:
      UserError: the model has no latents.
    """
    return _mapped(latents_of(model, "to make images from").decode, track)


def stepwise_decoder(model: Model, track: Track = iter) -> Callable[..., Canvases]:
    """`canvases(params, extra, latents, labels) -> Canvases` of NumPy arrays.

    `latents` is float32 `[N, S, Z]`, `labels` int32 `[N]` or `None`.

    Raises:
      UserError: the model does not draw step by step.
    """
    require_canvases(model)
    return _mapped(model.latent.canvases, track, axis=1)


def _mapped(function: Callable[..., Any], track: Track, axis: int = 0) -> Callable[..., Any]:
    """`function(params, extra, *arrays)`, compiled once, over arrays `[N, ...]` batch by batch.

    An array may be `None`. N is axis number `axis` of each array that comes out.
    """
    compiled = jax.jit(function)

    def mapped(params: Params, extra: Extra, first: np.ndarray, *more: np.ndarray | None) -> Any:
        parts = []
        for start in track(range(0, len(first), BATCH)):
            batch = [
                None if array is None else filled(array[start : start + BATCH], BATCH)
                for array in (first, *more)
            ]
            parts.append(jax.tree.map(np.asarray, compiled(params, extra, *batch)))
        whole = (slice(None),) * axis + (slice(len(first)),)
        return jax.tree.map(lambda *each: np.concatenate(each, axis)[whole], *parts)

    return mapped
