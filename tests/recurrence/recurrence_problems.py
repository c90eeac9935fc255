"""A random sequence in float64, and the values and gradients that every strategy must give."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from rnngen_jax.cells.base import Carry, Cell, Params
from rnngen_jax.recurrence import unroll


class Mode(NamedTuple):
    """Options of a sequence: it runs backwards, is reset on the way, or is given a carry."""

    reverse: bool = False
    reset: bool = False
    carried: bool = False


# All options at once, in both directions.
FULL = [Mode(reverse, reset=True, carried=True) for reverse in (False, True)]
# Every pair of options with every pair of their values.
MODES = [Mode(), *FULL, Mode(reverse=True, reset=True), Mode(reverse=True, carried=True)]


class Problem(NamedTuple):
    """A cell with all arguments of `unroll`, and the weights of its outputs in the loss.

    Attributes:
      cell: the cell.
      params: its parameters, none of them zero.
      xs: inputs, `[T, B, D]`.
      carry: the carry before the first step, or `None` for the cell's own.
      reset: bool `[T, B]`, or `None`.
      reverse: as in `unroll`.
      weights: `[T, B, F]`.
    """

    cell: Cell
    params: Params
    xs: np.ndarray
    carry: Carry | None
    reset: np.ndarray | None
    reverse: bool
    weights: np.ndarray


def draw_params(cell: Cell, in_features: int, rng: np.random.Generator) -> Params:
    """Normal parameters, including biases and carries, where an error may not show at zero."""
    shapes = jax.eval_shape(lambda: cell.init(jax.random.key(0), in_features))
    return jax.tree.map(lambda leaf: 0.5 * rng.standard_normal(leaf.shape), shapes)


def draw(cell: Cell, size: tuple[int, ...], mode: Mode) -> Problem:
    """Draws a random problem; under `jax.enable_x64` all of it is float64.

    Args:
      cell: any cell.
      size: T, B and D, with any number of batch axes between T and D.
      mode: what the sequence has; about a third of its steps begin anew, if any.
    """
    rng = np.random.default_rng(0)
    steps, *batch, in_features = size
    params = draw_params(cell, in_features, rng)
    xs = rng.standard_normal(size)
    weights = rng.standard_normal((steps, *batch, cell.features))
    reset = rng.random((steps, *batch)) < 0.3
    carry = jax.tree.map(lambda a: rng.standard_normal(a.shape), cell.carry(tuple(batch), float))
    return Problem(
        cell,
        params,
        xs,
        carry if mode.carried else None,
        reset if mode.reset else None,
        mode.reverse,
        weights,
    )


def solve(problem: Problem, **options: Any) -> Any:
    """Runs `unroll`: a loss of its results, the results, and the loss's gradients.

    The loss weighs every output, and every number of the last carry in a way of its own.

    Returns:
      `((loss, (carry, ys)), (d_params, d_xs, d_carry))`; `d_carry` is `None` where the carry is.
    """

    def loss(params: Params, xs: Array, carry: Carry | None) -> tuple[Array, tuple[Carry, Array]]:
        last, ys = unroll(
            problem.cell,
            params,
            xs,
            carry,
            reset=problem.reset,
            reverse=problem.reverse,
            **options,
        )
        total = sum(jnp.sin(leaf).sum() for leaf in jax.tree.leaves(last))
        return (ys * problem.weights).sum() + total, (last, ys)

    run = jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True)
    # Not jitted: compiling the Python loop takes longer than running it.
    run = run if options.get("strategy") == "loop" else jax.jit(run)
    return run(problem.params, problem.xs, problem.carry)


def close(got: Any, wanted: Any, rtol: float = 1e-10, atol: float = 1e-12) -> None:
    """Asserts that two trees of arrays are equal up to rounding."""
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), got, wanted)
