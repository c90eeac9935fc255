"""Sampling, completing and rebuilding any number of images in batches of one compiled shape."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import Array

from rnngen_jax import keys
from rnngen_jax.errors import UserError
from rnngen_jax.evaluation.batching import Track, map_batches
from rnngen_jax.models.base import Canvases, Completion, Extra, Forecast, Latent, Model, Params
from rnngen_jax.models.codes import Codes

# Images per call of a model. Batch number i has the key `fold_in(key, i)` and always this shape, so
# the first n of many images are the n images of a smaller number with the same seed.
BATCH = 64

Sampler = Callable[..., np.ndarray]


def cycled(model: Model, num: int) -> np.ndarray | None:
    """Labels that cycle through the classes, int32 `[num]`; `None` for an unconditional model."""
    if not model.conditional:
        return None
    return np.arange(num, dtype=np.int32) % model.spec.classes


def sampler(model: Model, track: Track = iter) -> Sampler:
    """`sample(params, extra, key, num, labels, temperature) -> uint8 [num, H, W, C]`.

    `labels` is int32 `[num]`, or `None` for an unconditional model. Make it once and call it often:
    each call of `sampler` compiles again.

    Raises:
      UserError: the model cannot sample.
    """
    if model.sample is None:
        raise UserError(f"{model.name} cannot draw samples.")
    return _sampled(model.sample, track)


def prior_sampler(model: Model) -> Sampler:
    """`sample(params, extra, key, num, labels, temperature) -> float32 [num, S, Z]`: latents.

    With the same arguments, they are the latents of the images that `sampler` returns.

    Raises:
      UserError: the model has no prior.
    """
    prior = prior_of(model, "to draw from")

    def sample(params: Params, extra: Extra, key: Array, **options: Any) -> Array:
        return prior(params, extra, keys.named(key, "prior"), **options)

    return _sampled(sample, iter)


def code_sampler(model: Model, track: Track = iter) -> Sampler:
    """`sample(params, extra, key, num, labels, temperature) -> codes [num, h, w, depth]`.

    With the same arguments, they are the codes of the images that `sampler` returns. Codes of
    several levels are a tuple of such grids.

    Raises:
      UserError: the model has no codes.
    """
    prior = codes_of(model, "to draw").prior

    def sample(params: Params, extra: Extra, key: Array, **options: Any) -> Array:
        own = prior.params(params, extra)
        return prior.model.sample(own, {}, keys.named(key, "prior"), **options)

    return _sampled(sample, track)


def code_encoder(model: Model, track: Track = iter) -> Callable[..., np.ndarray]:
    """`encode(params, extra, images) -> codes [N, h, w, depth]`, from uint8 `[N, H, W, C]`.

    Codes of several levels are a tuple of such grids.

    Raises:
      UserError: the model has no codes.
    """
    codes = codes_of(model, "to turn images into")

    def encode(params: Params, extra: Extra, image: Array) -> Array:
        return codes.encode(*codes.bind(params, extra), image)

    return mapped(encode, track)


def completer(
    model: Model, track: Track = iter, candidates: int | None = None
) -> Callable[..., Completion]:
    """`complete(params, extra, key, images, known, labels, temperature) -> Completion`.

    `images` is uint8 `[N, H, W, C]`, `known` bool `[N, H, W]`, `labels` int32 `[N]` or `None`; the
    `Completion` has NumPy arrays. Each image is chosen from `candidates` draws, by default the
    model's own number.

    Raises:
      UserError: the model cannot complete images.
    """
    if model.complete is None:
        raise UserError(f"{model.name} cannot complete images.")
    candidates = candidates or model.candidates
    one_batch = functools.partial(model.complete, candidates=candidates)

    def one(params: Params, extra: Extra, batch: Any, common: tuple[Array, Array]) -> Completion:
        number, image, known, label = batch
        key, temperature = common
        own = jax.random.fold_in(key, number)
        return one_batch(params, extra, own, image, known, label, temperature)

    def complete(
        params: Params,
        extra: Extra,
        key: Array,
        images: np.ndarray,
        known: np.ndarray,
        labels: np.ndarray | None,
        temperature: float,
    ) -> Completion:
        common = keys.named(key, "complete"), np.float32(temperature)
        arrays = images, known, labels
        return map_batches(one, params, extra, common, len(images), BATCH, *arrays, track=track)

    return complete


def forecaster(
    model: Model, horizon: int, fed: str, track: Track = iter
) -> Callable[..., Forecast]:
    """`forecast(params, extra, key, context, labels, temperature) -> Forecast` of NumPy arrays.

    `context` is `[N, T, H, W, C]` with T ≥ 0 given frames, `labels` int32 `[N]` or `None`.

    Args:
      model: a model of frames.
      horizon: number of frames to predict.
      fed: "sample" or "mean", as in `models.base.Sequential`.
      track: wraps the range over batches.

    Raises:
      UserError: a model of still images, or one without a likelihood to draw frames from.
    """
    if model.sequential is None:
        raise UserError(f"{model.name} is no model of sequences, so it predicts no frames.")
    if fed == "sample" and model.sequential.log_probs is None:
        raise UserError(
            f"{model.name} has no likelihood with this objective, so no frames can be drawn; "
            "predict expected frames instead."
        )
    one_batch = model.sequential.forecast

    def one(params: Params, extra: Extra, batch: Any, common: tuple[Array, Array]) -> Forecast:
        number, context, label = batch
        key, temperature = common
        own = jax.random.fold_in(key, number)
        return one_batch(params, extra, own, context, horizon, label, temperature, fed)

    def forecast(
        params: Params,
        extra: Extra,
        key: Array,
        context: np.ndarray,
        labels: np.ndarray | None,
        temperature: float,
    ) -> Forecast:
        common = keys.named(key, "forecast"), np.float32(temperature)
        arrays = context, labels
        return map_batches(one, params, extra, common, len(context), BATCH, *arrays, track=track)

    return forecast


def latents_of(model: Model, purpose: str) -> Latent:
    """The latent capabilities of a model.

    Raises:
      UserError: the model has no latents; `purpose` ends the message, such as "to rebuild images
        from".
    """
    if model.latent is None:
        raise UserError(f"{model.name} has no latents {purpose}.")
    return model.latent


def codes_of(model: Model, purpose: str) -> Codes:
    """The codes of a model.

    Raises:
      UserError: the model has no codes; `purpose` ends the message, such as "to draw".
    """
    if model.codes is None:
        raise UserError(
            f"{model.name} has no codes {purpose}; use a model with a codebook, such as vqvae or "
            "code_rnn."
        )
    return model.codes


def prior_of(model: Model, purpose: str) -> Callable[..., Array]:
    """The prior of a model's latents.

    Raises:
      UserError: the model has no latents, or a deterministic code without a prior.
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
            "use a model that draws its images step by step, such as draw or code_rnn."
        )


