"""Measurements on the validation split during training."""

import functools
from collections.abc import Callable, Sequence

import numpy as np

from rnngen_jax.data.base import Dataset
from rnngen_jax.evaluation import classifying, fidelity, latents, likelihood
from rnngen_jax.evaluation.batching import Track, split_batches
from rnngen_jax.evaluation.classifying import Judge
from rnngen_jax.evaluation.likelihood import SEED, EvaluationConfig, Transform
from rnngen_jax.models.base import Extra, Model, Params

Validate = Callable[[Params, Extra], dict[str, float]]

# The entries of `Fidelity.metrics` that each validation records, beside the classes' shares.
JUDGED = ("frechet", "precision", "recall", "confidence", "missing_classes")


def validator(
    model: Model,
    transform: Transform,
    dataset: Dataset,
    config: EvaluationConfig,
    judge: Judge | None = None,
    warn: Callable[[str], None] = print,
    track: Track = iter,
) -> Validate | None:
    """`validate(params, extra) -> metrics` on the validation split, for the training loop.

    The first metric decides which checkpoint is best: `bits_per_dim`, `bits_per_code` of grids of
    codes, the `cross_entropy` of a classifier, the `reconstruction_nats` of a model that
    reconstructs images but has no likelihood, or the `frechet` of one that can only sample.
    Latent-variable models add the metrics of `latents.Usage`. With a judge, models that sample add
    those of `JUDGED` and `class_share/<k>`: `config.num_samples` samples, of the same noise each
    time, against the validation images.

    Args:
      model: the model.
      transform: applied to each batch first.
      dataset: the data.
      config: how much is measured; the caller opens the judge that its `classifier` names.
      judge: judges the samples; `None` for no samples.
      warn: called with a line for each validation whose samples lack classes, or whose images use
        few of a codebook's codes.
      track: wraps each range over batches; it may raise to end the validation.

    Returns:
      `None` for a model with nothing to measure.

    Raises:
      UserError: a judge is given and the model cannot sample.
    """
    split = dataset.splits["validation"]
    batches = functools.partial(
        split_batches, split, config.batch_size, config.num_images, track=track
    )
    parts: list[Validate] = []
    if model.log_prob is not None:
        score, (nats, bits) = likelihood.scorer(model, transform), model.scores

        def of_likelihood(params: Params, extra: Extra) -> dict[str, float]:
            result = likelihood.evaluate(score, params, extra, batches(), model.spec.dims)
            return {bits: result.bits_per_dim, nats: result.nats_per_image}

        parts.append(of_likelihood)
    if model.classify is not None:
        classified = classifying.scorer(model, transform)
        parts.append(
            lambda params, extra: classifying.measure(classified, params, extra, batches())
        )
    if model.latent is not None:
        inspect = latents.inspector(model, transform)
        levels = latents.levels_of(model)

        def of_latents(params: Params, extra: Extra) -> dict[str, float]:
            usage = latents.measure(inspect, params, extra, batches(), levels)
            for line in usage.warnings():
                warn(line)
            return usage.metrics()

        parts.append(of_latents)
    if judge is not None:
        parts.append(_of_samples(model, dataset, config, judge, warn, track))
    if not parts:
        return None

    def validate(params: Params, extra: Extra) -> dict[str, float]:
        return {name: value for part in parts for name, value in part(params, extra).items()}

    return validate


def _of_samples(
    model: Model,
    dataset: Dataset,
    config: EvaluationConfig,
    judge: Judge,
    warn: Callable[[str], None],
    track: Track,
) -> Validate:
    """The part of a validation that judges samples."""
    sample = classifying.sampler(model, dataset, track=track)
    available = dataset.splits["validation"].num
    num_real = min(config.num_images or available, available)

    @functools.cache  # computed once, by the first validation
    def real() -> fidelity.Features:
        read = classifying.reader(dataset, "validation")
        return classifying.of_split(judge.classify, read, np.arange(num_real))

    def validate(params: Params, extra: Extra) -> dict[str, float]:
        images = sample(params, extra, config.num_samples, SEED, 1.0)
        found = fidelity.compare(real(), classifying.of_images(judge.classify, images))
        if len(found.missing):
            warn(collapse(found.missing.tolist()))
        metrics = found.metrics()
        shares = [name for name in metrics if name.startswith("class_share/")]
        return {name: metrics[name] for name in (*JUDGED, *shares)}

    return validate


def collapse(missing: Sequence[int]) -> str:
    """The line that warns of one or more missing classes."""
    which = f"class {missing[0]} is" if len(missing) == 1 else None
    which = which or f"classes {', '.join(map(str, missing))} are"
    return f"mode collapse: {which} less than a tenth as frequent in samples as in the data."
