"""A toy for items of any shape and any number of levels: each value is given the one before it.

log p(x_v | x_v-1) is a row of E U, with E `[K + 1, R]` (a row for the start) and U `[R, K]`.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from rnngen_jax.models.autoregressive import Steps, autoregressive_model
from rnngen_jax.ops import likelihoods


@dataclass(frozen=True)
class Config:
    """The toy's only choice, R."""

    rank: int = 4


def build(config, spec):
    likelihood = likelihoods.make("categorical", spec.levels, 1)

    def init(key):
        first, second = jax.random.split(key)
        before = jax.random.normal(first, (spec.levels + 1, config.rank))
        after = jax.random.normal(second, (config.rank, spec.levels))
        return {"model": {"before": before, "after": after}}, {}

    def raw_of(params, before):
        return params["model"]["before"][before] @ params["model"]["after"]

    def raw_outputs(params, image, label, train):
        flat = image.reshape(image.shape[0], -1).astype(jnp.int32)
        before = jnp.pad(flat[:, :-1], ((0, 0), (1, 0)), constant_values=spec.levels)
        return raw_of(params, before).reshape(*image.shape, spec.levels)

    def raw(params, state, t, turn, seen):
        # The last row of `seen` is what lies before the first value.
        return state, raw_of(params, seen[t - 1])[:, None]

    starts = np.arange(spec.dims, dtype=np.int32)[None, :, None]
    steps = Steps(starts, 1, lambda params, label: (), raw)
    return autoregressive_model("bigram_toy", spec, False, init, raw_outputs, steps, likelihood)
