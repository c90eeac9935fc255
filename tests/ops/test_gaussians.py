"""Diagonal Gaussians: densities and divergences against SciPy, quadrature and large samples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from rnngen_jax.ops import gaussians
from rnngen_jax.ops.gaussians import Gaussian

# Means and log-scales: near the standard normal, far from it, narrow and wide.
PAIRS = [(0.0, 0.0), (0.3, -0.2), (-2.0, 0.7), (5.0, -3.0), (0.1, 2.0)]
MEAN, LOG_SCALE = np.array(PAIRS).T
Q = Gaussian(jnp.array(MEAN, jnp.float32), jnp.array(LOG_SCALE, jnp.float32))


def closed_form(mean, scale, other_mean=0.0, other_scale=1.0):
    """The textbook KL between two normal distributions, in float64."""
    square = (scale**2 + (mean - other_mean) ** 2) / (2 * other_scale**2)
    return np.log(other_scale / scale) + square - 0.5


def integral(q, p):
    """∫ q log(q/p) within 12 of q's scales; the rest is below float64's precision."""

    def integrand(z):
        return q.pdf(z) * (q.logpdf(z) - p.logpdf(z))

    low, high = q.mean() - 12 * q.std(), q.mean() + 12 * q.std()
    return integrate.quad(integrand, low, high, epsabs=1e-11, limit=200)[0]


def test_the_log_density_is_scipys():
    z = np.linspace(-4, 4, 33)[:, None]
    with jax.enable_x64(True):
        got = gaussians.log_density(Gaussian(MEAN, LOG_SCALE), z)
        standard = gaussians.log_density_standard(z)
    np.testing.assert_allclose(got, stats.norm.logpdf(z, MEAN, np.exp(LOG_SCALE)), rtol=1e-12)
    np.testing.assert_allclose(standard, stats.norm.logpdf(z), rtol=1e-12)


def test_the_divergence_from_the_standard_normal_is_the_integral():
    got = gaussians.kl_to_standard(Q)
    np.testing.assert_allclose(got, closed_form(MEAN, np.exp(LOG_SCALE)), rtol=1e-5, atol=1e-7)
    wanted = [integral(stats.norm(m, np.exp(s)), stats.norm()) for m, s in PAIRS]
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("other", PAIRS[:3] + PAIRS[4:], ids=str)
def test_the_divergence_of_two_is_the_integral_and_not_symmetric(other):
    p = Gaussian(*(jnp.full(len(PAIRS), value) for value in other))
    got, back = gaussians.kl(Q, p), gaussians.kl(p, Q)
    there = stats.norm(other[0], np.exp(other[1]))
    for n, (m, s) in enumerate(PAIRS):
        here = stats.norm(m, np.exp(s))
        np.testing.assert_allclose(got[n], integral(here, there), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(back[n], integral(there, here), rtol=1e-5, atol=1e-6)
    equal = np.array([pair == other for pair in PAIRS])
    np.testing.assert_array_equal(np.asarray(got) == 0, equal)


def test_the_divergence_of_a_vector_is_the_mean_log_ratio_of_draws():
    num = 200_000
    noise = np.random.default_rng(0).standard_normal((num, len(PAIRS)), np.float32)
    z = gaussians.reparameterised(Q, noise)
    p = Gaussian(Q.mean / 2 + 0.5, Q.log_scale * 0.8 + 0.1)
    for log_p, kl in [
        (gaussians.log_density_standard(z), gaussians.kl_to_standard(Q)),
        (gaussians.log_density(p, z), gaussians.kl(Q, p)),
    ]:
        ratio = np.asarray(gaussians.log_density(Q, z) - log_p, np.float64)
        error = ratio.std(0) / np.sqrt(num)
        assert (np.abs(ratio.mean(0) - kl) < 4.5 * error + 1e-5).all()
        total = ratio.sum(1)
        assert abs(total.mean() - kl.sum()) < 4.5 * total.std() / np.sqrt(num)


def test_a_tiny_divergence_keeps_its_digits():
    """`exp(2 s) - 1` would lose digits, and an uninformative latent could cost less than 0."""
    mean, log_scale = np.array([1e-4, 0.0, 3e-4]), np.array([0.0, 2e-4, -1e-4])
    # KL = ½ (μ² + 2 s² + O(s³)), for s = log σ.
    wanted = 0.5 * mean**2 + log_scale**2
    got = gaussians.kl_to_standard(Gaussian(jnp.float32(mean), jnp.float32(log_scale)))
    np.testing.assert_allclose(got, wanted, atol=2e-11)


def test_a_reparameterised_draw_moves_with_its_parameters():
    noise = np.random.default_rng(1).standard_normal(len(PAIRS)).astype(np.float32)
    z = gaussians.reparameterised(Q, noise)
    np.testing.assert_allclose(z, MEAN + np.exp(LOG_SCALE) * noise, rtol=1e-5)
    slope = jax.grad(lambda q: gaussians.reparameterised(q, noise).sum())(Q)
    np.testing.assert_allclose(slope.mean, 1.0)
    np.testing.assert_allclose(slope.log_scale, np.exp(LOG_SCALE) * noise, rtol=1e-5)
