"""The loop over windows: they are solved one after another until one fails."""

import math

import jax
import jax.numpy as jnp
from jax import Array

from rnngen_jax.cells.base import Cell, Params
from rnngen_jax.recurrence.newton.method import PATIENCE, Method
from rnngen_jax.recurrence.newton.run import Run
from rnngen_jax.recurrence.newton.window import Account, open_account, solve_window


def search(
    method: Method, cell: Cell, params: Params, run: Run, guess: Array, *, cold: bool
) -> tuple[Array, Account]:
    """Solves as many windows as possible. Must not be differentiated.

    Args:
      method: the options.
      cell: its carry is one array `[..., S]`.
      params: its parameters.
      run: the sequence, for which `method.window_for` is not 0.
      guess: states `[T, ..., S]` to start from.
      cold: start each window from the state before it instead of `guess`.

    Returns:
      States `[T, ..., S]`, solved as far as the account says, then the guess.
    """
    length, size = run.xs.shape[0], run.carry.shape[-1]
    window = method.window_for(run.xs.shape, size)
    cost = method.cost(window, math.prod(run.xs.shape[1:-1]), size)
    trial = cost * min(PATIENCE, method.max_iterations)
    allowed = method.allowance(run.xs.shape, size)

    def goes_on(progress: tuple[Array, Account]) -> Array:
        account = progress[1]
        behind = account.cost + trial - account.solved
        return ~account.failed & (account.solved < length) & (behind <= allowed)

    def advance(progress: tuple[Array, Account]) -> tuple[Array, Account]:
        states, account = progress
        # A last window that would end beyond the last step starts earlier, on solved steps.
        start = jnp.minimum(account.solved, length - window)
        carry = jnp.where(start == 0, run.carry, states[jnp.maximum(start - 1, 0)])
        known = jax.lax.dynamic_slice_in_dim(states, start, window)
        begin = jnp.broadcast_to(carry, known.shape) if cold else known
        limit = (allowed + account.solved - account.cost) / cost
        limit = jnp.minimum(limit, method.max_iterations)
        part = run.part(start, window, carry)
        found, after = solve_window(method, cell, params, part, begin, account, limit)
        found = jnp.where(after.failed, known, found)
        after = after._replace(
            cost=account.cost + cost * (after.iterations - account.iterations),
            solved=jnp.where(after.failed, account.solved, start + window),
        )
        return jax.lax.dynamic_update_slice_in_dim(states, found, start, 0), after

    return jax.lax.while_loop(goes_on, advance, (guess, open_account(run.carry)))
