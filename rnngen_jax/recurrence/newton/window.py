"""Newton's iteration on one window, and its acceptance test.

A small residual proves little: every single step may match while the states are far from those of
the sequential run. The correction includes the amplification of errors over the window, but only as
far as the Jacobian does, and errors also grow from window to window. So a second right-hand side is
solved alongside, the probe

    q[t] = J[t] q[t-1] ± 1

with the true J (a JVP) and random signs, carried from window to window. It is the accumulated
effect of an error of size 1 in every step. The amplification A is the largest |q| so far. The error
E is the largest final correction so far, extrapolated by its ratio to the previous correction. A
window counts as solved if

    A (E + rounding unit) <= tolerance,

with errors relative to 1 + |s|. Rejecting a good solution costs time, never accuracy.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from rnngen_jax.cells.base import Cell, Params
from rnngen_jax.recurrence.base import pick
from rnngen_jax.recurrence.newton.linear import diagonals, jacobians, linear_recurrence
from rnngen_jax.recurrence.newton.method import PATIENCE, Method
from rnngen_jax.recurrence.newton.run import Run

# A correction above this fraction of the previous one is no progress.
_PROGRESS = 0.9
# Fraction of the tolerance that a window's own error may use; the rest is for amplification.
_SHARE = 1 / 16
# Relative accuracy required of the probe.
_PROBE_ERROR = 0.1


class Account(NamedTuple):
    """The progress so far.

    Attributes:
      solved: number of steps solved.
      failed: whether a window was given up.
      cost: time spent, in sequential steps.
      iterations: Newton iterations.
      residual: largest |s[t] - f(s[t-1], x[t])|.
      error: the E above.
      amplification: the A above.
      probe: q after the last step solved, `[..., S]`.
    """

    solved: Array
    failed: Array
    cost: Array
    iterations: Array
    residual: Array
    error: Array
    amplification: Array
    probe: Array

    def error_bound(self) -> Array:
        """A (E + rounding unit); 0 where nothing was solved."""
        bound = self.amplification * (self.error + _rounding_unit(self.probe))
        return jnp.where(self.solved > 0, bound, 0)


def open_account(state: Array) -> Account:
    """The account before the first window, given the state before the first step."""
    zero, none = jnp.zeros((), state.dtype), jnp.int32(0)
    return Account(none, jnp.array(False), zero, none, zero, zero, zero, jnp.zeros_like(state))


def _rounding_unit(states: Array) -> Array:
    return jnp.array(jnp.finfo(states.dtype).eps, states.dtype)


class _Iterate(NamedTuple):
    states: Array
    probe: Array
    correction: Array
    error: Array
    amplification: Array
    count: Array
    unchanged: Array
    certified: Array
    hopeless: Array


def solve_window(
    method: Method,
    cell: Cell,
    params: Params,
    run: Run,
    guess: Array,
    account: Account,
    limit: Array,
) -> tuple[Array, Account]:
    """Solves a window, or gives it up.

    Args:
      method: the options.
      cell: its carry is one array `[..., S]`.
      params: its parameters.
      run: the window.
      guess: states `[W, ..., S]` to start from.
      account: that of the previous windows.
      limit: maximum iterations, not necessarily an integer.

    Returns:
      States `[W, ..., S]`, valid unless `failed`, and the account, to which the caller adds the
      window's steps and cost.
    """
    zs = cell.inputs(params, run.xs)
    probe_run = run._replace(carry=account.probe, first=jnp.zeros_like(run.first))
    shape = (guess.shape[0], *[1] * (guess.ndim - 2), guess.shape[-1])
    signs = jax.random.rademacher(jax.random.key(1), shape, guess.dtype)
    unit = _rounding_unit(guess)

    def advance(states: Array) -> Array:
        return cell.step(params, states, zs)[0]

    def iterate(at: _Iterate) -> _Iterate:
        after, tangent = jax.linearize(advance, run.before(at.states))
        if method.full:
            factors = jacobians(tangent, guess)
        else:
            factors = diagonals(tangent, guess, method.probes)
        # The state before the window, or at a reset, is not an unknown.
        factors = run.cut(factors).at[0].set(0)
        probe = tangent(probe_run.before(at.probe)) + signs
        terms = jnp.stack([after - at.states, probe - at.probe], axis=-1)
        found = linear_recurrence(factors, terms)
        states, probe = at.states + found[..., 0], at.probe + found[..., 1]

        correction = jnp.max(jnp.abs(found[..., 0]) / (1 + jnp.abs(states)), initial=0)
        amplification = jnp.maximum(account.amplification, jnp.max(jnp.abs(probe), initial=0))
        probe_error = jnp.max(jnp.abs(found[..., 1]), initial=0)
        ratio = jnp.where(at.count == 0, 0, correction / at.correction)
        # The sum of all further corrections if they keep shrinking by this ratio.
        rest = jnp.where(ratio < 1, correction * jnp.maximum(ratio / (1 - ratio), 1), jnp.inf)
        # Rounding alone causes corrections of this size, which do not shrink further.
        rest = jnp.where(correction <= unit * amplification, correction, rest)
        error = jnp.maximum(account.error, rest)

        small = rest <= _SHARE * method.tolerance
        settled = small & (probe_error <= _PROBE_ERROR * amplification)
        # Checked for every value: a compiled maximum may ignore NaN.
        finite = jnp.isfinite(states).all() & jnp.isfinite(probe).all()
        certified = settled & finite & (amplification * (error + unit) <= method.tolerance)
        progress = small | (at.count == 0) | (correction < _PROGRESS * at.correction)
        unchanged = jnp.where(progress, 0, at.unchanged + 1)
        hopeless = ~finite | (settled & ~certified) | (unchanged >= PATIENCE)
        return _Iterate(
            states,
            probe,
            correction,
            error,
            amplification,
            at.count + 1,
            unchanged,
            certified,
            hopeless,
        )

    zero, none, no = jnp.zeros((), guess.dtype), jnp.int32(0), jnp.array(False)
    at = _Iterate(guess, jnp.zeros_like(guess), zero, zero, zero, none, none, no, no)
    at = jax.lax.while_loop(
        lambda at: ~at.certified & ~at.hopeless & (at.count + 1 <= limit), iterate, at
    )
    after = advance(run.before(at.states))
    residual = jnp.max(jnp.abs(after - at.states), initial=0)
    passed = account._replace(
        residual=jnp.maximum(account.residual, residual),
        error=at.error,
        amplification=at.amplification,
        probe=at.probe[-1],
    )
    account = pick(at.certified, passed, account._replace(failed=jnp.array(True)))
    return after, account._replace(iterations=account.iterations + at.count)
