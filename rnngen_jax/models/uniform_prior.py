"""What a prior over grids of codes is, and the one that knows nothing: all codes equally likely."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from rnngen_jax.models.autoregressive import Steps, guided
from rnngen_jax.models.base import (
    Batch,
    Completion,
    Extra,
    Given,
    Model,
    Params,
    Scalar,
    completer,
    sampler,
)
from rnngen_jax.models.levels import NAMES, over_levels
from rnngen_jax.shapes import ImageSpec


class Prior(NamedTuple):
    """A distribution over grids of codes, as a model of them, and where its parameters are.

    Attributes:
      model: a model with `log_prob`, `conditionals`, `sample`, `complete` and `log_probs`, and with
        `steps`, or `stages` of several levels.
      params: `params(params, extra)`, its part of the parameters of the whole.
    """

    model: Model
    params: Callable[[Params, Extra], Params]


def uniform(spec: ImageSpec) -> Model:
    """All codes equally likely: log K nats each. It has no parameters."""
    row = spec.width * spec.channels

    def log_prob(params: Params, extra: Extra, batch: Batch, key: Array) -> Array:
        del params, extra, key
        num = batch[spec.key].shape[0]
        return jnp.full(num, -spec.dims * np.log(spec.levels), jnp.float32)

    def log_probs(raw: Array, temperature: Scalar = 1.0) -> Array:
        del temperature
        return jnp.full((*raw.shape[:-1], spec.levels), -np.log(spec.levels), jnp.float32)

    def conditionals(
        params: Params, extra: Extra, image: Array, label: Array | None = None
    ) -> Array:
        del params, extra, label
        return jnp.zeros((*image.shape, 1))

    def sample(
        params: Params, extra: Extra, key: Array, label: Array, temperature: Scalar
    ) -> Array:
        del params, extra, temperature
        drawn = jax.random.randint(key, (label.shape[0], *spec.shape), 0, spec.levels)
        return drawn.astype(spec.dtype)

    def fill(
        params: Params, key: Array, given: Given, label: Array, temperature: Scalar, candidates: int
    ) -> Completion:
        # Known codes say nothing of the others, so all draws weigh the same.
        drawn = sample(params, {}, key, label, temperature)
        kept = jnp.where(given.known[..., None], given.image.astype(spec.dtype), drawn)
        return Completion(kept, jnp.full(label.shape[0], candidates, jnp.float32))

    def raw_of_row(
        params: Params, label: Array, t: Array, turn: int, seen: Array
    ) -> tuple[Array, Array]:
        del params, t, turn, seen
        return label, jnp.zeros((label.shape[0], row, 1))

    starts = np.arange(spec.height, dtype=np.int32)[:, None, None] * row
    steps = Steps(starts, row, lambda params, label: label, raw_of_row)
    return Model(
        name="uniform",
        spec=spec,
        conditional=False,
        init=lambda key: ({"model": {}}, {}),
        losses={},
        likelihood="exact",
        log_prob=log_prob,
        sample=sampler(sample),
        complete=completer(fill, candidates=1),
        conditionals=conditionals,
        guided=guided(steps, spec, 1, log_probs),
        steps=steps,
        log_probs=log_probs,
    )


def uniform_prior(specs: Sequence[ImageSpec]) -> Prior:
    """All codes of all levels equally likely."""
    if len(specs) == 1:
        return Prior(uniform(specs[0]), lambda params, extra: {"model": {}})
    parts = [lambda *coarser, spec=spec: uniform(spec) for spec in specs]
    nothing = {"model": {level: {} for level in NAMES[len(specs)]}}
    return Prior(over_levels("uniform", specs, parts), lambda params, extra: nothing)
