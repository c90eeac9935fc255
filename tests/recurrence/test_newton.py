"""Newton's method equals the loop, is fast if contractive, and reports failure if not."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import recurrence_problems as problems
from recurrence_problems import FULL, Mode

from rnngen_jax import cells
from rnngen_jax.cells.base import Cell
from rnngen_jax.errors import UserError
from rnngen_jax.recurrence import unroll
from rnngen_jax.recurrence.base import Sequence
from rnngen_jax.recurrence.newton import newton, solve
from rnngen_jax.recurrence.newton.linear import diagonals, jacobians, linear_recurrence
from rnngen_jax.recurrence.newton.method import PATIENCE, Method

T, B, D, F = 7, 2, 3, 4

CELLS = {
    "rnn": lambda: cells.build("rnn", F),
    "gru": lambda: cells.build("gru", F),
    "lstm": lambda: cells.build("lstm", F),
    "stack": lambda: cells.build("rnn", F, layers=2, learned=True),
}
WAYS = [
    ("gru", {"jacobian": "full"}, Mode()),
    ("lstm", {"jacobian": "full"}, FULL[1]),
    ("stack", {"jacobian": "full"}, FULL[0]),
    ("rnn", {"jacobian": "full", "window": 3}, FULL[1]),
    ("lstm", {"jacobian": "diagonal"}, FULL[0]),
    ("rnn", {"jacobian": "full", "max_iterations": 1}, FULL[1]),
]


def scaled(params, gain):
    """The parameters with every recurrent kernel scaled."""
    return {**params, "recurrent": jax.tree.map(lambda u: gain * u, params["recurrent"])}


def plain(cell, xs):
    zeros = cell.carry(xs.shape[1:-1], xs.dtype)
    return Sequence(xs, zeros, zeros, None, False)


@pytest.mark.parametrize(
    ("name", "options", "mode"),
    [pytest.param(*WAYS[0], marks=pytest.mark.optimised), *WAYS[1:]],
)
def test_newton_is_the_python_loop_in_value_and_gradient(name, options, mode):
    with jax.enable_x64(True):
        problem = problems.draw(CELLS[name](), (T, B, D), mode)
        strategy = newton(tolerance=1e-11, overhead=math.inf, **options)
        fast, slow = (problems.solve(problem, strategy=way) for way in (strategy, "loop"))
        problems.close(fast, slow, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("jacobian", ["full", "diagonal"])
def test_an_iteration_that_overflows_is_given_up(jacobian):
    cell = cells.build("gru", 8)
    keys = jax.random.split(jax.random.key(0))
    xs = jax.random.normal(keys[1], (256, 4, 1))

    @jax.jit
    def both(params):
        _, ys, report = solve(cell, params, plain(cell, xs), jacobian=jacobian, overhead=math.inf)
        return ys, report, unroll(cell, params, xs)[1]

    for gain in (6.0, 16.0):
        ys, report, expected = both(scaled(cell.init(keys[0], 1), gain))
        assert not report.converged
        assert report.sequential_steps == 256
        np.testing.assert_array_equal(ys, expected)


@pytest.mark.parametrize("jacobian", ["full", "diagonal"])
def test_what_converged_is_the_sequential_run(jacobian):
    length, converged, refused = 48, 0, 0
    cell = cells.build("rnn", 6)

    @jax.jit
    def both(params, xs):
        _, ys, report = solve(cell, params, plain(cell, xs), jacobian=jacobian, overhead=math.inf)
        return ys, report, unroll(cell, params, xs)[1]

    for seed in range(6):
        keys = jax.random.split(jax.random.key(seed))
        params, xs = cell.init(keys[0], D), jax.random.normal(keys[1], (length, B, D))
        for gain in (0.5, 0.8, 1.0, 1.3, 1.7, 2.2, 3.0, 4.0):
            ys, report, expected = both(scaled(params, gain), xs)
            assert np.isfinite(ys).all()
            if report.converged:
                converged += 1
                np.testing.assert_allclose(ys, expected, rtol=1e-5, atol=1e-5)
                assert np.abs(ys - expected).max() <= 2 * report.error <= 2e-5
            else:
                refused += 1
                np.testing.assert_array_equal(ys, expected)
    assert converged >= 10
    assert refused >= 10


def growing_cell():
    """h' = x R h + 1/10 with R a rotation: linear, so its gain is x."""
    rotation = jnp.array([[0.0, 1.0], [-1.0, 0.0]])

    def step(params, h, z):
        h = z * (h @ rotation) + 0.1
        return h, h

    def carry(batch_shape, dtype):
        return jnp.zeros((*batch_shape, 2), dtype)

    return Cell(2, lambda key, in_features: {}, carry, lambda params, xs: xs, step)


