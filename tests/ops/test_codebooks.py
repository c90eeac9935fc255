"""Codebooks against NumPy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rnngen_jax.ops import codebooks

RNG = np.random.default_rng(0)
Z = RNG.standard_normal((40, 5))
CODES = RNG.standard_normal((7, 5))


def test_the_nearest_code_is_that_of_all_distances():
    wanted = np.square(Z[:, None] - CODES).sum(-1).argmin(-1)
    np.testing.assert_array_equal(codebooks.nearest(Z, CODES), wanted)
    twice = np.concatenate([CODES, CODES])
    np.testing.assert_array_equal(codebooks.nearest(Z, twice), wanted)  # the first of equals


def test_an_index_below_zero_is_nothing():
    found = codebooks.look_up(jnp.asarray(CODES), jnp.array([[2, -1]]))
    np.testing.assert_allclose(found, [[CODES[2], 0 * CODES[2]]], rtol=1e-6)


@pytest.mark.parametrize("name", codebooks.ESTIMATORS)
def test_values_are_exact_and_gradients_those_of_the_paper(name):
    """Rotation: the Jacobian is ‖q‖/‖z‖ R, with R the rotation in the plane of z and q."""
    q = CODES[RNG.integers(0, 7, 40)]
    f = codebooks.ESTIMATORS[name]
    np.testing.assert_array_equal(f(jnp.float32(Z), jnp.float32(q)), np.float32(q))
    jacobians = jax.vmap(jax.jacobian(f))(jnp.float32(Z), jnp.float32(q))
    for z, code, jacobian in zip(Z, q, jacobians, strict=True):
        if name == "straight_through":
            np.testing.assert_array_equal(jacobian, np.eye(5))
            continue
        length = np.linalg.norm(code) / np.linalg.norm(z)
        a, b = z / np.linalg.norm(z), code / np.linalg.norm(code)
        # R = I - 2 w wᵀ + 2 b aᵀ: a becomes b, and what is orthogonal to both stays.
        r = np.asarray(jacobian) / length
        np.testing.assert_allclose(r @ r.T, np.eye(5), atol=1e-5)
        np.testing.assert_allclose(r @ a, b, atol=1e-5)
        basis = np.linalg.svd(np.stack([a, b]))[2][2:]
        np.testing.assert_allclose(r @ basis.T, basis.T, atol=1e-5)
        assert np.linalg.det(r) == pytest.approx(1, abs=1e-4)


def test_opposite_vectors_have_a_finite_gradient():
    z = jnp.array([[1.0, 2.0], [0.0, 0.0]])
    gradient = jax.grad(lambda z: codebooks.rotated(z, jnp.array([-1.0, -2.0])).sum())(z)
    assert np.isfinite(gradient).all()


def test_moving_averages_are_those_of_the_appendix():
    count, total = RNG.random(7) * 3, RNG.standard_normal((7, 5))
    n_by_numpy, m_by_numpy = count.copy(), total.copy()
    count, total = jnp.float32(count), jnp.float32(total)
    for _ in range(5):
        z = RNG.standard_normal((20, 5))
        c = RNG.integers(0, 7, 20)
        weight = RNG.integers(0, 2, 20)
        number, summed = codebooks.tally(z, c, jnp.float32(weight), 7)
        one_hot = np.eye(7)[c] * weight[:, None]
        np.testing.assert_allclose(number, one_hot.sum(0))
        np.testing.assert_allclose(summed, one_hot.T @ z, rtol=1e-5, atol=1e-6)
        n_by_numpy = 0.9 * n_by_numpy + 0.1 * one_hot.sum(0)
        m_by_numpy = 0.9 * m_by_numpy + 0.1 * one_hot.T @ z
        count = codebooks.moved(count, number, 0.9)
        total = codebooks.moved(total, summed, 0.9)
        whole = n_by_numpy.sum()
        smoothed = (n_by_numpy + 1e-5) / (whole + 7e-5) * whole
        wanted = m_by_numpy / smoothed[:, None]
        np.testing.assert_allclose(codebooks.centroids(count, total), wanted, rtol=2e-5, atol=1e-6)


def test_k_means_is_lloyds_algorithm():
    z = np.concatenate([centre + 0.1 * RNG.standard_normal((30, 2)) for centre in (0, 5, 9)])
    weight = np.ones(90)
    weight[85:] = 0
    key = jax.random.key(0)
    places = np.asarray(codebooks.drawn_places(key, 4, 90))
    assert len(set(places.tolist())) == 4
    centres = np.where(weight[places, None] > 0, z[places], z[:85].mean(0))
    for _ in range(10):
        nearest = np.square(z[:85, None] - centres).sum(-1).argmin(-1)
        counts = np.bincount(nearest, minlength=4)
        centres = np.stack(
            [z[:85][nearest == k].mean(0) if counts[k] else centres[k] for k in range(4)]
        )
    found, count = codebooks.k_means(jnp.float32(z), jnp.float32(weight), key, 4)
    np.testing.assert_allclose(found, centres, rtol=1e-4)
    np.testing.assert_array_equal(count, counts)


def test_coherence_is_zero_for_orthogonal_codes():
    assert codebooks.coherence(3 * jnp.eye(4)) == pytest.approx(0, abs=1e-7)
    unit = CODES / np.linalg.norm(CODES, axis=-1, keepdims=True)
    wanted = np.square(unit @ unit.T).sum() / 49 - 1 / 7
    assert codebooks.coherence(jnp.float32(CODES)) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("platform", ["cpu", "tpu"])
def test_nearest_codes_and_their_sums_on_each_platform(monkeypatch, platform):
    """Against NumPy: the first of equal codes, vectors in rows of any shape, weights."""
    monkeypatch.setattr(codebooks, "compiled_for", lambda: platform)
    rng = np.random.default_rng(0)
    codes = rng.integers(-2, 3, (9, 3)).astype(np.float32)  # with ties, exactly
    z = rng.integers(-2, 3, (40, 2, 3)).astype(np.float32)
    wanted = np.square(z[:, :, None] - codes).sum(-1).argmin(-1)
    found = jax.jit(codebooks.nearest)(z, codes)
    assert found.dtype == jnp.int32
    np.testing.assert_array_equal(found, wanted)
    assert 0 <= int(codebooks.nearest(jnp.array([jnp.nan] * 3), codes)) < 9
    rows, weight = z.reshape(-1, 3), rng.integers(0, 2, 80).astype(np.float32)
    count, total = jax.jit(codebooks.tally, static_argnums=3)(rows, found.reshape(-1), weight, 9)
    chosen = (wanted.reshape(-1) == np.arange(9)[:, None]) * weight
    np.testing.assert_array_equal(count, chosen.sum(1))
    np.testing.assert_allclose(total, chosen @ rows, atol=1e-6)
