"""Every cell against its equations in NumPy float64, and against Flax's own cells."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cell_problems import EQUATIONS, SPECS, UNWEIGHTED, B, D, F, T, randomised
from flax import linen as nn
from numpy_functions import sigmoid

from rnngen_jax import cells
from rnngen_jax.cells.base import initial_carry
from rnngen_jax.recurrence import unroll

LINEAR = [spec for spec in SPECS if cells.from_spec(spec, F).linear is not None]


def as_numpy(params):
    return jax.tree.map(lambda a: np.asarray(a, np.float64), params)


@pytest.mark.parametrize("spec", sorted(EQUATIONS))
def test_cell_is_its_equations(spec):
    cell = cells.from_spec(spec, F)
    params = randomised(cell.init(jax.random.key(0), D), jax.random.key(1))
    xs = jax.random.normal(jax.random.key(2), (T, B, D))
    with jax.enable_x64(True):
        double = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), params)
        carry, ys = unroll(cell, double, jnp.asarray(xs, jnp.float64))
        assert ys.dtype == jnp.float64
    p, state, expected = as_numpy(params), None, []
    state = tuple(np.zeros((B, F)) for _ in carry)
    for x in np.asarray(xs, np.float64):
        state, y = EQUATIONS[spec](p, state, x)
        expected.append(y)
    np.testing.assert_allclose(ys, np.stack(expected), rtol=0, atol=1e-12)
    for ours, theirs in zip(carry, state, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)


def flax_outputs(cell, variables, xs):
    return nn.RNN(cell, time_major=True).apply(variables, xs)


def dense(kernel, bias=None):
    return {"kernel": kernel} if bias is None else {"kernel": kernel, "bias": bias}


def test_lstm_is_flax_lstm():
    cell = cells.from_spec("lstm", F)
    p = randomised(cell.init(jax.random.key(0), D), jax.random.key(1))
    xs = jax.random.normal(jax.random.key(2), (T, B, D))
    theirs = {f"i{g}": dense(p["input"][g]) for g in "ifgo"}
    theirs |= {f"h{g}": dense(p["recurrent"][g], p["bias"][g]) for g in "ifgo"}
    _, ys = unroll(cell, p, xs)
    expected = flax_outputs(nn.LSTMCell(F), {"params": {"cell": theirs}}, xs)
    np.testing.assert_allclose(ys, expected, atol=1e-5)


def test_gru_is_flax_gru():
    cell = cells.from_spec("gru", F)
    p = randomised(cell.init(jax.random.key(0), D), jax.random.key(1))
    xs = jax.random.normal(jax.random.key(2), (T, B, D))
    theirs = {f"i{g}": dense(p["input"][g], p["bias"][g]) for g in "zrn"}
    theirs |= {f"h{g}": dense(p["recurrent"][g]) for g in "zr"}
    theirs["hn"] = dense(p["recurrent"]["n"], p["bias"]["u"])
    _, ys = unroll(cell, p, xs)
    expected = flax_outputs(nn.GRUCell(F), {"params": {"cell": theirs}}, xs)
    np.testing.assert_allclose(ys, expected, atol=1e-5)


@pytest.mark.parametrize("spec", SPECS + UNWEIGHTED)
def test_init_is_finite_and_has_the_carry_and_outputs_promised(spec):
    cell = cells.from_spec(spec, F)
    params = cell.init(jax.random.key(0), F)
    carry = cell.carry((B,), jnp.float32)
    for leaf in jax.tree.leaves(params):
        assert np.isfinite(leaf).all()
    after, y = cell.step(params, carry, cell.inputs(params, jnp.ones((B, F))))
    assert y.shape == (B, F) == (B, cell.features)
    assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, carry)


def test_forget_bias_is_where_it_should_be():
    for value in (0.0, 2.0):
        p = cells.from_spec(f"lstm:forget_bias={value}", F).init(jax.random.key(0), D)
        assert (p["bias"]["f"] == value).all()
        assert (p["bias"]["i"] == 0).all()
        p = cells.from_spec(f"layer_norm_lstm:forget_bias={value}", F).init(jax.random.key(0), D)
        assert (p["bias"][:F] == value).all()
        assert (p["bias"][F:] == 0).all()


@pytest.mark.parametrize("spec", LINEAR)
def test_a_linear_cell_gives_its_step_as_a_and_b(spec):
    cell = cells.from_spec(spec, F)
    params = randomised(cell.init(jax.random.key(0), D), jax.random.key(1))
    zs = cell.inputs(params, jax.random.normal(jax.random.key(2), (T, B, D)))
    a, b = cell.linear(params, zs)
    assert a.shape == b.shape == (T, B, F)
    h = jax.random.normal(jax.random.key(3), (T, B, F))
    carry = cell.carry((T, B), jnp.float32)._replace(h=h)
    after, y = cell.step(params, carry, zs)
    np.testing.assert_allclose(after.h, a * h + b, atol=1e-6)
    np.testing.assert_array_equal(after.h, y)


@pytest.mark.parametrize("name", ["min_gru", "min_lstm"])
def test_the_positive_version_stays_positive(name):
    cell = cells.from_spec(f"{name}:positive=True", F)
    params = randomised(cell.init(jax.random.key(0), D), jax.random.key(1))
    xs = 3 * jax.random.normal(jax.random.key(2), (T, B, D))
    assert (unroll(cell, params, xs)[1] > 0).all()
    assert (unroll(cells.from_spec(name, F), params, xs)[1] < 0).any()


def test_min_lstm_normalises_gates_that_both_vanish():
    cell = cells.from_spec("min_lstm:forget_bias=1.5", F)
    params = cell.init(jax.random.key(0), D)
    assert (params["bias"]["f"] == 1.5).all()
    assert (params["bias"]["i"] == 0).all()

    def parts(f, i):
        return jnp.stack(cell.linear(params, {"f": f, "i": i, "n": jnp.ones_like(f)}))

    # f = exp(-1000), i = exp(-1001): both are 0 in float32, but their normalised values are not.
    f, i = jnp.array([-1000.0, 1000.0, -1000.0]), jnp.array([-1001.0, 1000.0, 1000.0])
    expected = [[sigmoid(1), 0.5, 0], [1 - sigmoid(1), 0.5, 1]]
    np.testing.assert_allclose(parts(f, i), expected, atol=1e-6)
    gradient = jax.grad(lambda f: parts(f, i)[0].sum())(f)
    np.testing.assert_allclose(gradient, [sigmoid(1) * sigmoid(-1), 0, 0], atol=1e-6)


def test_rg_lru_begins_between_its_slowest_and_its_fastest_decay():
    for c in (8.0, 2.0):
        p = cells.from_spec(f"rg_lru:c={c}", 4096).init(jax.random.key(0), 1)
        decay = np.sort(sigmoid(np.asarray(p["lambda"], np.float64)) ** c)
        np.testing.assert_allclose(decay, np.linspace(0.9, 0.999, 4096), atol=0.003)


def test_rg_lru_is_precise_and_has_a_gradient_where_it_forgets_nothing():
    cell = cells.from_spec("rg_lru", 1)
    params = cell.init(jax.random.key(0), 1)

    def scale(decay, r):
        z = {"r": r, "i": jnp.zeros_like(r), "v": jnp.full_like(r, 2.0)}
        return cell.linear({**params, "lambda": decay}, z)[1].sum()  # sqrt(1 - a²)

    rs, decays = [0.0, -10.0, -14.0, -200.0], [3.0, 20.0, 60.0]
    for r in rs:
        for decay in decays:
            with jax.enable_x64(True):
                exact = jax.value_and_grad(scale, (0, 1))(jnp.full(1, decay), jnp.full(1, r))
            ours = jax.value_and_grad(scale, (0, 1))(
                jnp.full(1, decay, jnp.float32), jnp.full(1, r, jnp.float32)
            )
            for mine, right in zip(jax.tree.leaves(ours), jax.tree.leaves(exact), strict=True):
                assert np.isfinite(right).all()
                np.testing.assert_allclose(mine, right, rtol=0.05, atol=1e-12)


def test_recurrent_kernels_are_orthogonal():
    p = cells.from_spec("lstm", F).init(jax.random.key(0), D)
    for u in p["recurrent"].values():
        np.testing.assert_allclose(u @ u.T, np.eye(F), atol=1e-5)


@pytest.mark.parametrize("residual", [False, True])
def test_stack_is_its_layers_one_after_another(residual):
    layers = [cells.from_spec(spec, F) for spec in ("gru", "lstm", "rnn")]
    cell = cells.stack(layers, residual=residual)
    params = randomised(cell.init(jax.random.key(0), D), jax.random.key(1))
    xs = jax.random.normal(jax.random.key(2), (T, B, D))
    carry, ys = unroll(cell, params, xs)
    expected = xs
    for n, layer in enumerate(layers):
        last, out = unroll(layer, params[str(n)], expected)
        expected = expected + out if residual and n else out
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), carry[n], last)
    np.testing.assert_allclose(ys, expected, atol=1e-6)


@pytest.mark.parametrize("layers", [1, 2])
def test_learned_carry_is_where_the_sequence_begins(layers):
    plain = cells.build("lstm", F, layers=layers)
    cell = cells.build("lstm", F, layers=layers, learned=True)
    params = cell.init(jax.random.key(0), D)
    xs = jax.random.normal(jax.random.key(2), (T, B, D))
    np.testing.assert_array_equal(unroll(cell, params, xs)[1], unroll(plain, params["cell"], xs)[1])
    params["carry"] = randomised(params["carry"], jax.random.key(3))
    first = initial_carry(cell, params, (B,), jnp.float32)
    _, ys = unroll(cell, params, xs)
    np.testing.assert_array_equal(ys, unroll(plain, params["cell"], xs, first)[1])
    gradient = jax.grad(lambda p: unroll(cell, p, xs)[1].sum())(params)
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradient["carry"]))


def test_a_learned_carry_inside_a_stack_is_used():
    cell = cells.stack([cells.from_spec("gru", F), cells.learned_carry(cells.from_spec("gru", F))])
    params = cell.init(jax.random.key(0), D)
    params["1"]["carry"]["0"] = jnp.ones(F)
    first = initial_carry(cell, params, (B,), jnp.float32)
    assert (first[0].h == 0).all()
    assert (first[1].h == 1).all()


@pytest.mark.parametrize("name", cells.names())
def test_every_cell_has_its_equations_beside_the_tests(name):
    assert name in EQUATIONS, f"write EQUATIONS in tests/cells/cell_equations/{name}.py"
    assert cells.from_spec(name, F).features == F


def test_every_file_of_equations_has_a_cell():
    folder = pathlib.Path(__file__).parent / "cell_equations"
    assert sorted(path.stem for path in folder.glob("*.py")) == cells.names()
    assert {spec.partition(":")[0] for spec in EQUATIONS} == set(cells.names())
