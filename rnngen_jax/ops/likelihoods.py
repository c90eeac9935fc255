"""Distributions over one pixel value in `[0, levels)`: log-probability and sampling, exact.

Each is a `PixelLikelihood`, made for a number of grey levels. A network's raw outputs for one value
are the last axis, of size `size`.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from rnngen_jax.config import require, require_choice

KINDS = ("categorical", "bernoulli", "logistic_mixture")


class PixelLikelihood(NamedTuple):
    """A distribution over integers in `[0, levels)`.

    Attributes:
      size: raw network outputs P that it needs for one value.
      log_prob: `log_prob(raw [..., P], value int [...]) -> [...]`, nats.
      log_probs: `log_probs(raw [..., P]) -> [..., L]`, the same for every level.
      draw: `draw(key, raw [..., P], temperature) -> int32 [...]`; temperature 1 is the model's own
        distribution, smaller is nearer its modes.
    """

    size: int
    log_prob: Callable[[Array, Array], Array]
    log_probs: Callable[[Array], Array]
    draw: Callable[[Array, Array, Array | float], Array]


def make(kind: str, levels: int, mixtures: int) -> PixelLikelihood:
    """The likelihood that a flag names, for `levels` grey levels.

    Raises:
      UserError: an unknown kind, or one that does not fit the number of levels.
    """
    require_choice("config.model.readout", kind, KINDS)
    if kind == "categorical":
        return categorical(levels)
    if kind == "bernoulli":
        require(
            levels == 2,
            "config.model.readout",
            kind,
            f"'categorical' or 'logistic_mixture' for {levels} levels, or a data.binarisation",
        )
        return bernoulli()
    require(mixtures >= 1, "config.model.mixtures", mixtures, "1 or more")
    return logistic_mixture(levels, mixtures)


def categorical(levels: int) -> PixelLikelihood:
    """Softmax over the grey levels (van den Oord et al. 2016, section 3.4)."""

    def log_prob(raw: Array, value: Array) -> Array:
        log_p = jax.nn.log_softmax(raw)
        return jnp.take_along_axis(log_p, value[..., None].astype(jnp.int32), axis=-1)[..., 0]

    def draw(key: Array, raw: Array, temperature: Array | float) -> Array:
        return jax.random.categorical(key, raw / temperature).astype(jnp.int32)

    return PixelLikelihood(levels, log_prob, jax.nn.log_softmax, draw)


def bernoulli() -> PixelLikelihood:
    """One logit for a binary pixel: `p(1) = σ(raw)`."""

    def log_prob(raw: Array, value: Array) -> Array:
        logit = raw[..., 0]
        return value * jax.nn.log_sigmoid(logit) + (1 - value) * jax.nn.log_sigmoid(-logit)

    def draw(key: Array, raw: Array, temperature: Array | float) -> Array:
        p = jax.nn.sigmoid(raw[..., 0] / temperature)
        return jax.random.bernoulli(key, p).astype(jnp.int32)

    def log_probs(raw: Array) -> Array:
        return jnp.concatenate([jax.nn.log_sigmoid(-raw), jax.nn.log_sigmoid(raw)], axis=-1)

    return PixelLikelihood(1, log_prob, log_probs, draw)


def logistic_mixture(levels: int, mixtures: int) -> PixelLikelihood:
    """Discretised mixture of logistics (Salimans et al. 2017, eq. 2).

    Levels are scaled to `[-1, 1]`. A level's probability is the mixture's mass on its bin; the bins
    of the darkest and the brightest level reach to -∞ and ∞, so the probabilities sum to 1. Raw
    outputs are, for each component, its logit, mean and log-scale.

    The mass of a bin (a, b) is `σ(b) - σ(a) = σ(b) σ(-a) (1 - exp(a - b))`, whose logarithm is
    exact for the narrowest bins; no approximation by the density is needed.
    """
    half_bin = 1.0 / (levels - 1)
    narrowest = -7.0  # log-scale: far below the width of one of 256 bins, and exp(7) is harmless

    def split(raw: Array) -> tuple[Array, Array, Array]:
        logit, mean, log_scale = jnp.split(raw, 3, axis=-1)
        return logit, mean, jnp.maximum(log_scale, narrowest)

    def log_prob(raw: Array, value: Array) -> Array:
        logit, mean, log_scale = split(raw)
        centred = (2.0 * value / (levels - 1) - 1.0)[..., None] - mean
        inverse = jnp.exp(-log_scale)
        below = (centred - half_bin) * inverse
        above = (centred + half_bin) * inverse
        log_below_upper = jnp.where(value[..., None] == levels - 1, 0.0, jax.nn.log_sigmoid(above))
        log_above_lower = jnp.where(value[..., None] == 0, 0.0, jax.nn.log_sigmoid(-below))
        inner = (value > 0) & (value < levels - 1)
        log_width = jnp.where(inner[..., None], jnp.log(-jnp.expm1(-2 * half_bin * inverse)), 0.0)
        log_mass = log_below_upper + log_above_lower + log_width
        return jax.nn.logsumexp(jax.nn.log_softmax(logit) + log_mass, axis=-1)

    def draw(key: Array, raw: Array, temperature: Array | float) -> Array:
        logit, mean, log_scale = split(raw)
        key_component, key_logistic = jax.random.split(key)
        component = jax.random.categorical(key_component, logit / temperature)[..., None]
        mean = jnp.take_along_axis(mean, component, axis=-1)[..., 0]
        scale = jnp.exp(jnp.take_along_axis(log_scale, component, axis=-1)[..., 0])
        x = mean + scale * temperature * jax.random.logistic(key_logistic, mean.shape)
        # Rounding to the nearest level puts x in its bin, so draws follow log_prob exactly.
        value = jnp.round((x + 1.0) * (levels - 1) / 2.0)
        return jnp.clip(value, 0, levels - 1).astype(jnp.int32)

    def log_probs(raw: Array) -> Array:
        return log_prob(raw[..., None, :], jnp.arange(levels))

    return PixelLikelihood(3 * mixtures, log_prob, log_probs, draw)
