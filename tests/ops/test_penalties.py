"""Gradient penalties of a small critic, against its analytic gradient and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rnngen_jax.errors import UserError
from rnngen_jax.ops import penalties

RNG = np.random.default_rng(2)
B, SHAPE, HIDDEN = 6, (2, 3, 1), 5
REAL, FAKE = RNG.uniform(-1, 1, (2, B, *SHAPE)).astype(np.float32)
W, A = RNG.standard_normal((6, HIDDEN)), RNG.standard_normal(HIDDEN)
EACH = jax.random.split(jax.random.key(0), B)


def critic(w):
    """`Σ a tanh(w x)`."""
    return lambda images: jnp.tanh(images.reshape(len(images), -1) @ w) @ jnp.asarray(A, w.dtype)


def slope(w, images):
    """Its gradient in float64, `[B, 6]`."""
    flat = np.float64(images).reshape(len(images), -1)
    return (A / np.cosh(flat @ w) ** 2) @ w.T


def of_slope(name, w, at):
    """The penalty at known points: a list of image batches."""
    norms = [np.linalg.norm(slope(w, images), axis=1) for images in at]
    if name in ("wgan_gp", "dragan"):
        return (norms[0] - 1) ** 2
    return sum(norm**2 / 2 for norm in norms)


def looked_at(name, real=REAL, fake=FAKE, each=EACH):
    """The points where a penalty takes the gradient, found from critics with known slopes.

    The slope of `½ (x_i + 9)²` is `x_i + 9` and has this norm, so `(norm - 1)²` gives x_i away.
    """

    def one(i):
        found = penalties.make(name)(
            lambda images: jnp.square(images.reshape(len(images), -1)[:, i] + 9) / 2,
            real,
            fake,
            each,
        )
        return jnp.sqrt(found) + 1 - 9

    values = jax.jit(jax.vmap(one, out_axes=1))(jnp.arange(real[0].size))
    return np.asarray(values).reshape(real.shape)


def points(name):
    match name:
        case "r1":
            return [REAL]
        case "r2":
            return [FAKE]
        case "r1_r2":
            return [REAL, FAKE]
    return [looked_at(name)]


@pytest.mark.parametrize("name", [name for name in penalties.PENALTIES if name != "none"])
def test_values_and_the_critics_own_gradient(name):
    """The second derivative, which training needs, against finite differences in NumPy."""
    at = points(name)

    def total(w):
        each = penalties.make(name)(critic(w), REAL, FAKE, EACH)
        return each.sum(), each

    (_, found), gradient = jax.jit(jax.value_and_grad(total, has_aux=True))(jnp.float32(W))
    assert found.shape == (B,)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, of_slope(name, W, at), rtol=1e-4, atol=1e-5)
    wanted = np.zeros_like(W)
    for place in np.ndindex(W.shape):
        step = np.zeros_like(W)
        step[place] = 1e-5
        ends = [of_slope(name, W + sign * step, at).sum() for sign in (1, -1)]
        wanted[place] = (ends[0] - ends[1]) / 2e-5
    np.testing.assert_allclose(gradient, wanted, rtol=1e-3, atol=1e-3)


def test_gradient_penalty_looks_anywhere_between_real_and_fake():
    num = 2000
    real, fake = np.zeros((num, 1, 1, 2), np.float32), np.float32([1, -3]).reshape(1, 1, 1, 2)
    fake = np.broadcast_to(fake, real.shape)
    each = jax.random.split(jax.random.key(1), num)
    first, second = looked_at("wgan_gp", real, fake, each).reshape(num, 2).T
    np.testing.assert_allclose(second, -3 * first, atol=1e-4)  # one share per image
    spread = np.sort(first)
    assert np.abs(spread - np.arange(num) / num).max() < 1.63 / np.sqrt(num)  # Kolmogorov, 1 %
    assert len(np.unique(first)) > 0.99 * num


def test_dragan_looks_a_little_above_real_images_by_the_whole_batchs_spread():
    num = 400
    real = RNG.normal(0.0, 0.3, (num, 1, 2, 3)).astype(np.float32)
    each = jax.random.split(jax.random.key(1), num)
    away = (looked_at("dragan", real, real, each) - real).reshape(num, 6) / (0.5 * real.std())
    assert (away > -1e-4).all()
    assert (away < 1).all()
    # A product of two uniform values, mean 1/4; the values of an image share one factor.
    assert abs(away.mean() - 0.25) < 4 * away.std() / np.sqrt(num)
    assert abs(np.square(away).mean() - 1 / 9) < 0.02
    # E[(s u)(s u')] = E[s²] E[u]² = 1/12; for two images it would be 1/16.
    assert abs((away[:, :3] * away[:, 3:]).mean() - 1 / 12) < 0.01
    assert abs((away[1:] * away[:-1]).mean() - 1 / 16) < 0.01


@pytest.mark.parametrize("name", ["wgan_gp", "dragan"])
def test_the_points_are_an_examples_own_however_the_batch_is_cut(name):
    whole = looked_at(name)
    cut = jax.pmap(
        lambda *parts: penalties.make(name)(critic(jnp.float32(W)), *parts),
        axis_name="data",
        devices=jax.devices()[:2],
    )(*(x.reshape(2, B // 2, *x.shape[1:]) for x in (REAL, FAKE, EACH)))
    np.testing.assert_allclose(cut.reshape(B), of_slope(name, W, [whole]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", penalties.PENALTIES)
def test_a_critic_without_slope_is_no_trouble(name):
    def total(w):
        return penalties.make(name)(critic(w), REAL, FAKE, EACH).sum()

    value, gradient = jax.value_and_grad(total)(jnp.zeros(W.shape))
    assert value == (B if name in ("wgan_gp", "dragan") else 0)
    np.testing.assert_array_equal(gradient, 0)


def test_no_penalty_and_an_unknown_one():
    found = penalties.make("none")(critic(jnp.float32(W)), REAL, FAKE, EACH)
    np.testing.assert_array_equal(found, np.zeros(B, np.float32))
    with pytest.raises(UserError, match=r"config\.model\.penalty must be .*got 'r1r2'.*'r1_r2'"):
        penalties.make("r1r2")
