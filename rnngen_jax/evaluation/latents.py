"""The terms of a bound over a whole split, and which latent variables are active."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array

from rnngen_jax import keys
from rnngen_jax.errors import UserError
from rnngen_jax.evaluation.batching import Batches
from rnngen_jax.evaluation.codes import CodeUsage, counts, usage_of
from rnngen_jax.evaluation.likelihood import SEED, Transform
from rnngen_jax.evaluation.spread import spread
from rnngen_jax.models.base import Batch, Extra, Inspection, Model, Params

# A latent variable is active if the variance of its posterior mean over images exceeds this (Burda
# et al. 2016, section 5.1).
ACTIVE = 0.01

Inspect = Callable[[Params, Extra, Batch, Array], Inspection]


class Usage(NamedTuple):
    """Reconstruction and use of latent variables, over a split's images.

    Attributes:
      reconstruction_nats: mean of -log p(x|z) at one draw of the latents, nats per image.
      squared_error: mean squared error of the expected image given the posterior's mean, over
        values in [0, 1].
      kl: mean KL divergence of each latent variable, nats, `[S, Z]`; `None` for deterministic
        codes.
      variance: variance over images of each variable's posterior mean, `[S, Z]`.
      codes: the use of a codebook by the name of its level, which is empty for a single one.
      level_kl: the sum of `kl` over each of several levels of codes, by name.
    """

    reconstruction_nats: float
    squared_error: float
    kl: np.ndarray | None
    variance: np.ndarray
    codes: Mapping[str, CodeUsage] = {}
    level_kl: Mapping[str, float] = {}

    @property
    def active(self) -> np.ndarray:
        """Which latent variables are active, bool `[S, Z]`."""
        return self.variance > ACTIVE

    def metrics(self) -> dict[str, float]:
        """Scalars by name, for metrics.jsonl and evaluation.json."""
        found = {
            "reconstruction_nats": self.reconstruction_nats,
            "mean_squared_error": self.squared_error,
            "active_units": float(self.active.sum()),
        }
        if self.kl is not None:
            found["kl"] = float(self.kl.sum())
        for level, usage in self.codes.items():
            at = f"{level}/" if level else ""
            found |= {f"{at}{name}": value for name, value in usage.metrics().items()}
        return found | {f"{level}/kl": nats for level, nats in self.level_kl.items()}

    def warnings(self) -> list[str]:
        """A line for each level whose codebook has collapsed."""
        return [usage.warning(level) for level, usage in self.codes.items() if usage.collapsed]


def levels_of(model: Model) -> dict[str, int]:
    """The number of codes of each level of a model with a codebook, by name."""
    if model.codes is None:
        return {}
    return {
        name: spec.levels for name, spec in zip(model.codes.names, model.codes.specs, strict=True)
    }


def inspector(model: Model, transform: Transform) -> Inspect:
    """The jitted `inspect(params, extra, batch, key) -> Inspection` that `measure` calls.

    With the key that `likelihood.evaluate` uses, its terms sum to the same bound as `log_prob`.

    Raises:
      UserError: the model has no latents.
    """
    if model.latent is None:
        raise UserError(f"{model.name} has no latents.")
    inspect = model.latent.inspect

    @jax.jit
    def of(params: Params, extra: Extra, batch: Batch, key: Array) -> Inspection:
        batch = transform(batch, keys.named(key, "transform"))
        return inspect(params, extra, batch, keys.named(key, "log_prob"))

    return of


def measure(
    inspect: Inspect,
    params: Params,
    extra: Extra,
    batches: Batches,
    levels: Mapping[str, int] | None = None,
) -> Usage:
    """Measures each image of a split exactly once; sums are float64 on the host.

    Args:
      inspect: from `inspector`.
      params, extra: the model's parameters and state.
      batches: from `split_batches`; their size does not change the numbers.
      levels: of a model with a codebook, `levels_of` it.
    """
    key = jax.random.key(SEED)
    sums: dict[str, Any] = dict.fromkeys(("log_likelihood", "squared_error", "kl", "mean"), 0.0)
    squares: Any = 0.0
    levels = levels or {}
    total, used = 0, dict.fromkeys(levels, 0)
    for num, found in spread(inspect)(params, extra, batches, key):
        arrays = {
            name: np.asarray(value, np.float64)[:num]
            for name, value in found._asdict().items()
            if value is not None and name != "codes"
        }
        for name, array in arrays.items():
            sums[name] = sums[name] + array.sum(0)
        squares = squares + np.square(arrays["mean"]).sum(0)
        total += num
        of_levels = dict(zip(levels, jax.tree.leaves(found.codes), strict=True))
        for name, codes in of_levels.items():
            used[name] = used[name] + counts(np.asarray(codes)[:num], levels[name])
    mean = sums["mean"] / total
    level_kl, before = {}, 0
    for name, codes in of_levels.items() if len(levels) > 1 else ():
        level_kl[name] = float(sums["kl"][before : before + codes.shape[1]].sum() / total)
        before += codes.shape[1]
    return Usage(
        reconstruction_nats=-float(sums["log_likelihood"] / total),
        squared_error=float(sums["squared_error"] / total),
        kl=None if found.kl is None else sums["kl"] / total,
        variance=squares / total - np.square(mean),
        codes={name: usage_of(each) for name, each in used.items()},
        level_kl=level_kl,
    )
