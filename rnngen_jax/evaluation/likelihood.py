"""The ruler: the likelihood of a whole split, the same for every model, with its protocol."""

import functools
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array

from rnngen_jax import keys
from rnngen_jax.config import require
from rnngen_jax.data.base import Dataset, Split
from rnngen_jax.errors import UserError
from rnngen_jax.models.base import Batch, Extra, Model, Params

Transform = Callable[[Batch, Array], Batch]
Score = Callable[[Params, Extra, Batch, Array], Array]

# Evaluation noise (dynamic binarisation, importance samples) has one fixed seed, so that two
# evaluations of the same parameters agree to the last digit.
SEED = 0


@dataclass(frozen=True)
class EvaluationConfig:
    """How likelihoods are measured.

    Attributes:
      batch_size: images scored at once; it does not change the numbers.
      num_images: images at the start of the validation split that are scored during training;
        0 scores them all. `evaluate` always scores the whole split.
    """

    batch_size: int = 200
    num_images: int = 0

    def __post_init__(self) -> None:
        require(self.batch_size >= 1, "config.evaluation.batch_size", self.batch_size, "1 or more")
        require(
            self.num_images >= 0,
            "config.evaluation.num_images",
            self.num_images,
            "0 for the whole split, or 1 or more",
        )


class Result(NamedTuple):
    """The likelihood of a split; each mean has the standard error of a mean over images.

    Attributes:
      nats_per_image: mean negative log-likelihood of an image.
      nats_per_image_error: its standard error; 0 for a single image.
      bits_per_dim: the same, in bits per pixel and channel.
      bits_per_dim_error: its standard error.
      num_images: how many images were scored.
    """

    nats_per_image: float
    nats_per_image_error: float
    bits_per_dim: float
    bits_per_dim_error: float
    num_images: int


def scorer(model: Model, transform: Transform) -> Score:
    """The jitted `score(params, extra, batch, key) -> nats [B]` that `evaluate` calls.

    Make it once and hand it to every `evaluate` of the same model: each call of `scorer` compiles
    anew.

    Raises:
      UserError: the model has no likelihood.
    """
    if model.log_prob is None:
        raise UserError(f"{model.name} has no likelihood; only its samples can be looked at.")
    log_prob = model.log_prob

    @jax.jit
    def score(params: Params, extra: Extra, batch: Batch, key: Array) -> Array:
        batch = transform(batch, keys.named(key, "transform"))
        return -log_prob(params, extra, batch, keys.named(key, "log_prob"))

    return score


def evaluate(
    score: Score,
    params: Params,
    extra: Extra,
    split: Split,
    dims: int,
    batch_size: int,
    num_images: int = 0,
    track: Callable[[range], Iterable[int]] = iter,
) -> Result:
    """Scores each image of a split exactly once, in batches of one shape.

    The last batch is filled up with copies of its first image, which are not counted. Noise is
    keyed by an image's index, and sums are taken in float64 on the host, so that the result does
    not depend on the batch size beyond float32 rounding inside the model.

    Args:
      score: from `scorer`.
      params, extra: the model's parameters and state.
      split: the images.
      dims: values in one image, `ImageSpec.dims`.
      batch_size: images scored at once.
      num_images: how many images, from the split's start; 0 for them all.
      track: wraps the range over batches, such as a progress bar.

    Returns:
      The split's likelihood; not finite if that of any image is not.
    """
    total = min(num_images, split.num) if num_images else split.num
    batch_size = min(batch_size, total)
    key = jax.random.key(SEED)
    nats = np.empty(total, np.float64)
    pending: list[tuple[int, Array]] = []
    for start in track(range(0, total, batch_size)):
        index = np.arange(start, min(start + batch_size, total), dtype=np.int32)
        padded = np.concatenate([index, np.full(batch_size - index.size, start, np.int32)])
        image, label = split.read(padded)
        batch = {"image": image, "label": label, "index": padded}
        pending.append((start, score(params, extra, batch, key)))
        if len(pending) > 1:  # the device is at work on the newest while this one is read
            _store(nats, *pending.pop(0))
    _store(nats, *pending.pop(0))
    with np.errstate(
        invalid="ignore"
    ):  # the caller says what a likelihood that is not finite means
        mean = float(nats.mean())
        error = float(nats.std(ddof=1) / math.sqrt(total)) if total > 1 else 0.0
    bits = 1 / (dims * math.log(2))
    return Result(mean, error, mean * bits, error * bits, total)


def validator(
    model: Model, transform: Transform, dataset: Dataset, config: EvaluationConfig
) -> Callable[[Params, Extra], dict[str, float]]:
    """`validate(params, extra) -> metrics` on the validation split, for the training loop.

    The first metric, `bits_per_dim`, is the one that decides which checkpoint is best.

    Raises:
      UserError: the model has no likelihood.
    """
    score = scorer(model, transform)
    measure = functools.partial(
        evaluate,
        score,
        split=dataset.splits["validation"],
        dims=model.spec.dims,
        batch_size=config.batch_size,
        num_images=config.num_images,
    )

    def validate(params: Params, extra: Extra) -> dict[str, float]:
        result = measure(params, extra)
        return {"bits_per_dim": result.bits_per_dim, "nats_per_image": result.nats_per_image}

    return validate


def protocol(
    model: Model, dataset: Dataset, split: str, num_images: int, replicas: int = 1
) -> dict[str, Any]:
    """What a likelihood means: numbers whose protocols differ must never be compared.

    Returns:
      `likelihood` ("exact" or the bound's name), `levels`, `binarisation`, `dataset`, `split` and
      `num_images`; under dynamic binarisation also the `seed` of the one draw that was scored; for
      the mean over several replicas of a run also how many `replicas`.
    """
    facts: dict[str, Any] = {
        "likelihood": model.likelihood,
        "dataset": dataset.name,
        "levels": dataset.spec.levels,
        "binarisation": dataset.binarisation,
        "split": split,
        "num_images": num_images,
    }
    if dataset.binarisation == "dynamic":
        facts["seed"] = SEED
    if replicas > 1:
        facts["replicas"] = replicas
    return facts


def describe(facts: Mapping[str, Any]) -> str:
    """A protocol in one line, for people."""
    likelihood = f"{facts['likelihood']} likelihood"
    binarisation = facts["binarisation"]
    drawn = "not binarised" if binarisation == "none" else f"{binarisation} binarisation"
    seed = f" with seed {facts['seed']}" if "seed" in facts else ""
    replicas = f", mean over {facts['replicas']} replicas" if "replicas" in facts else ""
    return (
        f"{likelihood}, {facts['levels']} levels, {drawn}{seed}, "
        f"{facts['num_images']} images of {facts['dataset']}'s {facts['split']} split{replicas}"
    )


def _store(nats: np.ndarray, start: int, batch: Array) -> None:
    """Puts a batch's nats in their place, dropping what was padding."""
    values = np.asarray(batch, np.float64)[: nats.size - start]
    nats[start : start + values.size] = values
