"""The solution as a differentiable function of parameters, inputs and carry.

With g[t] the loss's direct gradient with respect to the state after step t, and λ[t] the total one,

    λ[t] = g[t] + μ[t+1],  μ[t] = J[t]^T λ[t] + (∂y[t]/∂s)^T dL/dy[t]

where μ[t] is the gradient with respect to the state that step t sees, 0 where that is a reset one.
Given λ, the gradients of weights and inputs are one vector-Jacobian product over all steps: nothing
is accumulated inside a loop.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from rnngen_jax.cells.base import Cell, Params
from rnngen_jax.recurrence.newton.linear import jacobians, linear_recurrence
from rnngen_jax.recurrence.newton.run import Run


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def solution(
    parallel: bool, cell: Cell, params: Params, run: Run, states: Array
) -> tuple[Array, Array]:
    """The final state `[..., S]` and the outputs `[T, ..., F]` of a solved run.

    Args:
      parallel: whether the adjoint recurrence is solved by an associative scan, which holds T
        Jacobians at once, or step by step.
      cell: its carry is one array `[..., S]`.
      params: its parameters.
      run: the sequence.
      states: the states after each step, `[T, ..., S]`; not differentiated, as the other
        arguments determine them.
    """
    zs = cell.inputs(params, run.xs)
    after, ys = cell.step(params, run.before(states), zs)
    return after[-1], ys


def _forward(
    parallel: bool, cell: Cell, params: Params, run: Run, states: Array
) -> tuple[tuple[Array, Array], Any]:
    return solution(parallel, cell, params, run, states), (params, run, states)


def _backward(
    parallel: bool, cell: Cell, saved: Any, gradients: tuple[Array, Array]
) -> tuple[Params, Run, None]:
    params, run, states = saved
    d_last, d_ys = gradients
    before = run.before(states)
    d_states = jnp.zeros_like(states).at[-1].set(d_last)
    recurrence = _all_at_once if parallel else _step_by_step
    earlier = recurrence(cell, params, run, before, d_states, d_ys)
    # μ[t+1] beside g[t]; after the last step there is none.
    adjoint = d_states + jnp.concatenate([earlier[1:], jnp.zeros_like(earlier[:1])])

    def advance(params: Params, xs: Array, before: Array) -> tuple[Array, Array]:
        return cell.step(params, before, cell.inputs(params, xs))

    pull = jax.vjp(advance, params, run.xs, before)[1]
    d_params, d_xs, d_before = pull((adjoint, d_ys))
    d_first = jnp.zeros_like(run.first) if run.reset is None else (d_before - earlier).sum(0)
    return d_params, Run(d_xs, None, d_first, earlier[0]), None


solution.defvjp(_forward, _backward)


def _step_by_step(
    cell: Cell, params: Params, run: Run, before: Array, d_states: Array, d_ys: Array
) -> Array:
    """μ `[T, ..., S]` by a loop from the last step to the first."""

    def body(later: Array, step: Any) -> tuple[Array, Array]:
        z, reset, state, d_state, d_y = step
        pull = jax.vjp(lambda state: cell.step(params, state, z), state)[1]
        (found,) = pull((d_state + later, d_y))
        found = found if reset is None else jnp.where(reset[..., None], 0, found)
        return found, found

    steps = (cell.inputs(params, run.xs), run.reset, before, d_states, d_ys)
    return jax.lax.scan(body, jnp.zeros_like(run.carry), steps, reverse=True)[1]


def _all_at_once(
    cell: Cell, params: Params, run: Run, before: Array, d_states: Array, d_ys: Array
) -> Array:
    """The same by a parallel linear recurrence.

    With c[t] the value of μ[t] for λ[t] = g[t], `μ[t] = J[t]^T μ[t+1] + c[t]`.
    """
    zs = cell.inputs(params, run.xs)

    def advance(states: Array) -> tuple[Array, Array]:
        return cell.step(params, states, zs)

    tangent, (_, pull) = jax.linearize(advance, before)[1], jax.vjp(advance, before)
    factors = jnp.swapaxes(jacobians(lambda v: tangent(v)[0], before), -1, -2)
    (terms,) = pull((d_states, d_ys))
    terms = run.cut(terms)[..., None]
    return linear_recurrence(run.cut(factors), terms, reverse=True)[..., 0]
