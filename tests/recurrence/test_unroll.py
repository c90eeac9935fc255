"""`unroll` equals a plain Python loop in value and gradient, in every mode; `generate` too."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rnngen_jax import cells
from rnngen_jax.errors import UserError
from rnngen_jax.recurrence import bidirectional, generate, unroll

T, B, D, F = 5, 3, 4, 5

CELLS = {
    "rnn": lambda: cells.build("rnn", F),
    "gru": lambda: cells.build("gru", F),
    "learned_lstm_stack": lambda: cells.build("lstm", F, layers=2, residual=True, learned=True),
    "layer_norm_gru": lambda: cells.build("layer_norm_gru", F),
}


def close(a, b):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-10, atol=1e-12), a, b)


MODES = list(itertools.product([False, True], repeat=3))
WAYS = [(name, (None, 3)[n // 4], mode) for name in CELLS for n, mode in enumerate(MODES)]
WAYS += [("gru", remat, (reverse, True, True)) for remat in (1, 2, 5, 6) for reverse in (0, 1)]


@pytest.mark.parametrize(("name", "remat", "mode"), WAYS)
def test_unroll_is_the_python_loop_in_value_and_gradient(name, remat, mode):
    reverse, with_reset, carried = mode
    with jax.enable_x64(True):
        cell = CELLS[name]()
        rng = np.random.default_rng(0)
        shapes = jax.eval_shape(lambda: cell.init(jax.random.key(0), D))
        params = jax.tree.map(lambda leaf: 0.5 * rng.standard_normal(leaf.shape), shapes)
        xs = rng.standard_normal((T, B, D))
        reset = rng.random((T, B)) < 0.3 if with_reset else None
        carry = None
        if carried:
            carry = jax.tree.map(lambda a: a + 0.5, cell.carry((B,), jnp.float64))
        weights = rng.standard_normal((T, B, F))

        def loss(params, xs, carry, **options):
            last, ys = unroll(cell, params, xs, carry, reset=reset, reverse=reverse, **options)
            total = (ys * weights).sum() + sum(leaf.sum() for leaf in jax.tree.leaves(last))
            return total, (last, ys)

        wanted = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)
        fast = jax.jit(lambda p, x, c: wanted(p, x, c, remat=remat))(params, xs, carry)
        slow = wanted(params, xs, carry, strategy="loop")
        close(fast, slow)


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


def test_remat_keeps_less_for_the_gradient():
    cell = cells.build("lstm", F)
    params = cell.init(jax.random.key(0), D)
    xs = jnp.ones((64, B, D))

    def kept(remat):
        loss = lambda p: unroll(cell, p, xs, remat=remat)[1].sum()  # noqa: E731
        residuals = jax.vjp(loss, params)[1]
        return sum(leaf.size for leaf in jax.tree.leaves(residuals))

    # 64 steps of many arrays against 8 carries and one input product.
    assert kept(8) < kept(None) / 2


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
    with pytest.raises(ValueError, match="remat=0"):
        unroll(cell, params, jnp.ones((T, B, D)), remat=0)
