"""Evaluation of a run: its likelihood on a split, its latents, and its samples under a judge."""

import datetime
import math
import platform
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import jax

import rnngen_jax
from rnngen_jax.config import require, require_choice
from rnngen_jax.data.base import SPLITS
from rnngen_jax.data.transforms import evaluation_transform
from rnngen_jax.errors import RunError, UserError
from rnngen_jax.evaluation import (
    classifying,
    container,
    forecasting,
    latents,
    likelihood,
    records,
)
from rnngen_jax.evaluation.batching import Batches, split_batches
from rnngen_jax.evaluation.inception import Inception
from rnngen_jax.models.base import Model
from rnngen_jax.runs import judging
from rnngen_jax.runs.judging import Asked
from rnngen_jax.runs.run import Run
from rnngen_jax.training.seeds import gather, summarise

PACKAGES = ("jax", "jaxlib", "flax", "numpy")


def evaluate(run: Run | Sequence[Run], split: str = "test", **options: Any) -> records.Record:
    """Measures a run on a split, and appends the record to the run's evaluations.jsonl.

    Of several processes, all measure, and the first writes.

    Args:
      run, split: as for `measure`.
      **options: those of `measure`.

    Returns:
      The record.

    Raises:
      UserError, RunError: as `measure`.
      OSError: the record cannot be written.
    """
    record = measure(run, split, **options)
    first = run if isinstance(run, Run) else run[0]
    if jax.process_index() == 0:
        records.add(first.workdir, record)
    return record