def solve_growing(gains, guess=None, **options):
    """The report and outputs for gains `[T]`, and the sequential outputs."""
    cell = growing_cell()

    def both(xs, guess):
        last, ys, report = solve(cell, {}, plain(cell, xs), guess=guess, **options)
        return last, ys, report, unroll(cell, {}, xs)[1]

    return jax.jit(both)(jnp.broadcast_to(gains[:, None, None], (len(gains), B, 1)), guess)


@pytest.mark.parametrize("jacobian", ["full", "diagonal"])
def test_a_shadow_is_not_a_solution(jacobian):
    """Each step of the guess is accurate to 1e-6, but the cell amplifies this to more than 1e-4."""
    gains = jnp.full(32, 1.3)
    _, ys = unroll(growing_cell(), {}, jnp.broadcast_to(gains[:, None, None], (32, B, 1)))
    guess = ys + 1e-6 * 1.3 ** jnp.arange(32)[:, None, None]
    _, got, report, expected = solve_growing(gains, guess, jacobian=jacobian, window=32)
    assert not report.converged
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize(("gain", "jacobian"), [(1.1, "full"), (0.5, "full"), (0.5, "diagonal")])
def test_the_account_runs_over_all_windows(gain, jacobian):
    """A gain of 1.1 passes in any window of 8 steps, but amounts to 2000 over 80 steps."""
    last, ys, report, expected = solve_growing(jnp.full(80, gain), jacobian=jacobian, window=8)
    assert report.converged == (gain < 1)
    assert report.newton_steps + report.sequential_steps == 80
    if gain > 1:
        assert 8 <= report.newton_steps < 80
    np.testing.assert_allclose(ys, expected, rtol=1e-4)
    np.testing.assert_array_equal(last, ys[-1])


def test_the_rest_goes_on_from_the_last_certified_step():
    gains = jnp.where(jnp.arange(75) < 45, 0.3, 3.0)
    _, ys, report, expected = solve_growing(gains, window=8)
    assert report.newton_steps == 40
    assert report.sequential_steps == 35
    xs = jnp.broadcast_to(gains[:, None, None], (75, B, 1))
    _, rest = unroll(growing_cell(), {}, xs[40:], report.carries[39])
    np.testing.assert_allclose(ys[40:], rest, rtol=1e-6)
    np.testing.assert_allclose(ys[:40], expected[:40], rtol=1e-5, atol=1e-6)


def test_contractive_cells_need_few_iterations_and_a_guess_fewer():
    cell, length = cells.build("gru", F), 40
    params = scaled(cell.init(jax.random.key(0), D), 0.7)
    sequence = plain(cell, jax.random.normal(jax.random.key(1), (length, B, D)))
    near = jax.tree.map(lambda a: a + 1e-3, params)

    @functools.partial(jax.jit, static_argnames="jacobian")
    def run(params, guess, jacobian):
        options = {"overhead": math.inf, "jacobian": jacobian}
        return solve(cell, params, sequence, guess=guess, **options)[2]

    for jacobian, most in (("full", 8), ("diagonal", 25)):
        report = run(params, None, jacobian)
        assert report.converged
        assert report.newton_steps == length
        assert report.iterations <= most
        assert report.residual < 1e-5
    cold, warm = run(near, None, "diagonal"), run(near, report.carries, "diagonal")
    assert warm.converged
    assert warm.iterations < cold.iterations


