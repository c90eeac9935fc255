"""The associative strategy equals the Python loop in value and gradient, and keeps less."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from rnngen_jax import cells
from rnngen_jax.errors import UserError
from rnngen_jax.recurrence import unroll
from rnngen_jax.recurrence.associative import associative

T, B, D, F = 5, 2, 3, 4

CELLS = {
    "min_gru": lambda: cells.build("min_gru", F),
    "min_lstm": lambda: cells.build("min_lstm:positive=True", F),
    "learned_rg_lru_stack": lambda: cells.build("rg_lru", F, layers=2, residual=True, learned=True),
}


def close(a, b):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-11), a, b)


def drawn(cell, rng):
    shapes = jax.eval_shape(lambda: cell.init(jax.random.key(0), D))
    return jax.tree.map(lambda leaf: 0.7 * rng.standard_normal(leaf.shape), shapes)


# Every mode with chunks that leave a step over, and every way of solving.
MODES = list(itertools.product([False, True], repeat=3))
WAYS = [("min_gru", "chunk=2", mode) for mode in MODES]
WAYS += [(name, "chunk=2", mode) for name in list(CELLS)[1:] for mode in (MODES[3], MODES[7])]
WAYS += [
    (
        "min_gru",
        f"chunk={chunk},solver={solver},gradient={gradient},remat={n % 3 == 0}",
        MODES[3] if (n + n // 2 + n // 4) % 2 else MODES[7],
    )
    for n, (chunk, solver, gradient) in enumerate(
        itertools.product([0, 2, 9], ["prefix", "steps"], ["adjoint", "autodiff"])
    )
]
WAYS += [("min_gru", f"chunk={chunk},solver=prefix", MODES[7]) for chunk in (1, T)]


@functools.cache
def solved(name, strategy, mode):
    """Value and gradients of a run with everything drawn at random, in float64."""
    reverse, with_reset, carried = mode
    cell, rng = CELLS[name](), np.random.default_rng(0)
    params, xs = drawn(cell, rng), rng.standard_normal((T, B, D))
    weights, reset = rng.standard_normal((T, B, F)), rng.random((T, B)) < 0.3
    # A carry of None has no leaves, and no gradient.
    carry = jax.tree.map(lambda a: a + rng.standard_normal(F), cell.carry((B,), float))

    def loss(params, xs, carry):
        last, ys = unroll(
            cell,
            params,
            xs,
            carry,
            strategy=strategy,
            reset=reset if with_reset else None,
            reverse=reverse,
        )
        total = sum((h * weights[0]).sum() for h in jax.tree.leaves(last))
        return total + (ys * weights).sum(), (last, ys)

    wanted = jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True)
    # Compiling the loop would take longer than running it.
    run = wanted if strategy == "loop" else jax.jit(wanted)
    return run(params, xs, carry if carried else None)


@pytest.mark.parametrize(("name", "options", "mode"), WAYS)
def test_associative_is_the_python_loop_in_value_and_gradient(name, options, mode):
    with jax.enable_x64(True):
        close(solved(name, f"associative:{options}", mode), solved(name, "loop", mode))


def test_any_batch_axes_and_vmap_change_no_number():
    cell = cells.build("min_gru", F)
    params = cell.init(jax.random.key(0), D)
    xs = jax.random.normal(jax.random.key(1), (T, B, D))

    def total(x, strategy="associative:chunk=2"):
        return (unroll(cell, params, x, strategy=strategy)[1] ** 2).sum()

    expected = jax.grad(lambda x: total(x, "loop"))(xs)
    np.testing.assert_allclose(jax.grad(total)(xs), expected, atol=1e-6)
    np.testing.assert_allclose(jax.grad(total)(xs[:, 0]), expected[:, 0], atol=1e-6)
    np.testing.assert_allclose(jax.grad(total)(xs[:, :, None])[:, :, 0], expected, atol=1e-6)
    mapped = jax.vmap(jax.grad(total), in_axes=1, out_axes=1)(xs)
    np.testing.assert_allclose(mapped, expected, atol=1e-6)


def test_a_gradient_for_the_last_carry_alone_and_one_for_the_batch_of_parameters():
    cell = cells.build("rg_lru", F)
    keys = jax.random.split(jax.random.key(0), 3)
    params = jax.vmap(lambda key: cell.init(key, D))(keys)
    xs = jax.random.normal(jax.random.key(1), (T, B, D))

    def gradients(strategy):
        def last(p):
            return unroll(cell, p, xs, strategy=strategy, reverse=True)[0].h.sum()

        return jax.vmap(jax.grad(last))(params)

    ours, theirs = gradients("associative:chunk=2"), gradients("loop")
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), ours, theirs)


def test_autodiff_has_forward_mode_and_second_order():
    with jax.enable_x64(True):
        cell, rng = cells.build("rg_lru", F), np.random.default_rng(0)
        params, xs = drawn(cell, rng), rng.standard_normal((4, B, D))

        def outputs(xs, gradient):
            strategy = associative(chunk=2, solver="prefix", gradient=gradient)
            return unroll(cell, params, xs, strategy=strategy)[1]

        check_grads(jax.jit(lambda xs: outputs(xs, "autodiff")), (xs,), order=2)
        check_grads(jax.jit(lambda xs: outputs(xs, "adjoint")), (xs,), order=1, modes=["rev"])
        with pytest.raises(TypeError, match="forward-mode"):
            jax.jvp(lambda xs: outputs(xs, "adjoint"), (xs,), (xs,))


def test_a_long_memory_is_exact_where_a_cumulative_product_would_underflow():
    """a = 0.12 for 400 steps is 1e-368 as a product, below the least float64."""
    cell = cells.build("min_gru", 1)
    params = {
        "input": {"z": jnp.zeros((1, 1)), "n": jnp.ones((1, 1))},
        "bias": {"z": jnp.full(1, 2.0), "n": jnp.zeros(1)},
    }
    xs = jax.random.normal(jax.random.key(0), (400, 1, 1))
    slow = unroll(cell, params, xs, strategy="loop")[1]
    for options in ("solver=prefix", "solver=steps", "solver=prefix,chunk=400"):
        fast = unroll(cell, params, xs, strategy=f"associative:{options}")[1]
        np.testing.assert_allclose(fast, slow, atol=1e-6)


def plain(cell, params, xs):
    """The textbook way: one `jax.lax.associative_scan` over all of time."""

    def join(near, far):
        return near[0] * far[0], far[0] * near[1] + far[1]

    return jax.lax.associative_scan(join, cell.linear(params, cell.inputs(params, xs)))[1]


def test_the_gradient_needs_less_memory_than_a_plain_associative_scan():
    cell = cells.build("min_gru", 16)
    params = cell.init(jax.random.key(0), D)
    xs, size = jnp.ones((512, B, D)), 4 * 512 * B * 16

    def needs(outputs):
        gradient = jax.jit(jax.grad(lambda p: (outputs(p) ** 2).sum()))
        return gradient.lower(params).compile().memory_analysis().temp_size_in_bytes / size

    def ours(**options):
        return lambda p: unroll(cell, p, xs, strategy=associative(chunk=32, **options))[1]

    np.testing.assert_allclose(ours()(params), plain(cell, params, xs), atol=1e-5)
    textbook = needs(lambda p: plain(cell, p, xs))
    for solver in ("prefix", "steps"):
        # In units of one [T, B, F] array, which h itself takes.
        least, kept = needs(ours(solver=solver)), needs(ours(solver=solver, remat=False))
        assert least < 4 < textbook / 2
        assert least < kept / 1.5
    by_autodiff = needs(ours(solver="prefix", remat=False, gradient="autodiff"))
    assert needs(ours(solver="prefix", remat=False)) < 0.8 * by_autodiff


def test_what_does_not_fit_is_refused():
    xs = jnp.ones((T, B, D))
    cell = cells.build("lstm", F)
    params = cell.init(jax.random.key(0), D)
    with pytest.raises(UserError, match=r"linear in its carry.*'sequential' runs any cell"):
        unroll(cell, params, xs, strategy="associative")
    for options, message in [
        ("chunk=-1", "chunk=-1 does not fit; allowed: 0 or more"),
        ("solver=stpes", "did you mean 'steps'"),
        ("gradient=adjont", "did you mean 'adjoint'"),
        ("remat=2", "True or False"),
    ]:
        with pytest.raises(UserError, match=message):
            unroll(cell, params, xs, strategy=f"associative:{options}")
