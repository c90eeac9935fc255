"""`unroll` equals a plain Python loop in value and gradient, in every mode; `generate` too."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rnngen_jax import cells
from rnngen_jax.errors import UserError
from rnngen_jax.recurrence import bidirectional, generate, unroll

T, B, D, F = 5, 3, 6, 5

CELLS = {
    "rnn": lambda: cells.build("rnn", F),
    "gru": lambda: cells.build("gru", F),
    "lstm": lambda: cells.build("lstm", F),
    "learned_lstm_stack": lambda: cells.build("lstm", F, layers=2, residual=True, learned=True),
    "layer_norm_gru": lambda: cells.build("layer_norm_gru", F),
}


def close(a, b):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-10, atol=1e-12), a, b)


MODES = list(itertools.product([False, True], repeat=3))
# Forwards with all that a sequence can have, and backwards with the same.
FULL = [(False, True, True), (True, True, True)]
WAYS = [(name, {}, mode, D) for name in ("lstm", "learned_lstm_stack") for mode in MODES]
WAYS += [(name, {}, mode, D) for name in ("rnn", "gru", "layer_norm_gru") for mode in FULL]
WAYS += [
    (name, {"strategy": f"sequential:{options}"}, mode, D)
    for name, options in (
        ("rnn", "gates=recompute,chunk=2"),
        ("gru", "gates=recompute,chunk=3"),
        ("gru", "gates=store,chunk=2"),
        ("lstm", "gates=recompute,chunk=2"),
        ("lstm", "gates=store,chunk=3"),
        ("lstm", "gradient=autodiff"),
        ("lstm", "remat=2"),
        ("gru", "remat=6"),
    )
    for mode in FULL
]
WAYS += [("learned_lstm_stack", {"remat": 3}, mode, D) for mode in FULL]
# Few input features: the input product is done inside the loop.
WAYS += [(name, {}, mode, 1) for name in ("rnn", "gru", "lstm") for mode in FULL]
WAYS += [("lstm", {"strategy": "sequential:gradient=autodiff"}, FULL[1], 1)]


def problem(name, mode, width):
    """A cell, its arguments, and a loss of `unroll` with them in the mode asked for."""
    reverse, with_reset, carried = mode
    cell = CELLS[name]()
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: cell.init(jax.random.key(0), width))
    params = jax.tree.map(lambda leaf: 0.5 * rng.standard_normal(leaf.shape), shapes)
    xs = rng.standard_normal((T, B, width))
    reset = rng.random((T, B)) < 0.3 if with_reset else None
    carry = jax.tree.map(lambda a: a + 0.5, cell.carry((B,), jnp.float64)) if carried else None
    weights = rng.standard_normal((T, B, F))

    def loss(params, xs, carry, **options):
        last, ys = unroll(cell, params, xs, carry, reset=reset, reverse=reverse, **options)
        total = (ys * weights).sum() + sum(jnp.sin(leaf).sum() for leaf in jax.tree.leaves(last))
        return total, (last, ys)

    arguments = (0, 1, 2) if carried else (0, 1)
    return (params, xs, carry), jax.value_and_grad(loss, argnums=arguments, has_aux=True)


@functools.cache
def by_the_loop(name, mode, width):
    arguments, gradient = problem(name, mode, width)
    return gradient(*arguments, strategy="loop")


@pytest.mark.parametrize(("name", "options", "mode", "width"), WAYS)
def test_unroll_is_the_python_loop_in_value_and_gradient(name, options, mode, width):
    with jax.enable_x64(True):
        arguments, gradient = problem(name, mode, width)
        fast = jax.jit(lambda *arguments: gradient(*arguments, **options))(*arguments)
        close(fast, by_the_loop(name, mode, width))


def test_gradients_under_vmap_are_those_of_each():
    with jax.enable_x64(True):
        cell = cells.build("lstm", F)
        params = jax.vmap(lambda k: cell.init(k, D))(jax.random.split(jax.random.key(0), 2))
        xs = jax.random.normal(jax.random.key(1), (2, T, B, D))

        def loss(params, xs, strategy):
            return jnp.sin(unroll(cell, params, xs, strategy=strategy)[1]).sum()

        together = jax.vmap(jax.grad(lambda p, x: loss(p, x, "sequential:chunk=2")))(params, xs)
        second = jax.tree.map(lambda leaf: leaf[1], params)
        alone = jax.grad(loss)(second, xs[1], "loop")
        close(jax.tree.map(lambda leaf: leaf[1], together), alone)


def test_forward_mode_and_second_derivatives():
    cell = cells.build("gru", F)
    params = cell.init(jax.random.key(0), D)
    xs = jax.random.normal(jax.random.key(1), (T, B, D))

    def loss(params, strategy):
        return jnp.square(unroll(cell, params, xs, strategy=strategy)[1]).sum()

    def along(function):
        """The derivative of a function of the parameters along the parameters themselves."""
        return jax.jit(lambda p: jax.jvp(function, (p,), (p,))[1])(params)

    def curvature(strategy):
        return along(jax.grad(lambda p: loss(p, strategy)))

    slope = along(lambda p: loss(p, "sequential:gradient=autodiff"))
    np.testing.assert_allclose(slope, along(lambda p: loss(p, "loop")), rtol=1e-5)
    with pytest.raises(TypeError, match="forward-mode"):
        along(lambda p: loss(p, "sequential"))
    expected = curvature("loop")
    for strategy in ("sequential:gradient=autodiff", "sequential"):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4),
            curvature(strategy),
            expected,
        )


def test_unroll_factor_and_any_batch_axes_change_no_number():
    cell = cells.build("gru", F)
    params = cell.init(jax.random.key(0), D)
    xs = jax.random.normal(jax.random.key(1), (T, B, D))
    carry, ys = unroll(cell, params, xs)
    np.testing.assert_allclose(unroll(cell, params, xs, unroll=4)[1], ys, atol=1e-6)
    _, single = unroll(cell, params, xs[:, 0])
    np.testing.assert_allclose(single, ys[:, 0], atol=1e-6)
    _, double = unroll(cell, params, xs[:, :, None])
    np.testing.assert_allclose(double[:, :, 0], ys, atol=1e-6)
    assert carry.h.shape == (B, F)
    mapped = jax.vmap(lambda x: unroll(cell, params, x)[1], in_axes=1, out_axes=1)(xs)
    np.testing.assert_allclose(mapped, ys, atol=1e-6)


def test_each_way_keeps_less_for_the_gradient_than_the_one_before():
    cell = cells.build("lstm", F)
    params = cell.init(jax.random.key(0), D)
    xs = jnp.ones((64, B, D))

    def kept(strategy):
        loss = lambda p: unroll(cell, p, xs, strategy=strategy)[1].sum()  # noqa: E731
        residuals = jax.vjp(loss, params)[1]
        return sum(leaf.size for leaf in jax.tree.leaves(residuals))

    every = kept("sequential:gradient=autodiff")
    stored, recomputed = (kept(f"sequential:gates={gates}") for gates in ("store", "recompute"))
    # Against the gates and carries of 64 steps: the carries alone, and those of 8 steps.
    assert every > stored > recomputed + 64 * 4 * B * F - 1
    assert kept("sequential:remat=8") < recomputed - 56 * 2 * B * F + 1


def test_the_cell_says_how_it_is_run_unless_told():
    xs = jnp.ones((T, B, D))

    def runs(spec, **options):
        cell = cells.build(spec, F)
        params = jax.eval_shape(lambda: cell.init(jax.random.key(0), D))
        return str(jax.make_jaxpr(lambda p: unroll(cell, p, xs, **options)[1])(params))

    assert "custom_vjp" in runs("gru")
    assert "custom_vjp" not in runs("gru@sequential:gradient=autodiff")
    assert "custom_vjp" in runs("gru@sequential:gradient=autodiff", strategy="sequential")
    assert "scan" not in runs("gru@loop")
    with pytest.raises(UserError, match="'sideways' is not known"):
        runs("gru@sideways")
    with pytest.raises(UserError, match="'' is not known"):
        runs("gru@")


def test_reset_begins_a_sequence_anew():
    cell = cells.build("gru", F)
    params = cell.init(jax.random.key(0), D)
    xs = jax.random.normal(jax.random.key(1), (T, B, D))
    reset = jnp.zeros((T, B), bool).at[3].set(True)
    _, ys = unroll(cell, params, xs, reset=reset)
    _, anew = unroll(cell, params, xs[3:])
    np.testing.assert_allclose(ys[3:], anew, atol=1e-6)
    assert np.abs(ys[3:] - unroll(cell, params, xs)[1][3:]).max() > 1e-3


def test_bidirectional_is_one_cell_each_way():
    forward, backward = cells.build("gru", F), cells.build("lstm", F + 1)
    params = {
        "forward": forward.init(jax.random.key(0), D),
        "backward": backward.init(jax.random.key(1), D),
    }
    xs = jax.random.normal(jax.random.key(2), (T, B, D))
    carries, ys = bidirectional(forward, backward, params, xs)
    assert ys.shape == (T, B, 2 * F + 1)
    flipped = unroll(backward, params["backward"], xs[::-1], strategy="loop")
    np.testing.assert_allclose(ys[..., :F], unroll(forward, params["forward"], xs)[1], atol=1e-6)
    np.testing.assert_allclose(ys[..., F:], flipped[1][::-1], atol=1e-6)
    np.testing.assert_allclose(carries["backward"].c, flipped[0].c, atol=1e-6)
    # Two sequences in one, of 2 and 3 steps: each direction resets where it enters the next one.
    masks = {
        "forward": jnp.zeros((T, B), bool).at[2].set(True),
        "backward": jnp.zeros((T, B), bool).at[1].set(True),
    }
    _, joined = bidirectional(forward, backward, params, xs, reset=masks)
    for part in (slice(0, 2), slice(2, 5)):
        _, alone = bidirectional(forward, backward, params, xs[part])
        np.testing.assert_allclose(joined[part], alone, atol=1e-6)


def test_generate_feeds_a_sampler_its_own_output():
    def step(carry, x, t, key):
        x = x + jax.random.normal(key, x.shape) + t
        return carry + x, x

    key = jax.random.key(5)
    carry, xs = jax.jit(lambda: generate(step, jnp.zeros(2), jnp.ones(2), key, 6))()
    total, x = np.zeros(2), np.ones(2)
    for t in range(6):
        x = x + np.asarray(jax.random.normal(jax.random.fold_in(key, t), (2,))) + t
        total = total + x
        np.testing.assert_allclose(xs[t], x, rtol=1e-6)
    np.testing.assert_allclose(carry, total, rtol=1e-6)


def test_wrong_options_are_refused():
    cell = cells.build("gru", F)
    params = cell.init(jax.random.key(0), D)
    with pytest.raises(UserError, match="parallel"):
        unroll(cell, params, jnp.ones((T, B, D)), strategy="parallel")
    with pytest.raises(UserError, match="has no option 'gate=store'; did you mean 'gates'"):
        unroll(cell, params, jnp.ones((T, B, D)), strategy="sequential:gate=store")
    with pytest.raises(ValueError, match="unroll=2"):
        unroll(cell, params, jnp.ones((T, B, D)), strategy="loop", unroll=2)
    with pytest.raises(ValueError, match="remat=0"):
        unroll(cell, params, jnp.ones((T, B, D)), remat=0)
