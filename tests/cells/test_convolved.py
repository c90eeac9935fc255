"""A convolved cell equals the cell at each place, given the sum over its neighbours' states."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cell_problems import SPECS, is_convolvable

from rnngen_jax import cells
from rnngen_jax.cells.base import shifted
from rnngen_jax.cells.convolved import convolved
from rnngen_jax.recurrence import unroll

T, P, B, D, F = 5, 4, 2, 6, 3
OFFSETS = {"around": (-1, 0, 1), "own_and_before": (0, -1), "far": (2,)}


def np_sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm(z, product, state):
    _, c = state
    i, f, o = (np_sigmoid(z[g] + product[g]) for g in "ifo")
    c = f * c + i * np.tanh(z["g"] + product["g"])
    return o * np.tanh(c), c


def gru(z, product, state):
    update, r = (np_sigmoid(z[g] + product[g]) for g in "zr")
    n = np.tanh(z["n"] + r * (product["n"] + z["u"]))
    return ((1 - update) * n + update * state[0],)


def rnn(z, product, state):
    return (np.tanh(z["h"] + product["h"]),)


EQUATIONS = {"lstm": lstm, "gru": gru, "rnn": rnn}


class Problem(NamedTuple):
    """Parameters, inputs `[T, P, B, D]`, a carry, resets `[T, P, B]`, and weights of outputs."""

    params: dict
    xs: np.ndarray
    carry: tuple
    reset: np.ndarray
    weights: np.ndarray


def convolved_cell(name, offsets="around"):
    mask = np.random.default_rng(1).random((D, F)) < 0.7
    cell = convolved(cells.from_spec(name, F), OFFSETS[offsets], mask.astype(np.float32))
    return cell, mask


def problem(cell):
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: cell.init(jax.random.key(0), D))
    params = jax.tree.map(lambda leaf: 0.7 * rng.standard_normal(leaf.shape), shapes)
    carry = jax.tree.map(lambda a: rng.standard_normal(a.shape), cell.carry((P, B), float))
    reset = rng.random((T, P, B)) < 0.3
    return Problem(
        params,
        rng.standard_normal((T, P, B, D)),
        carry,
        reset,
        rng.standard_normal((T, P, B, F)),
    )


def by_gate(tree):
    return tree if isinstance(tree, dict) else {"h": tree}


def by_place(name, offsets, mask, problem, reverse):
    """The equations in float64, place by place: carries after the last step, and outputs."""
    w, u, b = (by_gate(problem.params[part]) for part in ("input", "recurrent", "bias"))
    carry = tuple(np.array(leaf) for leaf in problem.carry)
    ys = np.zeros((T, P, B, F))
    for t in range(T)[::-1] if reverse else range(T):
        begun = [np.where(problem.reset[t][..., None], 0.0, leaf) for leaf in carry]
        for p in range(P):
            product = {gate: np.zeros((B, F)) for gate in u}
            for k, offset in enumerate(offsets):
                if 0 <= p + offset < P:
                    for gate, kernel in u.items():
                        product[gate] += begun[0][p + offset] @ kernel[k * F : (k + 1) * F]
            x = problem.xs[t, p]
            z = {g: (x @ (w[g] * mask) if g in w else 0.0) + b[g] for g in b}
            state = EQUATIONS[name](z, product, [leaf[p] for leaf in begun])
            for leaf, value in zip(carry, state, strict=True):
                leaf[p] = value
            ys[t, p] = carry[0][p]
    return carry, ys


def solved(cell, problem, options, reverse):
    """The last carry and outputs, and the gradients of a loss of both."""

    def loss(params, xs, carry):
        last, ys = unroll(cell, params, xs, carry, reset=problem.reset, reverse=reverse, **options)
        total = sum(jnp.sin(leaf).sum() for leaf in jax.tree.leaves(last))
        return (ys * problem.weights).sum() + total, (last, ys)

    run = jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True)
    run = run if options == LOOP else jax.jit(run)
    (_, results), gradients = run(problem.params, problem.xs, problem.carry)
    return results, gradients


def close(got, wanted):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-9, 1e-11), got, wanted)


LOOP = {"strategy": "loop"}
# Chunks of 2 of the 5 steps: two in a loop, and one step left over.
WAYS = [
    ("lstm", "around", {"strategy": "sequential:gates=store,chunk=2"}, False),
    ("lstm", "around", {"strategy": "sequential:gates=recompute,chunk=2"}, True),
    ("lstm", "around", {"strategy": "sequential:gradient=autodiff"}, False),
    ("lstm", "own_and_before", {"remat": 2}, False),
    ("gru", "own_and_before", {"strategy": "sequential:gates=store,chunk=2"}, True),
    ("gru", "around", {"strategy": "sequential"}, False),
    ("rnn", "far", {"strategy": "sequential:gates=recompute,chunk=2"}, False),
]


@pytest.mark.parametrize(("name", "offsets", "options", "reverse"), WAYS)
def test_every_way_is_a_loop_over_steps_and_places(name, offsets, options, reverse):
    cell, mask = convolved_cell(name, offsets)
    with jax.enable_x64(True):
        drawn = problem(cell)
        (last, ys), gradients = solved(cell, drawn, options, reverse)
        expected = by_place(name, OFFSETS[offsets], mask, drawn, reverse)
        close((tuple(last), ys), expected)
        close(gradients, solved(cell, drawn, LOOP, reverse)[1])
    for leaf in jax.tree.leaves(gradients[0]["input"]):
        np.testing.assert_array_equal(np.asarray(leaf) == 0, ~mask)


@pytest.mark.parametrize("name", ["min_gru", "rg_lru"])
def test_a_linear_cell_runs_at_each_place_alone(name):
    cell, mask = convolved_cell(name)
    plain = cells.from_spec(name, F)
    with jax.enable_x64(True):
        drawn = problem(cell)
        masked = jax.tree.map(lambda kernel: kernel * mask, drawn.params["input"])
        params = drawn.params | {"input": masked}
        for strategy in ("associative:chunk=2", "sequential"):
            results, gradients = solved(cell, drawn, {"strategy": strategy}, reverse=True)
            expected, slopes = solved(plain, drawn._replace(params=params), LOOP, reverse=True)
            close(results, expected)
            close(gradients[1:], slopes[1:])
            for leaf in jax.tree.leaves(gradients[0]["input"]):
                assert (np.asarray(leaf)[~mask] == 0).all()


def test_kernels_begin_so_that_neighbours_together_keep_a_states_norm():
    plain = cells.from_spec("lstm", F)
    cell = convolved(plain, (-1, 0, 1))
    params = jax.jit(lambda key: cell.init(key, D))(jax.random.key(0))
    unconvolved = jax.eval_shape(lambda: plain.init(jax.random.key(0), D))
    assert jax.tree.structure(params) == jax.tree.structure(unconvolved)
    for kernel in params["recurrent"].values():
        np.testing.assert_allclose(np.transpose(kernel) @ kernel, np.eye(F), atol=1e-5)
    blocks = np.stack(jax.tree.leaves(params["recurrent"])).reshape(-1, F * F)
    assert len(np.unique(blocks.round(4), axis=0)) == 4 * 3


def test_what_lies_beyond_a_line_is_zero():
    x = np.arange(1, 9, dtype=np.float32).reshape(4, 2)
    offsets = range(-5, 6)
    moved = jax.jit(lambda x: [shifted(x, offset) for offset in offsets])(x)
    for offset, got in zip(offsets, moved, strict=True):
        expected = [x[p + offset] if 0 <= p + offset < 4 else np.zeros(2) for p in range(4)]
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("spec", [spec for spec in SPECS if is_convolvable(spec)])
def test_a_place_that_sees_itself_alone_is_the_plain_cell(spec):
    plain = cells.from_spec(spec, F)
    cell = convolved(plain, (0,))
    drawn = problem(cell)
    xs = jnp.asarray(drawn.xs, jnp.float32)
    params, carry = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), (drawn.params, drawn.carry))
    got, wanted = (c.step(params, carry, c.inputs(params, xs[0])) for c in (cell, plain))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), got, wanted)


@pytest.mark.parametrize("spec", [spec for spec in SPECS if not is_convolvable(spec)])
def test_other_cells_cannot_be_convolved(spec):
    with pytest.raises(ValueError, match="gated or linear"):
        convolved(cells.from_spec(spec, F), (-1, 0, 1))
