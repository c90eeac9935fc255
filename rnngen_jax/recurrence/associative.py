"""Parallel in time, for cells whose step is linear in the carry: `h[t] = a[t] h[t-1] + b[t]`."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from rnngen_jax.cells.base import Carry, Cell, Params
from rnngen_jax.config import require, require_choice
from rnngen_jax.errors import UserError
from rnngen_jax.ops.devices import compiled_for
from rnngen_jax.recurrence.base import (
    Sequence,
    Strategy,
    chunk_steps,
    composed,
    in_chunks,
    pick,
)

# From a, b and the h before the first step executed to all h.
Solver = Callable[[Array, Array, Array], Array]

SOLVERS = ("auto", "prefix", "steps")
GRADIENTS = ("adjoint", "autodiff")
GATES = ("recompute", "store")

# On a CPU a chunk's arrays should stay in the core's cache: values per array, and range of steps.
_CPU_CHUNK_SIZE, _CPU_CHUNK_STEPS = 2**15, (4, 32)
# Elsewhere: enough steps to keep an accelerator busy.
_CHUNK_STEPS = 512


def associative(
    *, chunk: int = 0, solver: str = "auto", gradient: str = "adjoint", gates: str = "recompute"
) -> Strategy:
    """Solves the recurrence one chunk of time at a time, passing h from chunk to chunk.

    Args:
      chunk: maximum steps per chunk; 0 chooses by backend and by the size of a step.
      solver: how a chunk is solved.

        "prefix": a parallel prefix scan of `(a, b) (a', b') = (a a', a' b + b')`, in log(chunk)
          rounds (Blelloch 1990, sec. 1.4.1).
        "steps": one step after another, which moves the fewest bytes; on a CPU the cost of
          elementwise work is memory traffic.
        "auto": "steps" on a CPU, "prefix" elsewhere.

      gradient: "adjoint" solves `λ[t] = g[t] + a[t+1] λ[t+1]` chunk by chunk in the same way, and
        needs only a and h. "autodiff" is JAX's own, for forward mode and higher derivatives.
      gates: "recompute" keeps only h at chunk boundaries for the backward pass and rematerialises
        a chunk's gates and h from its inputs; "store" keeps them all. "recompute" is also faster
        on a CPU, where memory is slower than arithmetic.

    Raises:
      UserError: an option out of range; when run, a cell that is not linear in its carry.
    """
    require(chunk >= 0, "strategy 'associative': chunk", chunk, "≥ 0")
    require_choice("strategy 'associative': solver", solver, SOLVERS)
    require_choice("strategy 'associative': gradient", gradient, GRADIENTS)
    require_choice("strategy 'associative': gates", gates, GATES)

    def run(cell: Cell, params: Params, sequence: Sequence) -> tuple[Carry, Array]:
        linear = cell.linear
        if linear is None:
            raise UserError(
                "strategy 'associative' needs a cell that is linear in its carry (such as min_gru, "
                "min_lstm or rg_lru); strategy 'sequential' runs any cell."
            )
        reverse = sequence.reverse
        (first,), (h,) = jax.tree.leaves(sequence.first), jax.tree.leaves(sequence.carry)
        solve = _solver(solver, reverse)
        if gradient == "adjoint":
            solve = _with_adjoint(solve, _solver(solver, not reverse), reverse)

        def advance(h: Array, steps: tuple[Array, Array | None]) -> tuple[Array, Array]:
            xs, begins = steps
            a, b = linear(params, cell.inputs(params, xs))
            if begins is not None:
                a, b = pick(begins, (jnp.zeros_like(a), a * first + b), (a, b))
            hs = solve(a, b, h)
            return hs[0 if reverse else -1], hs

        through = jax.checkpoint(advance) if gates == "recompute" else advance
        size = chunk_steps(chunk or _most_steps(h.size), sequence.xs.shape[0])
        h, hs = in_chunks(through, h, (sequence.xs, sequence.reset), size, reverse)
        return jax.tree.unflatten(jax.tree.structure(sequence.carry), [h]), hs

    return composed(run)


def _most_steps(step_size: int) -> int:
    """Maximum steps per chunk."""
    if compiled_for() != "cpu":
        return _CHUNK_STEPS
    least, most = _CPU_CHUNK_STEPS
    return min(max(_CPU_CHUNK_SIZE // step_size, least), most)


def _solver(name: str, reverse: bool) -> Solver:
    if name == "auto":
        name = "steps" if compiled_for() == "cpu" else "prefix"

    def join(near: tuple[Array, Array], far: tuple[Array, Array]) -> tuple[Array, Array]:
        return near[0] * far[0], far[0] * near[1] + far[1]

    def prefix(a: Array, b: Array, h: Array) -> Array:
        start = -1 if reverse else 0
        b = b.at[start].add(a[start] * h)
        return jax.lax.associative_scan(join, (a, b), reverse=reverse)[1]

    def step(h: Array, ab: tuple[Array, Array]) -> tuple[Array, Array]:
        h = ab[0] * h + ab[1]
        return h, h

    def steps(a: Array, b: Array, h: Array) -> Array:
        return jax.lax.scan(step, h, (a, b), reverse=reverse)[1]

    return steps if name == "steps" else prefix


def _with_adjoint(solve: Solver, solve_back: Solver, reverse: bool) -> Solver:
    """`solve` with its gradient: da[t] = λ[t] h[t-1] and db[t] = λ[t], t in order of execution.

    Args:
      solve: the forward solver.
      solve_back: the same in the opposite direction.
      reverse: whether `solve` runs from the last step to the first.
    """

    def moved(first: Array, x: Array, reverse: bool) -> Array:
        """x shifted by one step in order of execution: `first` in front, the last step dropped."""
        return jnp.concatenate([x[1:], first[None]] if reverse else [first[None], x[:-1]])

    def forward(a: Array, b: Array, h: Array) -> tuple[Array, tuple[Array, Array, Array]]:
        hs = solve(a, b, h)
        return hs, (a, h, hs)

    def backward(kept: tuple[Array, Array, Array], g: Array) -> tuple[Array, Array, Array]:
        a, h, hs = kept
        nothing = jnp.zeros_like(h)
        adjoint = solve_back(moved(nothing, a, not reverse), g, nothing)
        start = -1 if reverse else 0
        return adjoint * moved(h, hs, reverse), adjoint, a[start] * adjoint[start]

    with_adjoint = jax.custom_vjp(solve)
    with_adjoint.defvjp(forward, backward)
    return with_adjoint
