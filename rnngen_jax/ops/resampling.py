"""Resampling of weighted draws: once, by importance, or as a step of a Markov chain.

Draws come from a proposal q; a draw x has the log-weight `log π(x) - log q(x)` for the target π,
whose normalising constant need not be known.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from rnngen_jax import keys


class Reservoir(NamedTuple):
    """The draw kept so far for each of B independent targets.

    Attributes:
      item: a pytree of arrays `[B, ...]`.
      top: the largest log-weight seen, `[B]`.
      total: sum of the weights seen, divided by the largest, `[B]`.
      squares: sum of their squares, divided likewise, `[B]`.
    """

    item: Any
    top: Array
    total: Array
    squares: Array


def by_importance(
    draw: Callable[[Array], tuple[Any, Array]], key: Array, count: int
) -> tuple[Any, Array]:
    """Sampling-importance-resampling (Rubin 1987): one of `count` draws, by their weights.

    As `count` grows, the chosen draw follows the target. Draws are made one after another, and draw
    n replaces the kept one with probability w_n / (w_1 + ... + w_n) (Chao 1982), so memory does not
    grow with their number.

    Args:
      draw: `draw(key) -> (item, log_weight [B])`; the item is a pytree of arrays `[B, ...]`.
      key: key of the first draw, which is the result if `count` is 1.
      count: number of draws, ≥ 1.

    Returns:
      The chosen item, and the effective sample size `(Σ w)² / Σ w²` of the weights (Kong 1992),
      `[B]` in [1, `count`].
    """
    item, log_weight = jax.eval_shape(draw, key)
    least = jnp.finfo(log_weight.dtype).min  # not -∞, as -∞ - -∞ is NaN

    def offer(kept: Reservoir, key: Array) -> tuple[Reservoir, None]:
        item, log_weight = draw(key)
        log_weight = jnp.maximum(log_weight, least)
        top = jnp.maximum(kept.top, log_weight)
        before, weight = jnp.exp(kept.top - top), jnp.exp(log_weight - top)
        total = before * kept.total + weight
        taken = jax.random.uniform(keys.named(key, "take"), total.shape) * total < weight
        item = jax.tree.map(lambda new, old: _where(taken, new, old), item, kept.item)
        return Reservoir(item, top, total, before**2 * kept.squares + weight**2), None

    nothing = jnp.zeros(log_weight.shape, log_weight.dtype)
    empty = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), item)
    more = jax.random.split(keys.named(key, "more"), count - 1)
    kept, _ = jax.lax.scan(
        offer,
        Reservoir(empty, nothing + least, nothing, nothing),
        jnp.concatenate([key[None], more]),
    )
    return kept.item, kept.total**2 / kept.squares


def multiple_try(key: Array, current: Array, weights: Array) -> tuple[Array, Array]:
    """A Metropolis step that chooses among K independent draws (Liu 2001, section 5.5.2).

    Draw j is proposed with probability w_j / Σ w, and accepted with probability

        min(1, Σ_k w_k / (Σ_k w_k - w_j + w_current)).

    With S the sum of the K - 1 weights other than w_j, the transition rate from x to y is
    π(x) q(y) K E[w(y) / (w(y) + S) min(1, (w(y) + S) / (w(x) + S))]
    = K π(x) π(y) E[min(1 / (w(y) + S), 1 / (w(x) + S))], which is symmetric: π is invariant for any
    K, as long as q does not depend on x. K = 1 is the Metropolis-Hastings step. Choosing among the
    draws and the current state by their weights alone (i-SIR; Andrieu et al. 2010) has the rate
    K π(x) π(y) E[1 / (w(x) + w(y) + S)], which is lower for every x and y, so by Peskun ordering it
    mixes no better.

    Args:
      key: a random key.
      current: log-weight of the current state, `[B]`.
      weights: log-weights of the draws, `[K, B]`.

    Returns:
      The proposed draw, int `[B]` in [0, K), and whether it is accepted, bool `[B]`.
    """
    which = jax.random.categorical(keys.named(key, "propose"), weights, axis=0)
    proposed = jnp.arange(len(weights))[:, None] == which
    beside = jax.nn.logsumexp(jnp.where(proposed, -jnp.inf, weights), axis=0)
    ratio = jax.nn.logsumexp(weights, axis=0) - jnp.logaddexp(beside, current)
    threshold = jnp.log(jax.random.uniform(keys.named(key, "take"), which.shape))
    return which, threshold < ratio


def around(key: Array, noise: Array, near: Array, count: int) -> Array:
    """Standard normal draws near others, as proposals for `multiple_try`.

    With ρ = `near`, c is ρ noise + sqrt(1 - ρ²) ε, and draw i is ρ c + sqrt(1 - ρ²) ε_i. Given c,
    which is fixed within a step, the target is no longer π(x) but π(x) N(c|x), which equals
    N(x|c) N(c) π(x) / N(x). The draws come from N(x|c), independent of the current x, so their
    weights are π(x) / N(x), as if they came from N(x).

    At ρ = 0 they do. Near 1 they are small steps, which a chain can accept where independent draws
    are all too unlikely (Cotter et al. 2013 make one such step, without c).

    Args:
      key: a random key.
      noise: `[B, ...]`.
      near: ρ in [0, 1], independent of `noise` and broadcast against it.
      count: number of draws K.

    Returns:
      `[K, B, ...]`.
    """
    apart = jnp.sqrt(1 - near**2)
    steps = apart * jax.random.normal(key, (1 + count, *noise.shape))
    return near * (near * noise + steps[0]) + steps[1:]


def _where(chosen: Array, new: Array, old: Array) -> Array:
    """`jnp.where` along the first axis."""
    return jnp.where(chosen.reshape(-1, *[1] * (new.ndim - 1)), new, old)
