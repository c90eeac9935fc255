"""Diagonal Gaussians: reparameterised sampling, log-densities and KL divergences."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array


class Gaussian(NamedTuple):
    """Independent normal variables.

    Attributes:
      mean: `[..., Z]`.
      log_scale: logarithm of the standard deviation, `[..., Z]`.
    """

    mean: Array
    log_scale: Array


Pick = Callable[[Gaussian, Array], Array]  # latents from their posterior and noise


def reparameterised(gaussian: Gaussian, noise: Array) -> Array:
    """`z = μ + σ ε` for standard normal noise `[..., Z]` (Kingma and Welling 2014, section 2.4)."""
    return gaussian.mean + jnp.exp(gaussian.log_scale) * noise


def standardised(gaussian: Gaussian, z: Array) -> Array:
    """The noise `(z - μ) / σ` from which `reparameterised` makes z, `[..., Z]`."""
    return (z - gaussian.mean) * jnp.exp(-gaussian.log_scale)


def log_density(gaussian: Gaussian, z: Array) -> Array:
    """`log N(z; μ, σ²)` of each variable, `[..., Z]`, nats."""
    scaled = standardised(gaussian, z)
    return -0.5 * jnp.square(scaled) - gaussian.log_scale - 0.5 * math.log(2 * math.pi)


def log_density_standard(z: Array) -> Array:
    """`log N(z; 0, 1)` of each variable, `[..., Z]`, nats."""
    return -0.5 * jnp.square(z) - 0.5 * math.log(2 * math.pi)


def kl_to_standard(gaussian: Gaussian) -> Array:
    """`KL(N(μ, σ²) || N(0, 1)) = ½ (μ² + σ² - 1) - log σ` of each variable, `[..., Z]`, nats.

    Kingma and Welling 2014, appendix B.
    """
    mean, log_scale = gaussian
    return 0.5 * (jnp.square(mean) + jnp.expm1(2 * log_scale)) - log_scale


def kl(q: Gaussian, p: Gaussian) -> Array:
    """`KL(q || p)` of each variable, `[..., Z]`, nats."""
    scaled = Gaussian((q.mean - p.mean) * jnp.exp(-p.log_scale), q.log_scale - p.log_scale)
    return kl_to_standard(scaled)
