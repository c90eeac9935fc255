"""What is measured on the validation split in training."""

import functools
from collections.abc import Callable

from rnngen_jax.data.base import Dataset
from rnngen_jax.evaluation import latents, likelihood
from rnngen_jax.evaluation.likelihood import EvaluationConfig, Transform
from rnngen_jax.models.base import Extra, Model, Params

Validate = Callable[[Params, Extra], dict[str, float]]


def validator(
    model: Model, transform: Transform, dataset: Dataset, config: EvaluationConfig
) -> Validate | None:
    """`validate(params, extra) -> metrics` on the validation split, for the training loop.

    The first metric decides which checkpoint is best: `bits_per_dim`, or the `reconstruction_nats`
    of a model that rebuilds images but has no likelihood. Models of latent variables have the
    metrics of `latents.Usage` besides.

    Returns:
      `None` for a model with neither a likelihood nor latents.
    """
    split = dataset.splits["validation"]
    where = {"batch_size": config.batch_size, "num_images": config.num_images}
    parts: list[Validate] = []
    if model.log_prob is not None:
        score = likelihood.scorer(model, transform)
        measure = functools.partial(
            likelihood.evaluate, score, split=split, dims=model.spec.dims, **where
        )

        def of_likelihood(params: Params, extra: Extra) -> dict[str, float]:
            result = measure(params, extra)
            return {"bits_per_dim": result.bits_per_dim, "nats_per_image": result.nats_per_image}

        parts.append(of_likelihood)
    if model.latent is not None:
        look = functools.partial(
            latents.measure, latents.inspector(model, transform), split=split, **where
        )
        parts.append(lambda params, extra: look(params, extra).metrics())
    if not parts:
        return None

    def validate(params: Params, extra: Extra) -> dict[str, float]:
        return {name: value for part in parts for name, value in part(params, extra).items()}

    return validate
