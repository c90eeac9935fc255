"""Mixtures of normal distributions of one variable, from a network's raw outputs.

The raw outputs of a variable, `[..., 3 M]`, are logit, mean and log-scale of its M components.
Temperature T divides the logits and multiplies the scales.
"""

import math

import jax
import jax.numpy as jnp
from jax import Array

NARROWEST = -7.0  # log-scale


def log_density(raw: Array, z: Array, temperature: Array | float = 1.0) -> Array:
    """log p(z), nats, `[..., 3 M]` and `[...]` to `[...]`."""
    logit, mean, log_scale = _split(raw, temperature)
    scaled = (z[..., None] - mean) * jnp.exp(-log_scale)
    each = -0.5 * jnp.square(scaled) - log_scale - 0.5 * math.log(2 * math.pi)
    return jax.nn.logsumexp(jax.nn.log_softmax(logit) + each, axis=-1)


def draw(key: Array, raw: Array, temperature: Array | float = 1.0) -> Array:
    """A draw of each variable, `[..., 3 M]` to `[...]`."""
    key_component, key_normal = jax.random.split(key)
    logit, mean, log_scale = _split(raw, temperature)
    component = jax.random.categorical(key_component, logit)[..., None]
    mean, log_scale = (
        jnp.take_along_axis(x, component, axis=-1)[..., 0] for x in (mean, log_scale)
    )
    return mean + jnp.exp(log_scale) * jax.random.normal(key_normal, mean.shape)


def near_standard(components: int) -> Array:
    """Raw outputs of components around the quantiles of a standard normal, and close to it."""
    middles = (jnp.arange(components) + 0.5) / components
    means = jax.scipy.stats.norm.ppf(middles)
    # What the means' variance leaves of 1.
    scale = jnp.sqrt(jnp.maximum(1 - jnp.square(means).mean(), 1 / components))
    log_scales = jnp.full(components, jnp.log(scale))
    return jnp.concatenate([jnp.zeros(components), means, log_scales])


def _split(raw: Array, temperature: Array | float) -> tuple[Array, Array, Array]:
    """Logits, means and log-scales at a temperature."""
    logit, mean, log_scale = jnp.split(raw, 3, axis=-1)
    log_scale = jnp.maximum(log_scale, NARROWEST) + jnp.log(temperature)
    return logit / temperature, mean, log_scale