def encoder(model: Model, track: Track = iter) -> Callable[..., np.ndarray]:
    """`encode(params, extra, images, labels) -> float32 [N, S, Z]`: the posterior's means.

    `images` is uint8 `[N, H, W, C]`, `labels` int32 `[N]` or `None`.

    Raises:
      UserError: the model has no latents.
    """
    return mapped(latents_of(model, "to bring images to").encode, track)


def decoder(model: Model, track: Track = iter) -> Callable[..., np.ndarray]:
    """`decode(params, extra, latents, labels) -> float32 [N, H, W, C]`: the expected images.

    `latents` is float32 `[N, S, Z]`, `labels` int32 `[N]` or `None`; images are in [0, 1].

    Raises:
      UserError: the model has no latents.
    """
    return mapped(latents_of(model, "to make images from").decode, track)


def stepwise_decoder(model: Model, track: Track = iter) -> Callable[..., Canvases]:
    """`canvases(params, extra, latents, labels) -> Canvases` of NumPy arrays.

    `latents` is float32 `[N, S, Z]`, `labels` int32 `[N]` or `None`.

    Raises:
      UserError: the model does not draw step by step.
    """
    require_canvases(model)
    return mapped(model.latent.canvases, track, axis=1)


def _sampled(one_batch: Callable[..., Array], track: Track) -> Sampler:
    """Makes any number of samples with a function that makes `num` of them, compiled once."""
    one = sample_function(one_batch, BATCH)

    def sample(
        params: Params,
        extra: Extra,
        key: Array,
        num: int,
        labels: np.ndarray | None,
        temperature: float,
    ) -> np.ndarray:
        common = keys.named(key, "sample"), np.float32(temperature)
        return map_batches(one, params, extra, common, num, BATCH, labels, track=track)

    return sample


def sample_function(one_batch: Callable[..., Array], size: int) -> Callable[..., Array]:
    """`sample(params, extra, (number, label), (key, temperature))`: `size` samples.

    Args:
      one_batch: a model's `sample`, or one of latents with the same arguments.
      size: how many it makes at once.
    """

    def one(params: Params, extra: Extra, batch: Any, common: tuple[Array, Array]) -> Array:
        number, label = batch
        key, temperature = common
        own = jax.random.fold_in(key, number)
        return one_batch(params, extra, own, num=size, label=label, temperature=temperature)

    return one


def mapped(function: Callable[..., Any], track: Track = iter, axis: int = 0) -> Callable[..., Any]:
    """`function(params, extra, *arrays)`, compiled once, over arrays `[N, ...]` batch by batch.

    An array may be `None`, except the first. Each array that comes out has N rows along `axis`.
    """

    def one(params: Params, extra: Extra, batch: Any, common: None) -> Any:
        del common
        return function(params, extra, *batch[1:])

    def apply(params: Params, extra: Extra, *arrays: np.ndarray | None) -> Any:
        num = len(arrays[0])
        return map_batches(one, params, extra, None, num, BATCH, *arrays, track=track, axis=axis)

    return apply
