"""The likelihood of a whole split, measured alike for every model, with its protocol."""

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array

from rnngen_jax import keys
from rnngen_jax.config import require
from rnngen_jax.data import codes as stored
from rnngen_jax.data.base import DataConfig
from rnngen_jax.data.binarise import DRAW
from rnngen_jax.errors import UserError
from rnngen_jax.evaluation.batching import Batches
from rnngen_jax.evaluation.spread import spread
from rnngen_jax.models.base import Batch, Extra, Model, Params

Transform = Callable[[Batch, Array], Batch]
Score = Callable[[Params, Extra, Batch, Array], Array]

# The fixed seed of evaluation noise (dynamic binarisation, importance samples): two evaluations of
# the same parameters agree to the last digit.
SEED = 0

# Importance samples per image that are held in memory at once.
CHUNK = 10


@dataclass(frozen=True)
class EvaluationConfig:
    """Settings for measuring likelihoods and judging samples.

    Attributes:
      batch_size: images scored at once; it does not change the numbers.
      num_images: images at the start of the validation split that are scored during training; 0
        for all. `evaluate` scores a whole split unless --num is given.
      classifier: folder of a run of the config `classifier`, in whose features each validation
        during training compares samples with those images; empty for none.
      num_samples: number of samples to compare.
    """

    batch_size: int = 200
    num_images: int = 0
    classifier: str = ""
    num_samples: int = 1000

    def __post_init__(self) -> None:
        require(self.batch_size >= 1, "config.evaluation.batch_size", self.batch_size, "≥ 1")
        given, allowed = self.num_samples, "≥ 4"
        require(given >= 4, "config.evaluation.num_samples", given, allowed)
        require(
            self.num_images >= 0,
            "config.evaluation.num_images",
            self.num_images,
            "≥ 1, or 0 for the whole split",
        )


class Result(NamedTuple):
    """The likelihood of a split, as means over images with their standard errors.

    Attributes:
      nats_per_image: mean negative log-likelihood of an image.
      nats_per_image_error: its standard error; 0 for a single image.
      bits_per_dim: the same mean in bits per pixel and channel.
      bits_per_dim_error: its standard error.
      num_images: number of images scored.
    """

    nats_per_image: float
    nats_per_image_error: float
    bits_per_dim: float
    bits_per_dim_error: float
    num_images: int


def scorer(model: Model, transform: Transform, samples: int = 0, candidates: int = 0) -> Score:
    """The jitted `score(params, extra, batch, key) -> nats [B]` that `evaluate` calls.

    Make it once and pass it to every `evaluate` of the same model: each call of `scorer` compiles
    again.

    Args:
      model: the model.
      transform: applied to each batch first.
      samples: number of samples of the importance-weighted bound; 0 for the model's own `log_prob`.
      candidates: number of grids of codes of the bound over several; 0 for that of one.

    Raises:
      UserError: the model has no likelihood, no importance-weighted bound, or no codes.
    """
    log_prob = model.log_prob
    if log_prob is None:
        raise UserError(f"{model.name} has no likelihood here; {_instead(model)}.")
    if samples:
        log_prob = _importance(model, samples)
    if candidates:
        log_prob = _over_candidates(model, candidates)

    @jax.jit
    def score(params: Params, extra: Extra, batch: Batch, key: Array) -> Array:
        batch = transform(batch, keys.named(key, "transform"))
        return -log_prob(params, extra, batch, keys.named(key, "log_prob"))

    return score


def _instead(model: Model) -> str:
    """What can be measured of a model without a likelihood, for a message."""
    if model.latent is None:
        return "only its samples can be looked at"
    return "its latents have no prior, so only its reconstructions can be measured"


def _importance(model: Model, samples: int) -> Callable[..., Array]:
    """A model's importance-weighted bound, with the signature of `log_prob`."""
    if model.latent is None or model.latent.importance is None:
        raise UserError(
            f"--iw_samples={samples}: the likelihood of {model.name} is {model.likelihood}, "
            "with no latents to draw; leave --iw_samples out."
        )
    return functools.partial(model.latent.importance, samples=samples, chunk=CHUNK)


def _over_candidates(model: Model, candidates: int) -> Callable[..., Array]:
    """The bound over several grids of codes, with the signature of `log_prob`."""
    if model.log_prob_over is None:
        raise UserError(
            f"--code_candidates={candidates}: {model.name} has no codes to sum over; "
            "leave --code_candidates out."
        )
    return functools.partial(model.log_prob_over, count=candidates)


