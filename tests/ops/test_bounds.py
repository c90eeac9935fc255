"""Bounds on a log-likelihood that is known: a linear model of Gaussian latents.

z ~ N(0, 1)^Z,  x = W z + b + s ε,  so that x ~ N(b, W Wᵀ + s² 1) and the posterior is normal too.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from rnngen_jax.ops import bounds, gaussians
from rnngen_jax.ops.gaussians import Gaussian

RNG = np.random.default_rng(3)
Z, D, S = 2, 4, 0.5
W, B = RNG.standard_normal((D, Z)), RNG.standard_normal(D)
X = B + W @ RNG.standard_normal(Z) + S * RNG.standard_normal(D)
EXACT = stats.multivariate_normal.logpdf(X, B, W @ W.T + S**2 * np.eye(D))
PRECISION = np.eye(Z) + W.T @ W / S**2
POSTERIOR = np.linalg.solve(PRECISION, W.T @ (X - B)) / S**2, np.linalg.inv(PRECISION)

# A deliberately wrong q: shifted from the posterior, too wide, and without its correlation.
MEAN = POSTERIOR[0] + [0.25, -0.2]
SCALE = 1.4 * np.sqrt(np.diag(POSTERIOR[1]))
Q = Gaussian(jnp.array(MEAN, jnp.float32), jnp.array(np.log(SCALE), jnp.float32))

# ELBO = log p(x) - KL(q || p(z|x)), in closed form.
GAP = MEAN - POSTERIOR[0]
FROM_POSTERIOR = 0.5 * (
    np.trace(PRECISION @ np.diag(SCALE**2))
    + GAP @ PRECISION @ GAP
    - Z
    - np.log(np.linalg.det(PRECISION))
    - 2 * np.log(SCALE).sum()
)
ELBO = EXACT - FROM_POSTERIOR


def log_likelihood(z):
    """log p(x|z), nats."""
    away = (jnp.float32(X - B) - z @ jnp.float32(W.T)) / S
    return -0.5 * jnp.square(away).sum(-1) - D * (np.log(S) + 0.5 * np.log(2 * np.pi))


def log_weights(num, seed=0):
    """Log-weights of `num` independent repetitions, by index of the draw."""

    def one(number):
        key = jax.random.fold_in(jax.random.key(seed), number)
        z = gaussians.reparameterised(Q, jax.random.normal(key, (num, Z)))
        ratio = gaussians.log_density_standard(z) - gaussians.log_density(Q, z)
        return log_likelihood(z) + ratio.sum(-1)

    return jax.vmap(one)


def mean_and_error(x):
    x = np.asarray(x, np.float64)
    return x.mean(), x.std() / np.sqrt(len(x))


def bound(num, samples, chunk, seed=0):
    return bounds.importance_weighted(log_weights(num, seed), num, samples, chunk)


def test_the_elbo_falls_short_by_the_divergence_from_the_posterior():
    noise = np.random.default_rng(0).standard_normal((100_000, Z), np.float32)
    z = gaussians.reparameterised(Q, noise)
    kl = jnp.broadcast_to(gaussians.kl_to_standard(Q), z.shape)
    # One step of Z latents equals Z steps of one.
    elbo = bounds.elbo(log_likelihood(z), kl[:, None, :])
    np.testing.assert_array_equal(elbo, bounds.elbo(log_likelihood(z), kl[:, :, None]))
    mean, error = mean_and_error(elbo)
    assert error < 0.1 * FROM_POSTERIOR
    assert abs(mean - ELBO) < 4.5 * error


def test_the_importance_weighted_bound_rises_from_the_elbo_to_the_likelihood():
    found = []
    for samples, num in [(1, 20_000), (10, 5000), (100, 2000), (1000, 1000)]:
        found.append(mean_and_error(jax.jit(bound, static_argnums=(0, 1, 2))(num, samples, 50)))
    (first, error), *_, (last, last_error) = found
    assert abs(first - ELBO) < 4.5 * error
    for (lower, one), (higher, other) in itertools.pairwise(found):
        assert higher - lower > 4 * np.hypot(one, other)
    for mean, error in found:
        assert mean < EXACT + 4 * error
    assert last_error < 0.003
    assert abs(last - EXACT) < 0.006 < 0.1 * FROM_POSTERIOR


def test_the_importance_weighted_bound_is_the_mean_over_draws_of_numpy():
    """Ten draws, weighted and averaged in float64."""
    samples, num = 10, 20_000
    z = MEAN + SCALE * np.random.default_rng(1).standard_normal((samples, num, Z))
    log_w = stats.norm.logpdf(X, B + z @ W.T, S).sum(-1)
    log_w += (stats.norm.logpdf(z) - stats.norm.logpdf(z, MEAN, SCALE)).sum(-1)
    wanted, one = mean_and_error(special.logsumexp(log_w, 0) - np.log(samples))
    mean, other = mean_and_error(jax.jit(bound, static_argnums=(0, 1, 2))(num, samples, 4))
    assert abs(mean - wanted) < 4.5 * np.hypot(one, other)


@pytest.mark.parametrize("samples", [1, 12])
@pytest.mark.parametrize("chunk", [1, 3, 5, 11, 12, 40])
def test_chunks_are_the_callers_own_business(samples, chunk):
    """Whether or not chunks divide the number of samples; no other draw is used."""
    table = np.random.default_rng(0).uniform(-900, -300, (samples, 3)).astype(np.float32)
    table[0, 1] = -np.inf

    def looked_up(number):
        assert number.shape == (min(chunk, samples),)
        known = jnp.asarray(table)[jnp.minimum(number, samples - 1)]
        return jnp.where((number < samples)[:, None], known, jnp.nan)

    got = bounds.importance_weighted(looked_up, 3, samples, chunk)
    wanted = special.logsumexp(table.astype(np.float64), 0) - np.log(samples)
    np.testing.assert_allclose(got, wanted, rtol=1e-6)


def test_more_samples_take_no_more_memory():
    def memory(samples, chunk):
        compiled = jax.jit(bound, static_argnums=(0, 1, 2)).lower(100, samples, chunk).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    few, many = memory(20, 20), memory(20_000, 20)
    assert many < 1.1 * few  # room for the chunks' indices
    assert memory(20, 2) < 0.5 * few


def test_free_bits_are_paid_for_each_variable_and_teach_nothing():
    kl = np.array([[[0.1, 0.5], [0.2, 2.0]], [[3.0, 0.0], [0.3, 0.7]]], np.float32)
    np.testing.assert_allclose(bounds.free_bits(kl, 0.4), [0.4 + 0.5 + 0.4 + 2, 3 + 0.8 + 0.7])
    np.testing.assert_allclose(bounds.free_bits(kl, 0.0), kl.sum((1, 2)))
    slope = jax.grad(lambda kl: bounds.free_bits(kl, 0.4).sum())(kl)
    np.testing.assert_array_equal(slope, kl > 0.4)


def test_beta_grows_in_equal_parts():
    steps = np.arange(7)
    np.testing.assert_allclose(bounds.warmed_up(3.0, 4, steps), [0.75, 1.5, 2.25, 3, 3, 3, 3])
    np.testing.assert_allclose(bounds.warmed_up(3.0, 0, steps), 3.0)
