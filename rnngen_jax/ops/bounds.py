"""Lower bounds on a log-likelihood: the evidence lower bound and the importance-weighted bound.

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

    Below `least` nats a variable's cost is the constant λ, so nothing is gained by collapsing it to
    the prior (Kingma et al. 2016, eq. 15, per image rather than for a minibatch's mean, so that a
    batch may be sharded).

    Args:
      kl: `[B, S, Z]`.
      least: λ, nats per variable.
    """
    return jnp.maximum(kl, least).sum((1, 2))


def warmed_up(beta: float, steps: int, step: Array) -> Array:
    """β at a step: a linear warm-up over `steps` steps to `beta`; `beta` from the start if 0."""
    return beta * jnp.minimum((step + 1.0) / max(steps, 1), 1.0)


def importance_weighted(
    log_weights: Callable[[Array], Array], batch: int, samples: int, chunk: int
) -> Array:
    """`log 1/k Σ_i p(x, z_i) / q(z_i|x)`, `[B]` nats (Burda et al. 2016, eq. 8).

    Samples are drawn and weighted in chunks, so memory does not grow with their number; the value
    depends on the chunk size only by rounding.

    Args:
      log_weights: `log_weights(i int32 [chunk]) -> [chunk, B]`, of the samples with these indices.
      batch: number of images B.
      samples: k ≥ 1.
      chunk: samples per chunk.
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
