"""Distributions over one pixel value in `[0, levels)`: log-probability and sampling, exact.

Each is a `PixelLikelihood` for a given number of grey levels. A network's raw outputs for one value
are the last axis, of size `size`.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from rnngen_jax.config import require, require_choice
from rnngen_jax.ops import draws
from rnngen_jax.ops.precision import exact

KINDS = ("categorical", "bernoulli", "logistic_mixture", "gaussian")


class PixelLikelihood(NamedTuple):
    """A distribution over integers in `[0, levels)`.

    Attributes:
      size: raw network outputs P per value.
      log_prob: `log_prob(raw [..., P], value int [...], temperature=1.0) -> [...]`, nats, of the
        distribution of `draw`.
      log_probs: `log_probs(raw [..., P]) -> [..., L]`, the same for every level, at temperature 1.
      draw: `draw(key, raw [..., P], temperature) -> int32 [...]`; temperature 1 is the model's own
        distribution. Temperature T divides logits, so that probabilities become p^(1/T),
        normalised; for a logistic mixture it divides the components' logits and multiplies their
        scales; for a Gaussian it multiplies the standard deviation. A mixture's p^(1/T) would be
        another distribution, without such a simple sampler.
      mean: `mean(raw [..., P]) -> [...]`, the expected value divided by the highest level, so in
        [0, 1]; for continuous families, the continuous distribution's mean clipped to [0, 1].
      masses: `masses(raw [..., P], first int [...], width, num) -> [..., num]`, the probabilities
        of `num` intervals of `width` levels each, side by side from level `first` on; 0 above the
        highest level. For families with a distribution function, of which an interval takes two
        values however wide it is; `None` for the others.
    """

    size: int
    log_prob: Callable[..., Array]
    log_probs: Callable[[Array], Array]
    draw: Callable[[Array, Array, Array | float], Array]
    mean: Callable[[Array], Array]
    masses: Callable[[Array, Array, int, int], Array] | None = None


def make(kind: str, levels: int, mixtures: int) -> PixelLikelihood:
    """Builds the likelihood `kind` for `levels` grey levels.

    Raises:
      UserError: an unknown kind, or one for another number of levels.
    """
    require_choice("config.model.readout", kind, KINDS)
    if kind == "categorical":
        return categorical(levels)
    if kind == "bernoulli":
        require(
            levels == 2,
            "config.model.readout",
            kind,
            f"'categorical' or 'logistic_mixture' for {levels} levels (or set data.binarisation)",
        )
        return bernoulli()
    if kind == "gaussian":
        return gaussian(levels)
    require(mixtures >= 1, "config.model.mixtures", mixtures, "≥ 1")
    return logistic_mixture(levels, mixtures)


def categorical(levels: int) -> PixelLikelihood:
    """Softmax over the grey levels (van den Oord et al. 2016, section 3.4)."""

    def log_prob(raw: Array, value: Array, temperature: Array | float = 1.0) -> Array:
        log_p = jax.nn.log_softmax(raw / temperature)
        return jnp.take_along_axis(log_p, value[..., None].astype(jnp.int32), axis=-1)[..., 0]

    def draw(key: Array, raw: Array, temperature: Array | float) -> Array:
        return draws.categorical(key, raw / temperature)

    def mean(raw: Array) -> Array:
        return exact(jax.nn.softmax(raw), jnp.linspace(0.0, 1.0, levels))

    return PixelLikelihood(levels, log_prob, jax.nn.log_softmax, draw, mean)


def bernoulli() -> PixelLikelihood:
    """One logit for a binary pixel: `p(1) = σ(raw)`."""

    def log_prob(raw: Array, value: Array, temperature: Array | float = 1.0) -> Array:
        logit = raw[..., 0] / temperature
        return value * jax.nn.log_sigmoid(logit) + (1 - value) * jax.nn.log_sigmoid(-logit)

    def draw(key: Array, raw: Array, temperature: Array | float) -> Array:
        p = jax.nn.sigmoid(raw[..., 0] / temperature)
        return jax.random.bernoulli(key, p).astype(jnp.int32)

    def log_probs(raw: Array) -> Array:
        return jnp.concatenate([jax.nn.log_sigmoid(-raw), jax.nn.log_sigmoid(raw)], axis=-1)

    def mean(raw: Array) -> Array:
        return jax.nn.sigmoid(raw[..., 0])

    return PixelLikelihood(1, log_prob, log_probs, draw, mean)


def gaussian(levels: int) -> PixelLikelihood:
    """A normal distribution's mass on each level's bin; the outer bins extend to -∞ and ∞.

    A Gaussian decoder's likelihood is thus a probability of images, not a density over the reals,
    and comparable with the others. Levels are scaled to `[-1, 1]`. Raw outputs are the mean and the
    logarithm of the standard deviation.
    """
    half_bin = 1.0 / (levels - 1)
    narrowest = -7.0  # as for the logistic mixture

    def split(raw: Array) -> tuple[Array, Array]:
        return raw[..., 0], jnp.maximum(raw[..., 1], narrowest)

    def log_prob(raw: Array, value: Array, temperature: Array | float = 1.0) -> Array:
        mean, log_scale = split(raw)
        inverse = jnp.exp(-log_scale) / temperature
        centred = 2.0 * value / (levels - 1) - 1.0 - mean
        below, above = (centred - half_bin) * inverse, (centred + half_bin) * inverse
        # The mass of (a, b) is that of (-b, -a): in the lower tail it is a difference of small
        # numbers, in the upper tail one of numbers near 1.
        low = jnp.where(centred > 0, -above, below)
        high = jnp.where(centred > 0, -below, above)
        log_high, log_low = (jax.scipy.stats.norm.logcdf(x) for x in (high, low))
        # In a narrow bin the two are nearly equal; there the density's Taylor series is exact.
        width, square = 2 * half_bin * inverse, jnp.square(centred * inverse)
        narrow = width < 0.05
        gap = jnp.where(narrow, -1.0, log_low - log_high)
        by_difference = log_high + jnp.log(-jnp.expm1(gap))
        curve = jnp.where(narrow, jnp.square(width) * (square - 1) / 24, 0.0)
        by_density = -square / 2 - 0.5 * math.log(2 * math.pi) + jnp.log(width) + curve
        inner = jnp.where(narrow, by_density, by_difference)
        first = jax.scipy.stats.norm.logcdf(above)
        last = jax.scipy.stats.norm.logcdf(-below)
        return jnp.where(value == 0, first, jnp.where(value == levels - 1, last, inner))

    def draw(key: Array, raw: Array, temperature: Array | float) -> Array:
        mean, log_scale = split(raw)
        x = mean + jnp.exp(log_scale) * temperature * jax.random.normal(key, mean.shape)
        return _nearest_level(x, levels)

    def log_probs(raw: Array) -> Array:
        return log_prob(raw[..., None, :], jnp.arange(levels))

    def expected(raw: Array) -> Array:
        return jnp.clip((raw[..., 0] + 1) / 2, 0.0, 1.0)

    def masses(raw: Array, first: Array, width: int, num: int) -> Array:
        mean, log_scale = (x[..., None] for x in split(raw))
        x = _standardised(_edges(first, width, num, levels), mean, jnp.exp(-log_scale))
        below, above = x[..., :-1], x[..., 1:]
        mirrored = below + above > 0  # as in `log_prob`
        low, high = jnp.where(mirrored, -above, below), jnp.where(mirrored, -below, above)
        return jax.scipy.stats.norm.cdf(high) - jax.scipy.stats.norm.cdf(low)

    return PixelLikelihood(2, log_prob, log_probs, draw, expected, masses)


def logistic_mixture(levels: int, mixtures: int) -> PixelLikelihood:
    """Discretised mixture of logistics (Salimans et al. 2017, eq. 2).

    Levels are scaled to `[-1, 1]`. A level's probability is the mixture's mass on its bin; the bins
    of the darkest and the brightest level extend to -∞ and ∞, so the probabilities sum to 1. Raw
    outputs are logit, mean and log-scale of each component.

    The mass of a bin (a, b) is `σ(b) - σ(a) = σ(b) σ(-a) (1 - exp(a - b))`, whose logarithm is
    exact even for the narrowest bins; no approximation by the density is needed.
    """
    half_bin = 1.0 / (levels - 1)
    narrowest = -7.0  # log-scale: far below the width of one of 256 bins, and exp(7) is harmless

    def split(raw: Array) -> tuple[Array, Array, Array]:
        logit, mean, log_scale = jnp.split(raw, 3, axis=-1)
        return logit, mean, jnp.maximum(log_scale, narrowest)

    def log_prob(raw: Array, value: Array, temperature: Array | float = 1.0) -> Array:
        logit, mean, log_scale = split(raw)
        centred = (2.0 * value / (levels - 1) - 1.0)[..., None] - mean
        inverse = jnp.exp(-log_scale) / temperature
        below = (centred - half_bin) * inverse
        above = (centred + half_bin) * inverse
        log_below_upper = jnp.where(value[..., None] == levels - 1, 0.0, jax.nn.log_sigmoid(above))
        log_above_lower = jnp.where(value[..., None] == 0, 0.0, jax.nn.log_sigmoid(-below))
        inner = (value > 0) & (value < levels - 1)
        log_width = jnp.where(inner[..., None], jnp.log(-jnp.expm1(-2 * half_bin * inverse)), 0.0)
        log_mass = log_below_upper + log_above_lower + log_width
        return jax.nn.logsumexp(jax.nn.log_softmax(logit / temperature) + log_mass, axis=-1)

    def draw(key: Array, raw: Array, temperature: Array | float) -> Array:
        logit, mean, log_scale = split(raw)
        key_component, key_logistic = jax.random.split(key)
        component = draws.categorical(key_component, logit / temperature)[..., None]
        mean = jnp.take_along_axis(mean, component, axis=-1)[..., 0]
        scale = jnp.exp(jnp.take_along_axis(log_scale, component, axis=-1)[..., 0])
        x = mean + scale * temperature * jax.random.logistic(key_logistic, mean.shape)
        return _nearest_level(x, levels)

    def log_probs(raw: Array) -> Array:
        return log_prob(raw[..., None, :], jnp.arange(levels))

    def expected(raw: Array) -> Array:
        logit, mean, _ = split(raw)
        return jnp.clip(((jax.nn.softmax(logit) * mean).sum(-1) + 1) / 2, 0.0, 1.0)

    def masses(raw: Array, first: Array, width: int, num: int) -> Array:
        # With the levels last, where there are many of them and few components.
        logit, mean, log_scale = (x[..., None] for x in split(raw))
        inverse = jnp.exp(-log_scale)
        edges = _edges(first, width, num, levels)[..., None, :]
        x = _standardised(edges, mean, inverse)
        # σ(x) and σ(-x), each with all its digits.
        small = jnp.exp(-jnp.abs(x))
        larger, smaller = 1 / (1 + small), small / (1 + small)
        upper, lower = jnp.where(x > 0, larger, smaller), jnp.where(x > 0, smaller, larger)
        bounded = jnp.isfinite(edges[..., :-1]) & jnp.isfinite(edges[..., 1:])
        inside = jnp.where(bounded, -jnp.expm1(-2 * half_bin * width * inverse), 1.0)
        mass = upper[..., 1:] * lower[..., :-1] * inside
        return (jax.nn.softmax(logit, axis=-2) * mass).sum(-2)

    return PixelLikelihood(3 * mixtures, log_prob, log_probs, draw, expected, masses)


def _edges(first: Array, width: int, num: int, levels: int) -> Array:
    """The edges of `num` intervals of `width` levels from `first` on, scaled, `[..., num + 1]`.

    They are between two levels, and at -∞ and ∞ beyond the lowest and the highest one.
    """
    level = first[..., None] + width * jnp.arange(num + 1)
    edge = (2.0 * level - 1) / (levels - 1) - 1
    return jnp.where(level <= 0, -jnp.inf, jnp.where(level >= levels, jnp.inf, edge))


def _standardised(edge: Array, mean: Array, inverse: Array) -> Array:
    """`(edge - mean) * inverse`; an infinite edge stays so, also for an `inverse` of 0."""
    return jnp.where(jnp.isinf(edge), edge, (edge - mean) * inverse)


def _nearest_level(x: Array, levels: int) -> Array:
    """The level whose bin contains the scaled value x, so that draws follow `log_prob` exactly."""
    value = jnp.round((x + 1.0) * (levels - 1) / 2.0)
    return jnp.clip(value, 0, levels - 1).astype(jnp.int32)