def measure(
    run: Run | Sequence[Run],
    split: str = "test",
    *,
    num: int = 0,
    iw_samples: int = 0,
    code_candidates: int = 0,
    protocol: str = "strict",
    judge: classifying.Judge | None = None,
    network: Inception | None = None,
    samples: int | None = None,
    seed: int = 0,
    temperature: float = 1.0,
) -> records.Record:
    """Measures a run on a split, without writing anything.

    Args:
      run: a run, or several seeds of one; their metrics are averaged, with the standard error.
      split: "train", "validation" or "test".
      num: number of images, from the start of the split; 0 for all.
      iw_samples: draws of the importance-weighted bound; 0 for the model's own likelihood.
      code_candidates: grids of codes of a tighter bound, reported beside the model's own; 0 for
        none.
      protocol: of the errors of predicted frames, one of `forecasting.PROTOCOLS`.
      judge: a classifier (`judging.open_judge`); if given, samples are compared with the split's
        images in its features.
      network: the Inception network, likewise.
      samples: number of samples to judge; by default as many as the split has images.
      seed, temperature: of the samples.

    Returns:
      The record: its `format`, `step`, `digest` of the model and its parameters, `dataset`,
      `split`, `num_images` of the split's `split_images`, `metrics` (such as `bits_per_dim` and
      `bits_per_dim_error`; of codes `code_nats` and `bits_per_code`), `protocol`, `versions`
      and `time`; where they apply `seed`, `seed_index`, `latents` (lists `[S, Z]` per variable),
      `forecast` (lists per frame, of each seed), `samples` and `inception`.

    Raises:
      UserError: an invalid argument, a model with nothing to measure or without that bound, or
        missing data.
      RunError: a likelihood that is not finite.
    """
    opened = [run] if isinstance(run, Run) else list(run)
    opens = "a Run, such as load(WORKDIR), or a sequence of them"
    require(bool(opened) and all(isinstance(each, Run) for each in opened), "run", run, opens)
    require_choice("split", split, SPLITS)
    require(num >= 0, "num", num, "≥ 1, or 0 for all")
    allowed = "≥ 1, or 0 for none"
    require(code_candidates >= 0, "code_candidates", code_candidates, allowed)
    require_choice("protocol", protocol, forecasting.PROTOCOLS)
    first = opened[0]
    _check_measurable(first.model, judge is not None or network is not None)
    sample = None
    if judge is not None or network is not None:
        sample = classifying.sampler(first.model, first.dataset, track=first.track)
    scores = _measure(opened, split, num, iw_samples, code_candidates)
    usages = _inspect(opened, split, num)
    forecasts = _forecast(opened, split, num, protocol)
    parts = (scores, [usage for usage, _ in usages], [each.metrics() for each in forecasts])
    each = [
        dict(pair for part in parts if part for pair in part[n].items()) for n in range(len(opened))
    ]
    available = first.dataset.splits[split].num
    num_images = min(num, available) if num else available
    settings = first.experiment
    record = {
        "format": records.FORMAT,
        "step": first.step,
        "digest": _digest(opened),
        "dataset": settings.data.name,
        "split": split,
        "num_images": num_images,
        "split_images": available,
        "metrics": summarise(gather(each), first.seed),
        "protocol": likelihood.protocol(
            first.model,
            settings.data,
            split,
            num_images,
            len(opened),
            iw_samples,
            code_candidates,
        ),
        "versions": _versions(),
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    if len(opened) < settings.training.seeds:  # one of several
        record |= {"seed": first.seed, "seed_index": first.seed_index}
    if first.model.latent is not None:
        record["latents"] = [arrays for _, arrays in usages]
    if forecasts:
        record["forecast"] = [of_seed.arrays() for of_seed in forecasts]
        lengths = {"context": forecasts[0].context, "horizon": forecasts[0].horizon}
        record["protocol"] |= {"frames": protocol, **lengths}
    asked = Asked(split, samples, seed, temperature)
    if judge is not None:
        record["samples"] = judging.by_classifier(judge, sample, opened, asked)
    if network is not None:
        record["inception"] = judging.by_inception(network, sample, opened, asked)
    return record


def _check_measurable(model: Model, judged: bool) -> None:
    """Raises a `UserError` for a model with nothing to measure, unless its samples are judged."""
    has = (model.log_prob, model.latent, model.classify, model.sequential)
    if not judged and all(part is None for part in has):
        raise UserError(
            f"{model.name} has neither a likelihood nor latents; give --classifier=FOLDER to have "
            "its samples judged, by a run of the config classifier."
        )


def _measure(
    opened: Sequence[Run], split: str, num: int, iw_samples: int, code_candidates: int
) -> list[dict[str, float]]:
    """The likelihood metrics of each seed, from one compiled program; empty without a likelihood.

    An importance-weighted bound comes with the ELBO. A classifier has its accuracy instead.
    """
    first = opened[0]
    transform = evaluation_transform(first.dataset)
    asked = bool(iw_samples or code_candidates)
    if first.model.classify is not None and not asked:
        classified = classifying.scorer(first.model, transform)
        return [
            classifying.measure(classified, run.params, run.extra, _batches(first, split, num))
            for run in opened
        ]
    if first.model.log_prob is None and not asked:
        return [{} for _ in opened]
    score = likelihood.scorer(first.model, transform, iw_samples)
    own = likelihood.scorer(first.model, transform) if iw_samples else None
    under = {
        name: likelihood.scorer(first.model._replace(log_prob=log_prob), transform)
        if log_prob is not first.model.log_prob
        else score
        for name, log_prob in first.model.log_probs_under.items()
    }
    if code_candidates:
        under["candidates"] = likelihood.scorer(first.model, transform, candidates=code_candidates)

    def evaluated(score: likelihood.Score, run: Run) -> likelihood.Result:
        batches = _batches(first, split, num)
        result = likelihood.evaluate(score, run.params, run.extra, batches, run.spec.dims)
        if not math.isfinite(result.nats_per_image):
            whose = f" of seed {run.seed}" if run.experiment.training.seeds > 1 else ""
            raise RunError(
                f"the likelihood{whose} of {run.workdir} at step {run.step} is not finite; "
                "give another --checkpoint."
            )
        return result

    found = []
    for run in opened:
        result = evaluated(score, run)
        nats, bits = first.model.scores
        metrics = {
            nats: result.nats_per_image,
            f"{nats}_error": result.nats_per_image_error,
            bits: result.bits_per_dim,
            f"{bits}_error": result.bits_per_dim_error,
        }
        if own is not None:
            metrics["elbo_nats_per_image"] = evaluated(own, run).nats_per_image
        for name, other in under.items():
            row = result if other is score else evaluated(other, run)
            metrics[f"{name}_{bits}"] = row.bits_per_dim
            metrics[f"{name}_{bits}_error"] = row.bits_per_dim_error
        found.append(metrics)
    return found


def _batches(run: Run, split: str, num: int) -> Batches:
    """The first `num` images of a run's split in batches; 0 for all."""
    size = run.experiment.evaluation.batch_size
    return split_batches(run.dataset.splits[split], size, num, run.track)


def _inspect(
    opened: Sequence[Run], split: str, num: int
) -> list[tuple[dict[str, float], dict[str, Any]]]:
    """The use of latents by each seed: scalars, and lists `[S, Z]` by name."""
    first = opened[0]
    if first.model.latent is None:
        return [({}, {}) for _ in opened]
    look = latents.inspector(first.model, evaluation_transform(first.dataset))
    found = []
    for run in opened:
        batches, levels = _batches(first, split, num), latents.levels_of(first.model)
        usage = latents.measure(look, run.params, run.extra, batches, levels)
        arrays = {"variance": usage.variance.tolist()}
        if usage.kl is not None:
            arrays["kl"] = usage.kl.tolist()
        found.append((usage.metrics(), arrays))
    return found


def _forecast(
    opened: Sequence[Run], split: str, num: int, protocol: str
) -> list[forecasting.Forecasts]:
    """How well each seed predicts frames; empty for models of still images."""
    first = opened[0]
    if first.model.sequential is None:
        return []
    lengths = first.experiment.data.lengths(first.spec.frames)
    transform = evaluation_transform(first.dataset)
    look = forecasting.looker(first.model, transform, lengths, protocol)
    return [
        forecasting.measure(look, run.params, run.extra, _batches(first, split, num), lengths)
        for run in opened
    ]


def _digest(opened: Sequence[Run]) -> str:
    """A digest of the model and its parameters, those of all seeds if there are several."""
    each = [run.digest for run in opened]
    return (each[0] if len(each) == 1 else container.digest(each)).hex()


def _versions() -> dict[str, str]:
    """Versions of the software that the numbers depend on."""
    packages = {name: version(name) for name in PACKAGES}
    return {
        "rnngen_jax": rnngen_jax.__version__,
        "python": platform.python_version(),
        **packages,
    }
