"""Private gradients against a loop over examples; ε against other accountants and closed forms."""

import math
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize, special, stats

from rnngen_jax.errors import UserError
from rnngen_jax.models.base import Aux
from rnngen_jax.ops.batch import mean_over_devices
from rnngen_jax.training import privacy

RNG = np.random.default_rng(6)
B, CLIP = 8, 0.9
SIZES = np.linspace(0.05, 1, B)  # so that some are longer than the clip and some are not
GRADIENTS = {
    "kernel": (SIZES[:, None, None] * RNG.standard_normal((B, 3, 2))).astype(np.float32),
    "bias": (SIZES[:, None] * RNG.standard_normal((B, 4))).astype(np.float32),
}
DELTA = 1e-5


def by_loop(gradients, clip):
    total = {name: np.zeros(leaf.shape[1:]) for name, leaf in gradients.items()}
    clipped = 0
    for i in range(B):
        one = {name: np.float64(leaf[i]) for name, leaf in gradients.items()}
        norm = math.sqrt(sum((leaf**2).sum() for leaf in one.values()))
        clipped += norm > clip
        for name, leaf in one.items():
            total[name] += leaf * min(1.0, clip / norm)
    assert 0 < clipped < B
    return {name: leaf / B for name, leaf in total.items()}


def noised_mean(gradients, noise, key):
    return privacy.noised(
        privacy.clipped_mean(gradients, CLIP), privacy.Privacy(noise, CLIP), B, key
    )


def flat(tree, axes=0):
    leaves = [leaf.reshape(*leaf.shape[:axes], -1) for leaf in jax.tree.leaves(tree)]
    return np.float64(np.concatenate(leaves, -1))


def test_without_noise_it_is_the_mean_of_clipped_gradients():
    found = privacy.clipped_mean(GRADIENTS, CLIP)
    assert jax.tree.map(jnp.shape, found) == {"kernel": (3, 2), "bias": (4,)}
    np.testing.assert_allclose(flat(found), flat(by_loop(GRADIENTS, CLIP)), rtol=2e-6, atol=1e-7)
    loose = privacy.clipped_mean(GRADIENTS, 100.0)
    np.testing.assert_allclose(flat(loose), flat(GRADIENTS, 1).mean(0), rtol=1e-5, atol=1e-7)
    none = privacy.clipped_mean(jax.tree.map(jnp.zeros_like, GRADIENTS), CLIP)
    np.testing.assert_array_equal(flat(none), 0)


def test_noise_is_normal_independent_and_scaled_by_the_clip():
    noise, draws = 1.7, 4000
    each = jax.random.split(jax.random.key(1), draws)
    found = jax.jit(jax.vmap(lambda key: noised_mean(GRADIENTS, noise, key)))(each)
    scaled = (flat(found, 1) - flat(by_loop(GRADIENTS, CLIP))) / (noise * CLIP / B)
    assert scaled.shape == (draws, 10)
    assert stats.kstest(scaled.reshape(-1), "norm").pvalue > 0.001
    covariance = np.cov(scaled.T)
    assert np.abs(covariance - np.eye(10)).max() < 5 * math.sqrt(2 / draws)
    assert np.abs(scaled.mean(0)).max() < 5 / math.sqrt(draws)


def test_devices_share_one_batch_and_one_noise():
    """As in the trainer: the mean over devices of each device's mean."""

    def part(gradients):
        mean = mean_over_devices(privacy.clipped_mean(gradients, CLIP))
        return privacy.noised(mean, privacy.Privacy(1.3, CLIP), B, jax.random.key(2))

    parts = jax.tree.map(lambda leaf: leaf.reshape(4, 2, *leaf.shape[1:]), GRADIENTS)
    cut = jax.pmap(part, axis_name="data", devices=jax.devices()[:4])(parts)
    whole = noised_mean(GRADIENTS, 1.3, jax.random.key(2))
    np.testing.assert_allclose(flat(cut, 1), np.tile(flat(whole), (4, 1)), rtol=1e-5, atol=1e-6)


