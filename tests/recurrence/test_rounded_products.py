"""Cells and strategies in bfloat16: float32 carries, and gradients of rounded operands."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import recurrence_problems as problems
import traced
from recurrence_problems import FULL, Mode
from test_unroll import CELLS

from rnngen_jax import cells
from rnngen_jax.errors import UserError
from rnngen_jax.ops import precision
from rnngen_jax.ops.precision import computing_in
from rnngen_jax.recurrence import unroll
from rnngen_jax.recurrence.base import Sequence, composed
from rnngen_jax.recurrence.columns import columns
from rnngen_jax.recurrence.newton import solve

T, B, D = 5, 4, 6
UNIT = 2.0**-9  # half the distance of neighbours in bfloat16
# A path from an input to a gradient has at most a step's rounded operands per step and pass, two of
# each of at most two products, and those of the weights' gradient; with kernels of norm 1 or less
# an error does not grow on the way, to first order.
BOUND = (4 * 2 * T + 4) * UNIT

WAYS = {
    "auto": {},
    "loop": {"strategy": "loop"},
    "autodiff": {"strategy": "sequential:gradient=autodiff"},
    "store": {"strategy": "sequential:gates=store,chunk=3"},
    "recompute": {"strategy": "sequential:gates=recompute,chunk=3"},
    "columns": {"strategy": composed(functools.partial(columns, unroll=2))},
    "remat": {"remat": 2},
    "prefix": {"strategy": "associative:solver=prefix"},
}
SPECS = ["rnn", "lstm", "gru", "gru:variant=reset_before", "gru:variant=nested"]
SPECS += ["layer_norm_lstm", "layer_norm_gru", "min_gru", "min_lstm", "rg_lru"]
# Each way of the gradient, and each form of a cell, once; the others behind the marker, as their
# products are held to be rounded by the test below.
FAST = [("lstm", "auto"), ("gru", "auto"), ("layer_norm_gru", "auto"), ("rg_lru", "auto")]
FAST += [("gru", "recompute"), ("gru", "remat"), ("min_gru", "prefix")]
CASES = [(spec, "auto") for spec in SPECS]
CASES += [("gru", way) for way in ("loop", "autodiff", "store", "recompute", "remat")]
CASES += [("min_gru", "prefix"), ("layer_norm_lstm", "remat"), ("learned_lstm_stack", "auto")]


def draw(spec, mode=FULL[1]):
    """A problem in float32 whose kernels have a norm of at most 1."""
    cell = CELLS[spec]() if spec in CELLS else cells.from_spec(spec, 5)
    problem = problems.draw(cell, (T, B, D), mode)

    def small(leaf):
        leaf = np.asarray(leaf, np.float32)
        return leaf / max(1.0, np.linalg.norm(leaf)) if leaf.ndim == 2 else leaf

    carry = jax.tree.map(np.float32, problem.carry)
    return problem._replace(
        params=jax.tree.map(small, problem.params), xs=np.float32(problem.xs), carry=carry
    )


def solved(problem, dtype, **options):
    with computing_in(dtype):
        (_, results), gradients = problems.solve(problem, **options)
    return results, gradients


def straight_through(subscripts, a, b):
    """`rounded` in another way: float32 products of rounded values, differentiated by JAX."""

    def rounded(x):
        return x + jax.lax.stop_gradient(jax.lax.reduce_precision(x, 8, 7) - x)

    @jax.custom_vjp
    def back(x):
        return x

    back.defvjp(lambda x: (x, None), lambda _, g: (jax.lax.reduce_precision(g, 8, 7),))
    return back(jnp.einsum(subscripts, rounded(a), rounded(b), precision="highest"))


def distance(tree, other):
    """Relative, over all numbers together."""
    pairs = [np.concatenate([np.ravel(x) for x in jax.tree.leaves(t)]) for t in (tree, other)]
    return np.linalg.norm(pairs[0] - pairs[1]) / np.linalg.norm(pairs[1])


@pytest.mark.parametrize(
    ("spec", "way"),
    [pytest.param(*case, marks=[] if case in FAST else [pytest.mark.slow]) for case in CASES],
)
def test_results_and_gradients_are_those_of_rounded_operands(spec, way, monkeypatch):
    problem = draw(spec)
    exact = solved(problem, "float32", **WAYS[way])
    ours = solved(problem, "bfloat16", **WAYS[way])
    assert {leaf.dtype for leaf in jax.tree.leaves(ours)} == {jnp.dtype("float32")}
    monkeypatch.setattr(precision, "rounded", straight_through)
    theirs = solved(problem, "bfloat16", strategy="loop")
    for one, other, plain in zip(ours, theirs, exact, strict=True):
        # Sums in another order may round a few operands to the other neighbour.
        assert distance(one, other) <= UNIT / 4
        assert UNIT / 4 < distance(one, plain) <= BOUND


@pytest.mark.parametrize(("spec", "way"), [*CASES, ("lstm", "columns")])
def test_only_operands_of_products_are_bfloat16(spec, way):
    problem = draw(spec)

    def slope(params, xs, carry):
        def loss(*given):
            last, ys = unroll(problem.cell, *given, reset=problem.reset, reverse=True, **WAYS[way])
            return ys.sum() + sum(leaf.sum() for leaf in jax.tree.leaves(last))

        return jax.grad(loss, argnums=(0, 1, 2))(params, xs, carry)

    with computing_in("bfloat16"):
        found = traced.equations(slope, problem.params, problem.xs, problem.carry)
    summed = {traced.PLAIN} if way == "columns" else set()  # products with ones, for biases
    assert set(traced.products(found)) == {traced.ROUNDED, *summed}
    assert traced.holders(found) <= {*traced.MOVES, "dot_general"}
    assert "bfloat16" not in traced.carries(found)
    assert not traced.narrowed(found)


def test_newton_is_refused():
    problem = draw("gru", Mode())
    sequence = Sequence(problem.xs, problem.carry, problem.carry, None, False)
    said = r"^strategy 'newton' needs config.training.compute_dtype='float32', got 'bfloat16'"
    with computing_in("bfloat16"):
        with pytest.raises(UserError, match=said) as error:
            unroll(problem.cell, problem.params, problem.xs, strategy="newton")
        with pytest.raises(UserError, match=said):
            solve(problem.cell, problem.params, sequence)
    assert "\n" not in str(error.value)