def evaluate(score: Score, params: Params, extra: Extra, batches: Batches, dims: int) -> Result:
    """The likelihood of a split, from `nats_of_each`.

    Args:
      score, params, extra, batches: as for `nats_of_each`.
      dims: values in one image, `ImageSpec.dims`.

    Returns:
      The split's likelihood; not finite if that of any image is not.
    """
    each = nats_of_each(score, params, extra, batches)
    total = len(each)
    with np.errstate(invalid="ignore"):  # callers report a likelihood that is not finite
        mean = float(each.mean())
        error = float(each.std(ddof=1) / math.sqrt(total)) if total > 1 else 0.0
    bits = 1 / (dims * math.log(2))
    return Result(mean, error, mean * bits, error * bits, total)


def nats_of_each(score: Score, params: Params, extra: Extra, batches: Batches) -> np.ndarray:
    """Scores each image of a split exactly once, in batches of one shape.

    Noise is keyed by an image's index, and the result is float64, so that a mean over it does not
    depend on the batch size beyond float32 rounding inside the model.

    Args:
      score: from `scorer`.
      params, extra: the model's parameters and state.
      batches: from `split_batches`.

    Returns:
      The negative log-likelihood of each image in nats, float64 `[N]`.
    """
    key = jax.random.key(SEED)
    nats = [values[:num] for num, values in spread(score)(params, extra, batches, key)]
    return np.concatenate(nats).astype(np.float64)


def ruler(model: Model, data: DataConfig, samples: int = 0) -> dict[str, Any]:
    """The part of `protocol` that does not depend on a split, and holds for single images."""
    facts = {
        "likelihood": f"IW-{samples}" if samples else model.likelihood,
        "dataset": data.name,
        "levels": model.spec.levels,
        "binarisation": data.binarisation,
    }
    of = stored.origin(data.name)
    return facts if of is None else {**facts, "codes": of.digest}


def protocol(
    model: Model,
    data: DataConfig,
    split: str,
    num_images: int,
    seeds: int = 1,
    samples: int = 0,
    candidates: int = 0,
) -> dict[str, Any]:
    """The conditions under which a likelihood was measured.

    Numbers with different protocols are never compared.

    Returns:
      `likelihood` ("exact" or the bound's name, such as "ELBO" or "IW-1000"), `levels`,
      `binarisation`, `dataset`, `split` and `num_images`; under static binarisation also the
      version of the `draw`, under dynamic the `seed` of the draw that was scored; for the mean over
      several seeds of a run also the number of `seeds`; of grids of codes, `codes`, the digest of
      their tokenizer; where the bound was measured over several grids of codes, too, their number
      as `code_candidates`.
    """
    facts = {**ruler(model, data, samples), "split": split, "num_images": num_images}
    if candidates:
        facts["code_candidates"] = candidates
    if data.binarisation == "static":
        facts["draw"] = DRAW
    if data.binarisation == "dynamic":
        facts["seed"] = SEED
    if seeds > 1:
        facts["seeds"] = seeds
    return facts


def describe(facts: Mapping[str, Any]) -> str:
    """A protocol as one readable line."""
    kind = facts["likelihood"]
    likelihood = "exact likelihood" if kind == "exact" else f"{kind}, a bound of the likelihood"
    likelihood = "no likelihood" if kind is None else likelihood
    binarisation = facts["binarisation"]
    drawn = "not binarised" if binarisation == "none" else f"{binarisation} binarisation"
    draw = f", draw {facts['draw']}" if "draw" in facts else ""
    seed = f" with seed {facts['seed']}" if "seed" in facts else ""
    seeds = f", mean over {facts['seeds']} seeds" if "seeds" in facts else ""
    if "code_candidates" in facts:
        count = facts["code_candidates"]
        likelihood = f"{likelihood}; `candidates` is summed over {count} grids of codes"
    what = "images"
    if "codes" in facts:
        likelihood, what = f"{likelihood} of codes alone, not of images", "grids"
    return (
        f"{likelihood}, {facts['levels']} levels, {drawn}{draw}{seed}, "
        f"{facts['num_images']} {what} of {facts['dataset']}'s {facts['split']} split{seeds}"
    )