def test_a_losss_gradient_is_of_single_examples_and_its_value_and_metrics_are_as_they_are():
    def loss(own, examples):
        away = own["kernel"] * examples["image"] - own["bias"]
        each = jnp.square(away).sum(1)
        return each.mean(), Aux({"worst": away.max(1).mean()}, {"kept": own["bias"]})

    own = {"kernel": jnp.float32([0.5, -1, 2]), "bias": jnp.float32([1, 0, 0.3])}
    examples = {"image": RNG.standard_normal((B, 3)).astype(np.float32)}
    clip = 4.0
    found = {
        each: privacy.clipped_value_and_grad(loss, own, examples, each) for each in (1e4, clip)
    }
    wanted = jax.value_and_grad(loss, has_aux=True)(own, examples)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found[1e4], wanted)
    jax.tree.map(np.testing.assert_array_equal, found[clip][0], found[1e4][0])
    away = np.float64(own["kernel"]) * examples["image"] - np.float64(own["bias"])
    each = {"kernel": 2 * away * examples["image"], "bias": -2 * away}
    np.testing.assert_allclose(flat(found[clip][1]), flat(by_loop(each, clip)), rtol=1e-5)


def renyi(noise, rate, order):
    """Rényi divergence of the subsampled Gaussian, integer order, as a binomial sum.

    Mironov et al. 2019, section 3.3.
    """
    k = np.arange(order + 1)
    terms = special.gammaln(order + 1) - special.gammaln(k + 1) - special.gammaln(order - k + 1)
    terms = terms + (order - k) * np.log1p(-rate) + k * np.log(rate)
    return special.logsumexp(terms + k * (k - 1) / (2 * noise**2)) / (order - 1)


def by_binomial_sums(noise, rate, steps, delta):
    orders = np.arange(2, 400)
    divergence = steps * np.array([renyi(noise, rate, order) for order in orders])
    # Canonne et al. 2020, proposition 12.
    return (
        divergence + np.log1p(-1 / orders) - (np.log(delta) + np.log(orders)) / (orders - 1)
    ).min()


def exact_gaussian(noise, steps, delta):
    """ε of `steps` Gaussian mechanisms without sampling (Balle and Wang 2018, theorem 8)."""
    mu = math.sqrt(steps) / noise

    def spent(eps):
        above = stats.norm.logcdf(-mu / 2 - eps / mu) + eps
        return stats.norm.cdf(mu / 2 - eps / mu) - math.exp(above) - delta

    return optimize.brentq(spent, 0, 100)


@pytest.mark.parametrize(("noise", "rate", "steps"), [(1.1, 0.01, 1000), (0.8, 0.02, 300)])
def test_epsilon_is_that_of_the_renyi_divergences_and_above_a_tighter_one(noise, rate, steps):
    accounting = pytest.importorskip("dp_accounting")
    from dp_accounting import pld

    found = privacy.epsilon(noise, rate, steps, DELTA)
    # Orders between the integers may give a little less.
    assert 0.98 < found / by_binomial_sums(noise, rate, steps, DELTA) < 1 + 1e-6
    one = accounting.PoissonSampledDpEvent(rate, accounting.GaussianDpEvent(noise))
    event = accounting.SelfComposedDpEvent(one, steps)
    tight = pld.PLDAccountant().compose(event).get_epsilon(DELTA)
    assert tight < found < 1.25 * tight


def test_epsilon_without_sampling_is_above_the_exact_one():
    pytest.importorskip("dp_accounting")
    for noise, steps in [(2.0, 10), (5.0, 1)]:
        exact = exact_gaussian(noise, steps, DELTA)
        assert exact < privacy.epsilon(noise, 1.0, steps, DELTA) < 1.15 * exact


def test_epsilon_falls_with_noise_and_grows_with_steps_rate_and_certainty():
    pytest.importorskip("dp_accounting")
    base = {"noise": 1.0, "sample_rate": 0.01, "steps": 100, "delta": DELTA}
    for name, values in {
        "noise": [4.0, 2.0, 1.0, 0.5, 0.0],
        "sample_rate": [0.001, 0.01, 0.1, 1.0],
        "steps": [0, 1, 10, 1000],
        "delta": [1e-3, 1e-5, 1e-8],
    }.items():
        found = [privacy.epsilon(**{**base, name: value}) for value in values]
        assert found == sorted(set(found))
    assert privacy.epsilon(**{**base, "steps": 0}) == 0
    assert privacy.epsilon(**{**base, "noise": 0.0}) == math.inf


def test_what_does_not_fit_is_refused(monkeypatch):
    base = {"noise": 1.0, "sample_rate": 0.01, "steps": 100, "delta": DELTA}
    wrong = [("noise", -1.0), ("sample_rate", 0.0), ("sample_rate", 1.1), ("steps", -1)]
    for name, value in [*wrong, ("delta", 0.0), ("delta", 1.0)]:
        with pytest.raises(UserError, match=f"{name} must be .*got {value}"):
            privacy.epsilon(**{**base, name: value})
    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    with pytest.raises(UserError, match=r"not installed.*rnngen_jax\[privacy\]"):
        privacy.epsilon(**base)
