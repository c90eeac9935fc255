"""The model contract: what training, evaluation and sampling require of a model."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from rnngen_jax import keys
from rnngen_jax.config import refuse_unread, require
from rnngen_jax.ops import dropout
from rnngen_jax.shapes import ImageSpec

Params = dict[str, Any]  # {player: nested dict of arrays}
Extra = dict[str, Any]  # what is not trained by gradient; {} where there is nothing
# Items [B, ...] of `spec.dtype` by `spec.key`, "image" or "frames"; "label" and "index", int32 [B].
Batch = Mapping[str, Array]
Train = tuple[Array, Array] | None  # (key, index [B]) in training, for dropout; otherwise `None`
Scalar = Array | float


class Aux(NamedTuple):
    """What a loss returns besides its value.

    Attributes:
      metrics: scalars by name, means over the batch, such as `nats_per_image`.
      extra: the model's `extra` after this step; the train step stores it. It has to be the same on
        every device that shares a batch: what it keeps of one is taken from `ops.batch`.
    """

    metrics: dict[str, Array]
    extra: Extra


class Given(NamedTuple):
    """Images of which some pixels are known.

    Attributes:
      image: int `[B, H, W, C]`.
      known: bool `[B, H, W]`.
    """

    image: Array
    known: Array


class Completion(NamedTuple):
    """Completed images, and how well they represent the target distribution.

    Attributes:
      image: `[N, *spec.shape]`, in `spec.dtype`.
      effective: the effective sample size of the draws that each image was chosen from, float32
        `[N]` in [1, candidates]; `None` for a Markov chain that starts elsewhere.
      moved: for a Markov chain, the fraction of its steps that moved each image's latents, float32
        `[N]`; `None` without one.
    """

    image: Array
    effective: Array | None = None
    moved: Array | None = None


Loss = Callable[[Params, Extra, Batch, Array, Array], tuple[Array, Aux]]


class Canvases(NamedTuple):
    """The intermediate images of a model that draws step by step.

    Attributes:
      mean: the expected image after each step, float32 `[T, B, H, W, C]` in [0, 1].
      read, write: the attention windows of each step as top, left, bottom and right, `[T, B, 4]`
        pixels from 0; `None` without such attention. For latents from the prior, `read` is where an
        image would have been read.
    """

    mean: Array
    read: Array | None
    write: Array | None


class Inspection(NamedTuple):
    """The terms of each image's bound, for one draw of its latents.

    Attributes:
      log_likelihood: log p(x|z), `[B]`, nats.
      kl: KL of each latent variable, `[B, S, Z]`, nats; `None` for a deterministic code.
      mean: the posterior's mean, or the code, `[B, S, Z]`.
      squared_error: mean squared error of the expected image given the posterior's mean, with
        values in [0, 1], `[B]`.
      codes: the image's codes, int32 `[B, S, depth]`, for models with a codebook; of several
        levels a tuple, and the other terms have the places of all of them side by side.
    """

    log_likelihood: Array
    kl: Array | None
    mean: Array
    squared_error: Array
    codes: Any = None


class Latent(NamedTuple):
    """Functions of a latent-variable model, p(x, z) = p(z) p(x|z) with the posterior q(z|x).

    Latents are `[B, S, Z]`: Z variables in each of S steps.

    Attributes:
      shape: (S, Z).
      encode: `encode(params, extra, image, label) -> latents`, the posterior's means.
      decode: `decode(params, extra, latents, label) -> float32 [B, H, W, C]`, the expected image,
        in [0, 1].
      inspect: `inspect(params, extra, batch, key) -> Inspection`.
      prior: `prior(params, extra, key, num, label, temperature) -> latents`, samples; the
        temperature multiplies a Gaussian's scale and divides logits. `num` is static. `None` for a
        deterministic code, which has no prior.
      log_prior: `log_prior(params, extra, latents, label) -> [B]`, the prior's log-density, nats.
      importance: `importance(params, extra, batch, key, samples, chunk) -> [B]`, the
        importance-weighted bound of log p(x) in nats; `samples` and `chunk` are static. `None`
        without a prior.
      canvases: `canvases(params, extra, latents, label) -> Canvases` for models that draw step by
        step.
      completion: the method of `complete`, as shown to users; `None` without one.
    """

    shape: tuple[int, int]
    encode: Callable[..., Array]
    decode: Callable[..., Array]
    inspect: Callable[[Params, Extra, Batch, Array], Inspection]
    prior: Callable[..., Array] | None = None
    log_prior: Callable[..., Array] | None = None
    importance: Callable[..., Array] | None = None
    canvases: Callable[..., Canvases] | None = None
    completion: str | None = None


class Forecast(NamedTuple):
    """Frames that follow given ones.

    Attributes:
      frames: drawn frames, `[B, M, H, W, C]`, of `spec.dtype`.
      mean: the expected frame at each of the M steps, given the frames before it, float32
        `[B, M, H, W, C]` in [0, 1].
    """

    frames: Array
    mean: Array


class Sequential(NamedTuple):
    """Functions of a model of frames, log p(x) = Σ_t log p(x[t] | x[<t]) or a bound of it.

    Attributes:
      log_probs: `log_probs(params, extra, batch, key) -> [B, T]`, what each frame adds to
        `log_prob`, nats, given the true frames before it; `None` without a likelihood.
      forecast: `forecast(params, extra, key, context [B, N, H, W, C], horizon, label, temperature,
        fed) -> Forecast` of the `horizon` (static) frames after N ≥ 0 given ones. `fed` (static) is
        what a step is given of the one before: "sample", a drawn frame, so that the frames are a
        draw from p; or "mean", the expected one, so that the means are the usual deterministic
        prediction. Without a likelihood only means can be fed, and frames are the nearest levels.
      teacher_forced: `teacher_forced(params, extra, batch, key) -> float32 [B, T, H, W, C]`, the
        expected frames given the true ones before each, in [0, 1].
      stochastic: whether several forecasts of one context may differ in their means.
    """

    log_probs: Callable[[Params, Extra, Batch, Array], Array] | None
    forecast: Callable[..., Forecast]
    teacher_forced: Callable[[Params, Extra, Batch, Array], Array]
    stochastic: bool


class Model(NamedTuple):
    """A model as a set of pure functions, built for one `ImageSpec`.

    A capability that a model lacks is `None`, and a verb that needs it says so. `params` is keyed
    by player; a player's loss is differentiated with respect to that player's parameters only.
    Noise within a batch is drawn from `keys.per_example(key, batch["index"])`, so that it does not
    depend on how the batch is split over devices.

    Attributes:
      name: the model's file name in `rnngen_jax/models`.
      spec: the images that it was built for.
      conditional: whether `batch["label"]` and `label` matter; an unconditional model ignores them.
      init: `init(key) -> (params, extra)`.
      losses: by player, `loss(params, extra, batch, key, step) -> (scalar, Aux)`; the scalar is a
        mean over the batch, so that the mean over equal parts of a batch is the whole's.
      begins: steps after which validations count for the best checkpoint and for `patience`, in
        models whose loss has another part by then.
      likelihood: what `log_prob` is, "exact" or the name of a bound; `None` without one.
      log_prob: `log_prob(params, extra, batch, key) -> [B]`, the log-likelihood of each image in
        nats, deterministic given `key`.
      scores: the names of what `log_prob` measures, nats per item and bits per value; models of
        grids of codes have others, which cannot be taken for an image's.
      log_prob_over: for models with codes, `log_prob_over(params, extra, batch, key, count)`, the
        tighter bound log Σ p(x|c) p(c) over `count` (static) grids of codes c, the image's own and
        others that are near it, or over all grids if they are fewer.
      sample: `sample(params, extra, key, num, label, temperature) -> [num, *spec.shape]`, of
        `spec.dtype` in `[0, spec.levels)`; `num` is static, `label` is int32 `[num]` or `None`.
      complete: `complete(params, extra, key, image, known, label, temperature, candidates) ->
        Completion` keeps the pixels of `image` (`[N, *spec.shape]`) where `known` (bool, without
        the axis of channels) and draws the others. As `candidates` (static), the number of weighted
        draws to choose from, grows, their distribution approaches that of the images of `sample`
        given the known pixels.
      candidates: default number of weighted draws that `complete` chooses from.
      conditionals: for autoregressive models, `conditionals(params, extra, image, label)` gives the
        raw outputs `[B, H, W, C, P]` of every value given those before it, all at once.
      walk: the same step by step, as in sampling: takes the arguments of `complete` except
        `candidates`, and returns one draw and the raw outputs from which each of its values was
        drawn.
      guided: `guided(params, extra, key, evidence [B, *spec.shape, L], label, temperature)` samples
        with the distribution of each value, given those before it, times exp(evidence).
      steps: the same as single steps, for callers that sample or code one value at a time
        (`models.autoregressive.Steps`).
      stages: for models with several stages, all of them in the order in which they are coded
        (`models.autoregressive.Stage`); empty for models with `steps` alone.
      log_probs: for autoregressive models, the distribution that raw outputs describe,
        `log_probs(raw [..., P], temperature=1.0) -> [..., L]`, nats for each grey level.
      masses: the probabilities of intervals of levels, as in `ops.likelihoods.PixelLikelihood`;
        `None` where they take as long as those of all levels.
      latent: functions of latent-variable models (`Latent`).
      sequential: functions of models of frames (`Sequential`).
      codes: for models with a codebook, what a prior over its codes needs (`models.codes.Codes`).
      lossy: for models with a codebook, coding of images by their codes alone
        (`models.codes.Lossy`).
      log_probs_under: for models with codes, `log_prob` under each prior that `evaluate` reports,
        by name; `log_prob` itself is the one under the model's own.
      classify: for classifiers, `classify(params, extra, image) -> (features, logits)`, from uint8
        `[B, H, W, C]` to float32 `[B, F]`, for comparing images, and `[B, K]` class logits; without
        dropout.
      activations: for classifiers, `activations(params, extra, image)`, those of every layer,
        float32 `[B, ..., F]`, from the first to the one that `classify` returns; differentiable
        with respect to the image, float32 `[B, H, W, C]` in [0, 1].
    """

    name: str
    spec: ImageSpec
    conditional: bool
    init: Callable[[Array], tuple[Params, Extra]]
    losses: Mapping[str, Loss]
    begins: int = 0
    likelihood: str | None = None
    log_prob: Callable[[Params, Extra, Batch, Array], Array] | None = None
    scores: tuple[str, str] = ("nats_per_image", "bits_per_dim")
    log_prob_over: Callable[[Params, Extra, Batch, Array, int], Array] | None = None
    sample: Callable[..., Array] | None = None
    complete: Callable[..., Completion] | None = None
    candidates: int = 1
    conditionals: Callable[..., Array] | None = None
    walk: Callable[..., tuple[Array, Array]] | None = None
    guided: Callable[..., Array] | None = None
    steps: Any = None
    stages: tuple[Any, ...] = ()
    log_probs: Callable[..., Array] | None = None
    masses: Callable[[Array, Array, int, int], Array] | None = None
    latent: Latent | None = None
    sequential: Sequential | None = None
    codes: Any = None
    lossy: Any = None
    log_probs_under: Mapping[str, Callable[[Params, Extra, Batch, Array], Array]] = {}
    classify: Callable[[Params, Extra, Array], tuple[Array, Array]] | None = None
    activations: Callable[[Params, Extra, Array], tuple[Array, ...]] | None = None


def sampler(draw: Callable[[Params, Extra, Array, Array, Scalar], Array]) -> Callable[..., Array]:
    """`Model.sample` or `Latent.prior`, from a function that always has labels.

    Args:
      draw: `draw(params, extra, key, label [num], temperature)`.
    """

    def sample(
        params: Params,
        extra: Extra,
        key: Array,
        num: int,
        label: Array | None = None,
        temperature: Scalar = 1.0,
    ) -> Array:
        return draw(params, extra, key, labels_for(label, num), temperature)

    return sample


def completer(fill: Callable[..., Any], **defaults: int) -> Callable[..., Any]:
    """`Model.complete` or `Model.walk`, from a function that always has labels.

    Args:
      fill: `fill(params, key, given, label [N], temperature, **options)`; it does not read `extra`.
      defaults: of the options, such as `candidates`.
    """

    def complete(
        params: Params,
        extra: Extra,
        key: Array,
        image: Array,
        known: Array,
        label: Array | None = None,
        temperature: Scalar = 1.0,
        **options: int,
    ) -> Any:
        del extra
        label = labels_for(label, image.shape[0])
        return fill(params, key, Given(image, known), label, temperature, **defaults | options)

    return complete


def dropout_masks(train: Train, sizes: tuple[int, int], rate: float) -> tuple[Array, Array] | None:
    """Dropout masks for a network's inputs `[B, D]` and outputs `[B, F]`.

    `None` without dropout: outside of training, or at a rate of 0.
    """
    if train is None or not rate:
        return None
    key, index = train
    parts = zip(("input", "output"), sizes, strict=True)
    inputs, outputs = (
        dropout.mask(keys.per_example(keys.named(key, name), index), size, rate)
        for name, size in parts
    )
    return inputs, outputs


def require_dropout(rate: float) -> None:
    """Raises a `UserError` unless `rate` is a dropout rate."""
    require(0 <= rate < 1, "config.model.dropout", rate, "in [0, 1)")


def require_mixture_read(section: Any) -> None:
    """Raises an `UnreadError` if `mixtures` is set and `readout` is no mixture."""
    if section.readout != "logistic_mixture":
        remedy = ", or set config.model.readout to logistic_mixture"
        refuse_unread(section, "config.model", "mixtures", ("readout",), remedy=remedy)


def require_classes(conditional: bool, spec: ImageSpec) -> None:
    """Raises a `UserError` for a conditional model of data without labels."""
    require(
        not conditional or spec.classes > 0,
        "config.model.class_conditional",
        conditional,
        "False for a data set without labels",
    )


def labels_for(label: Array | None, num: int) -> Array:
    """Labels as an array, zeros where an unconditional model is given none."""
    return jnp.zeros(num, jnp.int32) if label is None else label
