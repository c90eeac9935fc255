"""Linear recurrences solved in parallel, and the Jacobians in them."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array


def linear_recurrence(factors: Array, terms: Array, *, reverse: bool = False) -> Array:
    """All `d[t] = factors[t] d[t-1] + terms[t]` from d = 0, in log T rounds (Blelloch 1990).

    Args:
      factors: matrices `[T, ..., S, S]`, or diagonals `[T, ..., S, 1]`.
      terms: `[T, ..., S, N]`, for N right-hand sides.
      reverse: `d[t] = factors[t] d[t+1] + terms[t]`.

    Returns:
      `[T, ..., S, N]`.
    """
    if factors.shape[-1] == 1:
        times = jnp.multiply
    else:
        # An accelerator's default precision would round the gradient's factors.
        times = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)

    def join(near: tuple[Array, Array], far: tuple[Array, Array]) -> tuple[Array, Array]:
        return times(far[0], near[0]), times(far[0], near[1]) + far[1]

    return jax.lax.associative_scan(join, (factors, terms), reverse=reverse)[1]


def jacobians(tangent: Callable[[Array], Array], states: Array) -> Array:
    """The matrices `[T, ..., S, S]` of a map that is linear in each step's vector separately."""
    basis = jnp.eye(states.shape[-1], dtype=states.dtype)
    return jax.vmap(lambda v: tangent(jnp.broadcast_to(v, states.shape)), out_axes=-1)(basis)


def diagonals(tangent: Callable[[Array], Array], states: Array, probes: int) -> Array:
    """Their diagonals `[T, ..., S, 1]`, from one evaluation per probe (Bekas et al. 2007)."""
    size = states.shape[-1]
    probes = min(probes, size)
    # Contiguous blocks: a unit's hidden state and memory are far apart, so in different blocks.
    block = jnp.arange(size) * probes // size == jnp.arange(probes)[:, None]
    directions = block * jax.random.rademacher(jax.random.key(0), (size,), states.dtype)
    rows = jax.vmap(lambda v: v * tangent(jnp.broadcast_to(v, states.shape)))(directions)
    return rows.sum(0)[..., None]
