"""All steps at once by Newton's method: DEER (Lim et al. 2024) and its diagonal form.

The carries s[1..T] of a run are the root of `s[t] - f(s[t-1], x[t])`, and Newton's correction d for
all of them is a linear recurrence, which an associative scan solves in log T rounds:

    d[t] = J[t] d[t-1] + f(s[t-1], x[t]) - s[t],  J[t] = ∂f/∂s at s[t-1]

"full" uses the matrix J[t] `[S, S]` (S values in one example's carry) and converges quadratically;
"diagonal" uses only its diagonal (quasi-DEER, Gonzalez et al. 2024), which is linear in S and
converges linearly. Neither is reliable where the cell is not contractive. So the sequence is solved
window by window, each window has to be certified, and from the first one that fails the rest runs
step by step (`window.py` has the test, `trajectory.py` the loop over windows, `adjoint.py` the
gradient).
"""

import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from rnngen_jax.cells.base import Carry, Cell, Params
from rnngen_jax.errors import UserError
from rnngen_jax.ops.precision import rounds
from rnngen_jax.recurrence.base import Sequence, Strategy, in_chunks
from rnngen_jax.recurrence.newton.adjoint import solution
from rnngen_jax.recurrence.newton.method import Method
from rnngen_jax.recurrence.newton.run import Run
from rnngen_jax.recurrence.newton.trajectory import search
from rnngen_jax.recurrence.newton.window import open_account
from rnngen_jax.recurrence.sequential import sequential

# Each place of the batch axes is its own problem: no step may mix them.
INDEPENDENT = True


class Report(NamedTuple):
    """The outcome of a run, as arrays.

    Attributes:
      carries: the carry after each step solved by Newton's method, `[T, ...]`, in the order of the
        inputs; elsewhere the guess, or zeros. They can be the `guess` of a similar run.
      converged: whether Newton's method solved all steps to the requested tolerance.
      newton_steps: number of steps solved by Newton's method.
      sequential_steps: number of steps run one after another.
      iterations: Newton iterations over all windows, including a failed one.
      residual: largest |s[t] - f(s[t-1], x[t])| of the steps solved by Newton's method.
      error: estimated largest distance of these steps from the sequential run, relative to 1 + |s|.
    """

    carries: Carry
    converged: Array
    newton_steps: Array
    sequential_steps: Array
    iterations: Array
    residual: Array
    error: Array


def newton(
    *,
    jacobian: str = "full",
    tolerance: float = 1e-5,
    max_iterations: int = 32,
    probes: int = 8,
    window: int = 0,
    overhead: float = 0.05,
) -> Strategy:
    """Newton's method on all steps of a window at once, with a fallback to `sequential`.

    The step must treat the batch axes as independent. The gradient is that of the solution: the
    adjoint recurrence (in parallel for "full", else step by step) and one product over all steps of
    a window for the weights; steps run by `sequential` have its gradient. There is no forward mode
    and no second derivative. Under `jax.vmap` the fallback is always computed.

    Args:
      jacobian: "full" or "diagonal".
      tolerance: largest distance from the sequential run, relative to 1 + |s|, that counts as
        solved. In float32, less than 3e-6 is rarely reached.
      max_iterations: per window.
      probes: JVPs that estimate a "diagonal": the carry is cut into that many blocks, with random
        signs in each (Bekas et al. 2007). A block's other entries are noise, which costs
        iterations, not accuracy; with one probe per value of the carry there is none.
      window: steps solved at once, at any cost; 0 derives it from `overhead`.
      overhead: how far the run may fall behind a sequential one before Newton's method is given
        up, as a fraction of the sequential time, by the cost model in `method.py`. Where one failed
        window would cost more, the run is sequential from the start. `inf` sets no limit.

    Raises:
      UserError: an option out of range; when run, products in bfloat16, or a cell over maps.
    """
    method = Method(jacobian, tolerance, max_iterations, probes, window, overhead)

    def run(cell: Cell, params: Params, sequence: Sequence) -> tuple[Carry, Array]:
        _refuse_rounding()
        _refuse_maps(cell)
        size = jax.eval_shape(_flattener(sequence), sequence.first).shape[-1]
        if not method.window_for(sequence.xs.shape, size):
            return sequential()(cell, params, sequence)
        return _solve(method, cell, params, sequence, None)[:2]

    return run


def solve(
    cell: Cell, params: Params, sequence: Sequence, *, guess: Carry | None = None, **options: Any
) -> tuple[Carry, Array, Report]:
    """Runs a cell as `newton` does, and reports the outcome.

    Args:
      cell: any cell.
      params: its parameters.
      sequence: the sequence to run it over.
      guess: carries `[T, ...]` to start from, such as `Report.carries` of an earlier run; if
        `None`, each window starts from the carry before it. It affects the time, not the gradient.
      **options: those of `newton`.

    Returns:
      The carry after the last step executed, the outputs `[T, ..., F]`, and the report.

    Raises:
      UserError: an option out of range, products in bfloat16, or a cell over maps.
    """
    _refuse_rounding()
    _refuse_maps(cell)
    method = Method(**{**(newton.__kwdefaults__ or {}), **options})
    return _solve(method, cell, params, sequence, guess)


