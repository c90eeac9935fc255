"""The model contract: what the trainer, the evaluator and the samplers ask of a generator."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from rnngen_jax import keys
from rnngen_jax.config import require
from rnngen_jax.ops import dropout
from rnngen_jax.shapes import ImageSpec

Params = dict[str, Any]  # {player: nested dict of arrays}
Extra = dict[str, Any]  # what is not trained by gradient; {} where there is nothing
Batch = Mapping[str, Array]  # "image" uint8 [B, H, W, C], "label" int32 [B], "index" int32 [B]


class Aux(NamedTuple):
    """What a loss hands back beside its value.

    Attributes:
      metrics: scalars by name, means over the batch, such as `nats_per_image`.
      extra: the model's `extra` after this step; the train step stores it.
    """

    metrics: dict[str, Array]
    extra: Extra


Loss = Callable[[Params, Extra, Batch, Array, Array], tuple[Array, Aux]]


class Model(NamedTuple):
    """A generator as a set of pure functions, built for one `ImageSpec`.

    A capability that a model lacks is `None`, and a verb that needs it says so. `params` is keyed
    by player; the loss of a player is differentiated in that player's branch alone. Noise within a
    batch is drawn from `keys.per_example(key, batch["index"])`, so that it does not depend on how
    the batch lies over devices.

    Attributes:
      name: the model's file name in `rnngen_jax/models`.
      spec: the images that it was built for.
      conditional: whether `batch["label"]` and `label` matter; an unconditional model ignores them.
      init: `init(key) -> (params, extra)`.
      losses: by player, `loss(params, extra, batch, key, step) -> (scalar, Aux)`; the scalar is a
        mean over the batch, so that the mean over equal parts of a batch is the whole's.
      likelihood: what `log_prob` is, "exact" or the name of a bound; `None` without one.
      log_prob: `log_prob(params, extra, batch, key) -> [B]`, the log-likelihood of each image in
        nats, deterministic given `key`.
      sample: `sample(params, extra, key, num, label, temperature) -> uint8 [num, H, W, C]`, grey
        levels in `[0, spec.levels)`; `num` is static, `label` is int32 `[num]` or `None`.
      complete: `complete(params, extra, key, image, known, label, temperature)` keeps the pixels of
        `image` (uint8 `[N, H, W, C]`) where `known` (bool `[N, H, W]`) and draws the others.
      conditionals: for autoregressive models, `conditionals(params, extra, image, label)` gives the
        raw outputs `[B, H, W, C, P]` of every value given those before it, all at once.
      walk: the same step by step, as the sampler goes: `walk`, with the arguments of `complete`,
        gives the completed image and the raw outputs that each of its values was drawn from.
      reconstruct, encode, decode: for models with a code; see those models.
    """

    name: str
    spec: ImageSpec
    conditional: bool
    init: Callable[[Array], tuple[Params, Extra]]
    losses: Mapping[str, Loss]
    likelihood: str | None = None
    log_prob: Callable[[Params, Extra, Batch, Array], Array] | None = None
    sample: Callable[..., Array] | None = None
    complete: Callable[..., Array] | None = None
    conditionals: Callable[..., Array] | None = None
    walk: Callable[..., tuple[Array, Array]] | None = None
    reconstruct: Callable[..., Array] | None = None
    encode: Callable[..., Array] | None = None
    decode: Callable[..., Array] | None = None


RawOutputs = Callable[[Params, Array, Array, tuple[Array, Array] | None], Array]
StepByStep = Callable[[Params, Array, Array, Array, Array, Array | float], tuple[Array, Array]]


def autoregressive_model(
    name: str,
    spec: ImageSpec,
    conditional: bool,
    init: Callable[[Array], tuple[Params, Extra]],
    raw_outputs: RawOutputs,
    step_by_step: StepByStep,
    log_prob_of: Callable[[Array, Array], Array],
) -> Model:
    """A model from the two ways through an autoregressive network, which must agree.

    Args:
      name: of the model.
      spec: the images.
      conditional: whether labels matter.
      init: as in `Model`.
      raw_outputs: the whole image at once, `raw_outputs(params, image, label, train)` to
        `[B, H, W, C, P]`; `train` is `(key, index [B])` in training, for what is random there, or
        `None`.
      step_by_step: as the sampler goes, `step_by_step(params, key, image, known, label,
        temperature)`, to what `walk` gives.
      log_prob_of: a likelihood's `log_prob`.
    """

    def conditionals(
        params: Params, extra: Extra, image: Array, label: Array | None = None
    ) -> Array:
        del extra
        return raw_outputs(params, image, labels_for(label, image.shape[0]), None)

    def score(params: Params, batch: Batch, train: tuple[Array, Array] | None) -> Array:
        raw = raw_outputs(params, batch["image"], batch["label"], train)
        return log_prob_of(raw, batch["image"].astype(jnp.int32)).sum((1, 2, 3))

    def loss(
        params: Params, extra: Extra, batch: Batch, key: Array, step: Array
    ) -> tuple[Array, Aux]:
        """Mean negative log-likelihood of a value, in nats."""
        del step
        nats = -score(params, batch, (key, batch["index"])).mean()
        per_value = nats / spec.dims
        metrics = {"nats_per_image": nats, "bits_per_dim": per_value / math.log(2)}
        return per_value, Aux(metrics, extra)

    def log_prob(params: Params, extra: Extra, batch: Batch, key: Array) -> Array:
        del extra, key
        return score(params, batch, None)

    def walk(
        params: Params,
        extra: Extra,
        key: Array,
        image: Array,
        known: Array,
        label: Array | None = None,
        temperature: Array | float = 1.0,
    ) -> tuple[Array, Array]:
        del extra
        label = labels_for(label, image.shape[0])
        completed, raw = step_by_step(params, key, image, known, label, temperature)
        return completed.astype(jnp.uint8), raw

    def complete(*arguments: Any, **named: Any) -> Array:
        return walk(*arguments, **named)[0]

    def sample(
        params: Params,
        extra: Extra,
        key: Array,
        num: int,
        label: Array | None = None,
        temperature: Array | float = 1.0,
    ) -> Array:
        nothing = jnp.zeros((num, *spec.shape), jnp.uint8)
        known = jnp.zeros((num, spec.height, spec.width), bool)
        return complete(params, extra, key, nothing, known, label, temperature)

    return Model(
        name=name,
        spec=spec,
        conditional=conditional,
        init=init,
        losses={"model": loss},
        likelihood="exact",
        log_prob=log_prob,
        sample=sample,
        complete=complete,
        conditionals=conditionals,
        walk=walk,
    )


def dropout_masks(
    key: Array, index: Array, sizes: tuple[int, int], rate: float
) -> tuple[Array, Array]:
    """Dropout masks for a cell's inputs `[B, D]` and outputs `[B, F]`, from the index `[B]`."""
    parts = zip(("input", "output"), sizes, strict=True)
    inputs, outputs = (
        dropout.mask(keys.per_example(keys.named(key, name), index), size, rate)
        for name, size in parts
    )
    return inputs, outputs


def require_dropout(rate: float) -> None:
    """Raises a `UserError` unless `rate` is a dropout rate."""
    require(0 <= rate < 1, "config.model.dropout", rate, "0 to less than 1")


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
