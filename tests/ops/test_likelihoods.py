"""Pixel likelihoods sum to one and agree with closed forms, and draws follow them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from rnngen_jax.errors import UserError
from rnngen_jax.ops import likelihoods

CASES = [
    ("categorical", 2),
    ("categorical", 17),
    ("bernoulli", 2),
    ("logistic_mixture", 2),
    ("logistic_mixture", 17),
    ("logistic_mixture", 256),
    ("gaussian", 2),
    ("gaussian", 17),
    ("gaussian", 256),
]


def compiled(kind, levels, mixtures):
    """A likelihood whose functions are one program each, not one for every operation in them."""
    made = likelihoods.make(kind, levels, mixtures)
    functions = ("log_prob", "log_probs", "draw", "mean")
    return made._replace(**{name: jax.jit(getattr(made, name)) for name in functions})


def raw_for(likelihood, key, batch=40, scale=2.0):
    return scale * jax.random.normal(key, (batch, likelihood.size))


def probabilities(likelihood, raw, levels, temperature=1.0):
    @jax.jit
    def of_all(raw):
        def of_level(value):
            return likelihood.log_prob(raw, jnp.full(raw.shape[:-1], value), temperature)

        return jnp.exp(jax.vmap(of_level)(jnp.arange(levels)))

    return of_all(raw)


@pytest.mark.parametrize(("kind", "levels"), CASES)
def test_probabilities_sum_to_one(kind, levels):
    likelihood = compiled(kind, levels, 5)
    for scale in (0.1, 2.0, 10.0):
        raw = raw_for(likelihood, jax.random.key(0), scale=scale)
        total = probabilities(likelihood, raw, levels).sum(0)
        np.testing.assert_allclose(total, 1.0, atol=2e-6)


@pytest.mark.parametrize(
    ("kind", "levels"), [c for c in CASES if c[0] in ("gaussian", "logistic_mixture")]
)
def test_masses_are_the_levels_probabilities_summed_over_intervals(kind, levels):
    """Of all levels, and of intervals that end beyond the highest one."""
    likelihood = compiled(kind, levels, 5)
    masses = jax.jit(likelihood.masses, static_argnums=(2, 3))
    for scale in (0.1, 2.0, 10.0):
        raw = raw_for(likelihood, jax.random.key(0), scale=scale)
        p = np.exp(np.float64(likelihood.log_probs(raw)))
        each = masses(raw, jnp.zeros(len(raw), int), 1, levels)
        np.testing.assert_allclose(each, p, rtol=1e-4, atol=1e-6)
        first, width, num = np.arange(len(raw)) % levels, 7, levels // 7 + 1
        padded = np.pad(p, ((0, 0), (0, levels + width * num)))
        wanted = [
            padded[row, start : start + width * num].reshape(num, width).sum(1)
            for row, start in enumerate(first)
        ]
        found = masses(raw, jnp.asarray(first), width, num)
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)
        assert (np.asarray(found)[np.float64(wanted) == 0] == 0).all()
    extreme = raw_for(likelihood, jax.random.key(0), scale=1000.0)
    each = masses(extreme, jnp.zeros(len(extreme), int), 1, levels)
    np.testing.assert_allclose(np.asarray(each).sum(-1), 1.0, atol=2e-6)


@pytest.mark.parametrize("levels", [2, 100, 256])
def test_masses_of_a_mixture_keep_their_digits_in_both_tails(levels):
    """Against float64: relative errors, down to probabilities of 1e-30."""
    rng = np.random.default_rng(0)
    logit, mean = rng.standard_normal((2, 30, 3))
    mean += np.linspace(-1.8, 1.8, 30)[:, None]
    log_scale = rng.uniform(-3.5, -2, (30, 3))
    raw = np.concatenate([logit, mean, log_scale], axis=-1).astype(np.float32)
    logit, mean, log_scale = np.split(np.float64(raw), 3, axis=-1)
    weight = special.softmax(logit, axis=-1)
    edge = (2 * np.arange(levels + 1) - 1)[:, None, None] / (levels - 1) - 1
    edge[0], edge[-1] = -np.inf, np.inf
    x = (edge - mean) * np.exp(-log_scale)
    low, high = x[:-1], x[1:]
    mirrored = low + high > 0
    low, high = np.where(mirrored, -high, low), np.where(mirrored, -low, high)
    wanted = (weight * (special.expit(high) - special.expit(low))).sum(-1).T
    masses = jax.jit(likelihoods.logistic_mixture(levels, 3).masses, static_argnums=(2, 3))
    found = masses(raw, jnp.zeros(30, int), 1, levels)
    assert wanted.min() < 1e-12
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-30)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
@pytest.mark.parametrize(("kind", "levels"), [c for c in CASES if c[1] < 256])
def test_draws_follow_the_probabilities(kind, levels, temperature):
    likelihood = compiled(kind, levels, 3)
    raw = raw_for(likelihood, jax.random.key(1), batch=1, scale=1.0)[0]
    num = 20_000
    every = jnp.broadcast_to(raw, (num, likelihood.size))
    drawn = likelihood.draw(jax.random.key(2), every, temperature)
    assert drawn.dtype == jnp.int32
    expected = np.float64(probabilities(likelihood, raw[None], levels, temperature)[:, 0])
    assert expected.sum() == pytest.approx(1, abs=2e-6)
    counts = np.bincount(drawn, minlength=levels)
    seen = expected * num >= 5
    assert counts[~seen].sum() < 100
    kept = expected[seen] / expected[seen].sum()
    assert stats.chisquare(counts[seen], kept * counts[seen].sum()).pvalue > 1e-3


def test_logistic_mixture_is_the_difference_of_cdfs_in_float64():
    levels, mixtures = 256, 4
    likelihood = compiled("logistic_mixture", levels, mixtures)
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


def test_a_gaussians_mass_on_a_bin_is_that_of_the_normal_distribution_in_float64():
    """From bins far wider than the scale to far narrower ones, out to the tails."""
    for levels in (2, 17, 256):
        likelihood = likelihoods.gaussian(levels)
        values, half = np.arange(levels), 1 / (levels - 1)
        mean, log_scale = np.meshgrid([-1.3, -0.21, 0.0, 0.5, 1.7], [-3.0, -1.4, 0.0, 1.0, 2.5])
        raw = np.stack([mean.ravel(), log_scale.ravel()], axis=-1).astype(np.float32)
        mean, scale = np.float64(raw[:, :1]), np.exp(np.float64(raw[:, 1:]))
        x = 2 * values / (levels - 1) - 1
        low = np.where(values == 0, -np.inf, x - half)
        high = np.where(values == levels - 1, np.inf, x + half)
        # In the upper half, the mirrored bin, whose two tails are small numbers.
        mirrored = x > mean
        low, high = (
            np.where(mirrored, 2 * mean - high, low),
            np.where(mirrored, 2 * mean - low, high),
        )
        one, other = (stats.norm.logcdf(edge, mean, scale) for edge in (high, low))
        wanted = one + np.log(-np.expm1(other - one))
        got = jax.jit(likelihood.log_probs)(raw)
        np.testing.assert_allclose(got, wanted, rtol=3e-5, atol=3e-4)
        by_value = [jax.jit(likelihood.log_prob)(raw, jnp.full(len(raw), v)) for v in values[:3]]
        np.testing.assert_allclose(np.stack(by_value, -1), wanted[:, :3], rtol=3e-5, atol=3e-4)


def test_a_gaussians_two_ways_to_a_bins_mass_meet():
    """Neither the value nor its gradient jumps at the threshold for narrow bins."""
    likelihood = likelihoods.gaussian(256)
    both = jax.jit(jax.vmap(jax.value_and_grad(likelihood.log_prob), in_axes=(0, None)))
    threshold = np.log(2 / 255 / 0.05)
    log_scale = threshold + np.array([-1e-4, 1e-4], np.float32)
    for mean in (0.0, 0.4, -0.9):
        raw = jnp.stack([jnp.full(2, mean), log_scale], axis=-1)
        for value in (100, 128, 200):
            number, slope = both(raw, jnp.asarray(value))
            np.testing.assert_allclose(number[0], number[1], rtol=2e-3, atol=2e-4)
            np.testing.assert_allclose(slope[0], slope[1], rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("kind", ["gaussian", "logistic_mixture"])
def test_gradients_are_finite_at_extremes(kind):
    likelihood = likelihoods.make(kind, 256, 2)

    @jax.jit
    def both(raw, value):
        return jax.value_and_grad(likelihood.log_prob)(raw, value)

    for mean, log_scale in [(0.0, -40.0), (5.0, -7.0), (-3.0, 8.0), (0.0, 30.0)]:
        raw = jnp.array([0.0, 1.0, mean, -mean, log_scale, log_scale])
        raw = jnp.array([mean, log_scale]) if kind == "gaussian" else raw
        for value in (0, 128, 255):
            number, gradient = both(raw, value)
            assert np.isfinite(number)
            assert np.isfinite(gradient).all()


@pytest.mark.parametrize(("kind", "levels"), [*CASES, ("gaussian", 5)])
def test_the_mean_is_the_expected_value_over_the_highest_level(kind, levels):
    """The levels' mean or, for continuous families, the continuous mean clipped to [0, 1]."""
    likelihood = compiled(kind, levels, 3)
    raw = raw_for(likelihood, jax.random.key(5), scale=1.0)
    got = likelihood.mean(raw)
    assert got.shape == raw.shape[:-1]
    assert ((got >= 0) & (got <= 1)).all()
    if kind in ("categorical", "bernoulli"):
        p = np.exp(np.float64(likelihood.log_probs(raw)))
        wanted = (p * np.arange(levels)).sum(-1) / (levels - 1)
        np.testing.assert_allclose(got, wanted, atol=1e-6)
        return
    raw = np.float64(raw)
    if kind == "gaussian":
        centre = raw[:, 0]
    else:
        logit, mean, _ = np.split(raw, 3, axis=-1)
        centre = (special.softmax(logit, axis=-1) * mean).sum(-1)
    np.testing.assert_allclose(got, np.clip((centre + 1) / 2, 0, 1), atol=1e-6)
    # Narrow distributions inside the range keep their mean when discretised.
    rng = np.random.default_rng(0)
    narrow = {"mean": rng.uniform(-0.6, 0.6, (20, 1)), "scale": np.full((20, 1), np.log(0.08))}
    narrow = np.concatenate([*narrow.values()], -1).astype(np.float32)
    one = compiled(kind, levels, 1)
    narrow = narrow if kind == "gaussian" else np.concatenate([0 * narrow[:, :1], narrow], -1)
    p = np.exp(np.float64(one.log_probs(narrow)))
    if levels > 5:
        wanted = (p * np.arange(levels)).sum(-1) / (levels - 1)
        np.testing.assert_allclose(one.mean(narrow), wanted, atol=4e-3)


def test_a_low_temperature_draws_the_mode():
    likelihood = likelihoods.categorical(5)
    raw = jnp.array([0.0, 1.0, 0.5, 0.9, -1.0])
    drawn = likelihood.draw(jax.random.key(0), jnp.broadcast_to(raw, (100, 5)), 1e-3)
    assert (drawn == 1).all()
    likelihood = likelihoods.logistic_mixture(11, 1)
    raw = jnp.broadcast_to(jnp.array([0.0, 0.2, 0.0]), (100, 3))
    assert (likelihood.draw(jax.random.key(0), raw, 1e-4) == 6).all()
    likelihood = likelihoods.gaussian(11)
    raw = jnp.broadcast_to(jnp.array([0.2, 1.0]), (100, 2))
    assert (likelihood.draw(jax.random.key(0), raw, 1e-4) == 6).all()
    assert len(np.unique(likelihood.draw(jax.random.key(0), raw, 1.0))) > 5


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
