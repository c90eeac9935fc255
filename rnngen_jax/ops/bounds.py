"""Lower bounds of a log-likelihood: the evidence lower bound, and the importance-weighted one.

ELBO = E_q[log p(x|z)] - KL(q(z|x) || p(z)) <= IW-k <= IW-(k+1) <= log p(x)
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array


def elbo(log_likelihood: Array, kl: Array) -> Array:
    """`log p(x|z) - Σ KL`, `[B]` nats (Kingma and Welling 2014, eq. 3).

    Args:
      log_likelihood: of each image given its latents, `[B]`.
      kl: of each latent variable, `[B, S, Z]`.
    """
    return log_likelihood - kl.sum((1, 2))


def free_bits(kl: Array, least: float) -> Array:
    """Σ max(λ, KL) over the latent variables of each image, `[B]` nats.

    Below `least` nats a variable costs λ whatever it does, so that there is nothing to gain by
    making it the prior (Kingma et al. 2016, eq. 15, of each image rather than of a minibatch's
    mean, so that a batch may be cut over devices).

    Args:
      kl: `[B, S, Z]`.
      least: λ, nats of one variable.
    """
    return jnp.maximum(kl, least).sum((1, 2))


def warmed_up(beta: float, steps: int, step: Array) -> Array:
    """β at a step: from 0 in equal parts to `beta` at step `steps`; `beta` at once if that is 0."""
    return beta * jnp.minimum((step + 1.0) / max(steps, 1), 1.0)


def importance_weighted(
    log_weights: Callable[[Array], Array], batch: int, samples: int, chunk: int
) -> Array:
    """`log 1/k Σ_i p(x, z_i) / q(z_i|x)`, `[B]` nats (Burda et al. 2016, eq. 8).

    Samples are drawn and weighted a chunk at a time, so that memory does not grow with their
    number; the value does not depend on the chunks but for rounding.

    Args:
      log_weights: `log_weights(i int32 [chunk]) -> [chunk, B]`, of the samples of those numbers.
      batch: number of images B.
      samples: k, at least 1.
      chunk: samples at once.
    """
    chunk = min(chunk, samples)
    count = -(-samples // chunk)

    def add(total: Array, start: Array) -> tuple[Array, None]:
        number = start + jnp.arange(chunk)
        weights = jnp.where((number < samples)[:, None], log_weights(number), -jnp.inf)
        return jnp.logaddexp(total, jax.nn.logsumexp(weights, axis=0)), None

    first = jnp.full(batch, -jnp.inf)
    total, _ = jax.lax.scan(add, first, jnp.arange(count) * chunk)
    return total - jnp.log(samples)
