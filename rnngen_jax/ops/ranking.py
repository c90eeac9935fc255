"""The choices of least total cost: one alternative for each of several parts, best ones first."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array


def cheapest(costs: Array, chosen: Array, count: int) -> tuple[Array, Array]:
    """The alternatives of least cost, the chosen one first, whatever its own cost.

    Args:
      costs: `[..., K]`.
      chosen: int `[...]` in `[0, K)`.
      count: how many at most; M = min(count, K).

    Returns:
      Alternatives, int32 `[..., M]`, distinct; and what each costs above the chosen one, float32
      `[..., M]`, 0 if it costs less, so that they do not fall.
    """
    count = min(count, costs.shape[-1])
    own = jnp.take_along_axis(costs, chosen[..., None], axis=-1)
    here = jnp.arange(costs.shape[-1]) == chosen[..., None]
    above = jnp.where(here, -jnp.inf, jnp.maximum(costs - own, 0.0))
    negated, which = jax.lax.top_k(-above, count)
    return which.astype(jnp.int32), jnp.maximum(-negated, 0.0)


def smallest_joined(sums: Array, costs: Array, count: int) -> tuple[Array, Array, Array]:
    """The best ways to go on from prefixes, of which each has ways of its own.

    Args:
      sums: costs of prefixes, `[..., N]`, which do not fall.
      costs: what each way costs more, `[..., N, M]`; the first one nothing, and they do not fall.
      count: how many at most.

    Returns:
      For the S = min(count, N M) ways of least total cost, int32 `[..., S]` the prefix and the way;
      and the totals `[..., S]`, which do not fall. Ties go to the first prefix, then the first way.
    """
    total = sums[..., None] + costs
    flat = total.reshape(*sums.shape[:-1], -1)
    negated, which = jax.lax.top_k(-flat, min(count, flat.shape[-1]))
    return *jnp.divmod(which.astype(jnp.int32), costs.shape[-1]), -negated


def smallest_sums(
    costs: Array, count: int, sizes: Sequence[int] | None = None
) -> tuple[Array, Array]:
    """The combinations of least total cost, of one alternative for each of N parts.

    Exactly those, for any number of combinations: a prefix of one of the S best is one of the S
    best prefixes. If the i-th best prefix with the j-th alternative of the next part is one of the
    S best, so are all of a lower i or j before it, so that (i + 1)(j + 1) ≤ S: S log S pairs are
    looked at for each part. Ties go to the pair that comes first, so the first n combinations are
    those of a count of n, to the last one.

    Args:
      costs: `[N, ..., M]`, ≥ 0, which do not fall along the last axis.
      count: how many at most.
      sizes: alternatives of each part, ≤ M; M for all of them if left out.

    Returns:
      The combinations, int32 `[N, ..., S]` of each part's alternatives, with S the count or as many
      as there are, and their costs `[..., S]`, which do not fall. The first is that of the first
      alternatives.
    """
    num, most = costs.shape[0], costs.shape[-1]
    sizes = [most] * num if sizes is None else list(sizes)
    count = min(count, math.prod(sizes))
    beyond = jnp.arange(most) >= jnp.asarray(sizes)[:, None]
    beyond = beyond.reshape(num, *[1] * (costs.ndim - 2), most)
    costs = jnp.where(beyond, jnp.inf, costs)
    pairs = [(i, j) for i in range(count) for j in range(min(most, count // (i + 1)))]
    before, new = np.array(pairs, np.int32).T

    def join(sums: Array, own: Array) -> tuple[Array, tuple[Array, Array]]:
        negated, which = jax.lax.top_k(-(sums[..., before] + own[..., new]), count)
        return -negated, (jnp.asarray(before)[which], jnp.asarray(new)[which])

    nothing = jnp.full((*costs.shape[1:-1], count), jnp.inf, costs.dtype).at[..., 0].set(0.0)
    sums, joined = jax.lax.scan(join, nothing, costs)

    def back(at: Array, step: tuple[Array, Array]) -> tuple[Array, Array]:
        parent, alternative = (jnp.take_along_axis(x, at, axis=-1) for x in step)
        return parent, alternative

    last = jnp.broadcast_to(jnp.arange(count, dtype=jnp.int32), sums.shape)
    _, chosen = jax.lax.scan(back, last, joined, reverse=True)
    return chosen, sums