def _refuse_rounding() -> None:
    """Raises a `UserError` in bfloat16: a rounded step is a staircase, without a derivative."""
    if rounds():
        raise UserError(
            "strategy 'newton' needs config.training.compute_dtype='float32', got 'bfloat16': its "
            "steps have to be smooth; use strategy 'auto' or 'sequential'."
        )


def _refuse_maps(cell: Cell) -> None:
    """Raises a `UserError` for a cell whose step mixes places of the batch axes."""
    if cell.maps:
        raise UserError(
            "strategy 'newton' needs independent places, but a cell over maps sees its "
            "neighbours'; use strategy 'auto' or 'sequential'."
        )


def _solve(
    method: Method, cell: Cell, params: Params, sequence: Sequence, guess: Carry | None
) -> tuple[Carry, Array, Report]:
    flatten, unflatten = _flattener(sequence), _unflattener(sequence)

    def in_order(tree: Any) -> Any:
        return jax.tree.map(lambda a: jnp.flip(a, 0), tree) if sequence.reverse else tree

    def step(params: Params, state: Array, z: Any) -> tuple[Array, Array]:
        carry, y = cell.step(params, unflatten(state), z)
        return flatten(carry), y

    # The solver sees the carry as one array [..., S], and time running forwards.
    flat = Cell(cell.features, cell.init, cell.carry, cell.inputs, step)
    first, carry = flatten(sequence.first), flatten(sequence.carry)
    run = Run(*in_order((sequence.xs, sequence.reset)), first, carry)
    length, size = run.xs.shape[0], carry.shape[-1]
    states = jnp.zeros((length, *carry.shape), carry.dtype)
    if guess is not None:
        states = flatten(in_order(guess)).astype(carry.dtype)

    def in_sequence() -> tuple[Carry, Array]:
        return sequential()(cell, params, sequence)

    def in_part() -> tuple[Carry, Array]:
        def advance(at: tuple[Carry, Array], steps: Any) -> tuple[tuple[Carry, Array], Array]:
            (carry, end), (xs, reset, states) = (at[0], at[1] + steps[0].shape[0]), steps

            def solved() -> tuple[Carry, Array]:
                part = Run(xs, reset, first, flatten(carry))
                last, ys = solution(method.full, flat, params, part, states)
                return unflatten(last), ys

            def unsolved() -> tuple[Carry, Array]:
                part = Sequence(xs, sequence.first, carry, reset, False)
                return sequential()(cell, params, part)

            carry, ys = jax.lax.cond(end <= account.solved, solved, unsolved)
            return (carry, end), ys

        begin, steps = (sequence.carry, jnp.int32(0)), (run.xs, run.reset, states)
        (last, _), ys = in_chunks(advance, begin, steps, chunk, False)
        return last, in_order(ys)

    window, account = method.window_for(run.xs.shape, size), open_account(carry)
    if window:
        fixed = jax.lax.stop_gradient((params, run, states))
        chunk = method.chunk_for(window, length)
        states, account = search(method, flat, *fixed, cold=guess is None)
        whole = jnp.where(account.solved == length, length, account.solved // chunk * chunk)
        account = account._replace(solved=whole)
        last, ys = jax.lax.cond(account.solved > 0, in_part, in_sequence)
    else:
        last, ys = in_sequence()
    report = Report(
        carries=in_order(unflatten(states)),
        converged=account.solved == length,
        newton_steps=account.solved,
        sequential_steps=length - account.solved,
        iterations=account.iterations,
        residual=account.residual,
        error=account.error_bound(),
    )
    return last, ys, jax.lax.stop_gradient(report)


def _flattener(sequence: Sequence) -> Callable[[Carry], Array]:
    """From a carry to vectors `[..., S]`, for any leading axes."""
    ranks = [leaf.ndim - sequence.xs.ndim + 2 for leaf in jax.tree.leaves(sequence.first)]

    def flatten(carry: Carry) -> Array:
        parts = zip(jax.tree.leaves(carry), ranks, strict=True)
        rows = [a.reshape(*a.shape[: a.ndim - rank], -1) for a, rank in parts]
        return jnp.concatenate(rows, axis=-1)

    return flatten


def _unflattener(sequence: Sequence) -> Callable[[Array], Carry]:
    """The inverse of `_flattener`, with the dtypes of the initial carry."""
    leaves, tree = jax.tree.flatten(sequence.first)
    shapes = [leaf.shape[sequence.xs.ndim - 2 :] for leaf in leaves]
    dtypes = [leaf.dtype for leaf in leaves]
    ends = list(itertools.accumulate(math.prod(shape) for shape in shapes))[:-1]

    def unflatten(states: Array) -> Carry:
        parts = zip(jnp.split(states, ends, axis=-1), shapes, dtypes, strict=True)
        return jax.tree.unflatten(
            tree, [a.reshape(*a.shape[:-1], *shape).astype(dtype) for a, shape, dtype in parts]
        )

    return unflatten