def test_batch_axes_vmap_and_reports():
    cell = cells.build("lstm", F)
    params = cell.init(jax.random.key(0), D)
    xs = jax.random.normal(jax.random.key(1), (6, B, D))

    @jax.jit
    def run(xs):
        _, double = unroll(cell, params, xs[:, :, None], strategy="newton:window=3")
        alone = jax.vmap(lambda x: solve(cell, params, plain(cell, x), window=3), in_axes=1)(xs)
        return double[:, :, 0], alone, unroll(cell, params, xs)

    double, (last, inner, report), (carry, ys) = run(xs)
    np.testing.assert_allclose(double, ys, atol=1e-5)
    np.testing.assert_allclose(inner.swapaxes(0, 1), ys, atol=1e-5)
    np.testing.assert_allclose(last.c, carry.c, atol=1e-5)
    np.testing.assert_allclose(report.carries.h.swapaxes(0, 1), ys, atol=1e-5)
    assert report.converged.shape == (B,)


def test_a_trial_that_costs_too_much_is_not_made():
    cell = cells.build("gru", 64)
    params = cell.init(jax.random.key(0), D)
    xs = jax.random.normal(jax.random.key(1), (T, B, D))
    wanted, ys = unroll(cell, params, xs)
    carry, got = unroll(cell, params, xs, strategy="newton")
    np.testing.assert_array_equal(got, ys)
    np.testing.assert_array_equal(carry.h, wanted.h)
    _, got, report = solve(cell, params, plain(cell, xs))
    np.testing.assert_array_equal(got, ys)
    assert report.iterations == report.newton_steps == 0
    for length in (784, 4096, 100_000):
        for size in (2, 8, 32, 128):
            for jacobian in ("full", "diagonal"):
                method = Method(jacobian, 1e-5, 32, 8, 0, 0.05)
                window = method.window_for((length, 4, D), size)
                assert PATIENCE * method.cost(window or 1, 4, size) <= 0.05 * length or not window


def test_linear_recurrence_and_diagonals_are_what_they_say():
    rng = np.random.default_rng(0)
    matrices, terms = rng.standard_normal((7, B, 3, 3)), rng.standard_normal((7, B, 3, 2))
    for factors, way in ((matrices, 1), (matrices, -1), (matrices[..., :1], 1)):
        run = jax.jit(functools.partial(linear_recurrence, reverse=way < 0))
        got = run(jnp.array(factors), jnp.array(terms))
        d, wanted = np.zeros((B, 3, 2)), np.zeros_like(terms)
        for t in range(7)[::way]:
            full = factors[t] if factors.shape[-1] > 1 else factors[t] * np.eye(3)
            d = full @ d + terms[t]
            wanted[t] = d
        np.testing.assert_allclose(got, wanted, rtol=2e-4, atol=2e-4)

    def tangent(v):
        return jnp.einsum("tbij,tbj->tbi", matrices, v)

    like = jnp.zeros((7, B, 3))
    np.testing.assert_allclose(jacobians(tangent, like), matrices, rtol=1e-6)
    exact = np.diagonal(matrices, axis1=-2, axis2=-1)[..., None]
    np.testing.assert_allclose(diagonals(tangent, like, 3), exact, rtol=1e-6)
    # One probe for three values: the diagonal, plus noise from the other entries.
    assert np.abs(diagonals(tangent, like, 1) - exact).max() > 0.1


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("newton:jacobian=block", "jacobian must be one of diagonal, full, got 'block'"),
        ("newton:tolerance=0.0", "tolerance must be > 0, got 0.0"),
        ("newton:max_iterations=0", "max_iterations must be ≥ 1, got 0"),
        ("newton:probes=0", "probes must be ≥ 1, got 0"),
        ("newton:window=-1", "window must be ≥ 1, or 0 to derive it, got -1"),
        ("newton:overhead=-0.1", "overhead must be ≥ 0, got -0.1"),
        ("newton:iterations=3", "did you mean 'max_iterations'"),
    ],
)
def test_options_out_of_range_are_refused(spec, message):
    cell = cells.build("gru", F)
    params = cell.init(jax.random.key(0), D)
    with pytest.raises(UserError, match=message):
        unroll(cell, params, jnp.ones((T, B, D)), strategy=spec)
