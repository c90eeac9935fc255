"""Pixel likelihoods: they sum to one, agree with closed forms, and draws follow them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from rnngen_jax.errors import UserError
from rnngen_jax.ops import likelihoods

CASES = [
    ("categorical", 2),
    ("categorical", 17),
    ("bernoulli", 2),
    ("logistic_mixture", 2),
    ("logistic_mixture", 17),
    ("logistic_mixture", 256),
]


def raw_for(likelihood, key, batch=40, scale=2.0):
    return scale * jax.random.normal(key, (batch, likelihood.size))


def probabilities(likelihood, raw, levels):
    values = jnp.arange(levels)
    return jnp.exp(
        jax.vmap(lambda v: likelihood.log_prob(raw, jnp.full(raw.shape[:-1], v)))(values)
    )


@pytest.mark.parametrize(("kind", "levels"), CASES)
def test_probabilities_sum_to_one(kind, levels):
    likelihood = likelihoods.make(kind, levels, 5)
    for scale in (0.1, 2.0, 10.0):
        raw = raw_for(likelihood, jax.random.key(0), scale=scale)
        total = probabilities(likelihood, raw, levels).sum(0)
        np.testing.assert_allclose(total, 1.0, atol=2e-6)


@pytest.mark.parametrize(("kind", "levels"), [c for c in CASES if c[1] < 256])
def test_draws_follow_the_probabilities(kind, levels):
    likelihood = likelihoods.make(kind, levels, 3)
    raw = raw_for(likelihood, jax.random.key(1), batch=1, scale=1.0)[0]
    num = 20_000
    drawn = likelihood.draw(jax.random.key(2), jnp.broadcast_to(raw, (num, likelihood.size)), 1.0)
    assert drawn.dtype == jnp.int32
    expected = np.asarray(probabilities(likelihood, raw[None], levels)[:, 0], np.float64)
    counts = np.bincount(drawn, minlength=levels)
    seen = expected * num >= 5
    assert counts[~seen].sum() < 100
    kept = expected[seen] / expected[seen].sum()
    assert stats.chisquare(counts[seen], kept * counts[seen].sum()).pvalue > 1e-3


def test_logistic_mixture_is_the_difference_of_cdfs_in_float64():
    levels, mixtures = 256, 4
    likelihood = likelihoods.logistic_mixture(levels, mixtures)
    raw = np.asarray(raw_for(likelihood, jax.random.key(3), batch=8, scale=1.5), np.float64)
    logit, mean, log_scale = np.split(raw, 3, axis=-1)
    weight = np.exp(logit) / np.exp(logit).sum(-1, keepdims=True)
    for value in (0, 1, 100, 254, 255):
        x = 2 * value / 255 - 1
        upper = stats.logistic.cdf((x + 1 / 255 - mean) * np.exp(-log_scale))
        lower = stats.logistic.cdf((x - 1 / 255 - mean) * np.exp(-log_scale))
        upper = np.ones_like(upper) if value == 255 else upper
        lower = np.zeros_like(lower) if value == 0 else lower
        expected = np.log((weight * (upper - lower)).sum(-1))
        ours = likelihood.log_prob(jnp.asarray(raw, jnp.float32), jnp.full(8, value))
        np.testing.assert_allclose(ours, expected, rtol=2e-4, atol=2e-4)


def test_logistic_mixture_has_finite_gradients_at_extremes():
    likelihood = likelihoods.logistic_mixture(256, 2)
    for mean, log_scale in [(0.0, -40.0), (5.0, -7.0), (-3.0, 8.0), (0.0, 30.0)]:
        raw = jnp.array([0.0, 1.0, mean, -mean, log_scale, log_scale])
        for value in (0, 128, 255):
            number, gradient = jax.value_and_grad(
                lambda r, v=value: likelihood.log_prob(r, jnp.asarray(v))
            )(raw)
            assert np.isfinite(number)
            assert np.isfinite(gradient).all()


def test_a_low_temperature_draws_the_mode():
    likelihood = likelihoods.categorical(5)
    raw = jnp.array([0.0, 1.0, 0.5, 0.9, -1.0])
    drawn = likelihood.draw(jax.random.key(0), jnp.broadcast_to(raw, (100, 5)), 1e-3)
    assert (drawn == 1).all()
    likelihood = likelihoods.logistic_mixture(11, 1)
    raw = jnp.broadcast_to(jnp.array([0.0, 0.2, 0.0]), (100, 3))
    assert (likelihood.draw(jax.random.key(0), raw, 1e-4) == 6).all()


@pytest.mark.parametrize(
    ("kind", "levels", "message"),
    [
        ("bernoulli", 17, "17 levels"),
        ("softmax", 17, "categorical"),
        ("bernouli", 2, "did you mean"),
    ],
)
def test_a_readout_that_does_not_fit_is_refused(kind, levels, message):
    with pytest.raises(UserError, match=message):
        likelihoods.make(kind, levels, 3)
