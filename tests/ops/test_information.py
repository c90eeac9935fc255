"""InfoGAN's bounds where the mutual information is known."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from rnngen_jax.ops import information

RNG = np.random.default_rng(5)


def test_a_categorical_bound_is_reached_by_the_posterior_and_by_no_other():
    """A noisy channel of three codes, whose mutual information is summed in NumPy."""
    channel = np.array([[0.8, 0.1, 0.1], [0.2, 0.5, 0.3], [0.1, 0.1, 0.8]])  # p(x|c)
    joint = channel / 3
    posterior = joint / joint.sum(0)  # p(c|x), of columns x
    wanted = (joint * np.log(joint / (joint.sum(0) / 3))).sum()
    pairs = np.array(list(itertools.product(range(3), range(3))))
    code, image = pairs.T

    def bound(logits):
        found = information.categorical_bound(jnp.float32(logits[image]), jnp.int32(code))
        assert found.shape == (9,)
        return (joint[code, image] * np.float64(found)).sum()

    np.testing.assert_allclose(bound(np.log(posterior.T)), wanted, rtol=1e-6)
    np.testing.assert_allclose(bound(np.log(posterior.T) + 7), wanted, rtol=1e-5)
    np.testing.assert_allclose(bound(np.zeros((3, 3))), 0, atol=1e-6)
    for _ in range(5):
        assert bound(np.log(posterior.T) + RNG.normal(0, 0.5, (3, 3))) < wanted
    sure = information.categorical_bound(50 * jnp.eye(3), jnp.arange(3))
    np.testing.assert_allclose(sure, np.log(3), rtol=1e-6)


def test_a_gaussian_bound_is_the_density_and_the_priors_entropy():
    mean, log_scale = RNG.standard_normal((2, 7, 3))
    code = RNG.uniform(-1, 1, (7, 3))
    found = information.gaussian_bound(*map(jnp.float32, (mean, log_scale, code)))
    wanted = stats.norm.logpdf(code, mean, np.exp(log_scale)) - stats.uniform.logpdf(code, -1, 2)
    np.testing.assert_allclose(found, wanted.sum(1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("scale", [0.1, 0.3])
def test_a_gaussian_bound_is_below_the_information(scale):
    """x = c + s ε, whose mutual information is h(x) - h(s ε), by quadrature."""
    c = RNG.uniform(-1, 1, 40_000)
    x = c + scale * RNG.standard_normal(len(c))
    q = information.gaussian_bound(
        jnp.float32(x[:, None]), jnp.full((len(c), 1), np.log(scale)), jnp.float32(c[:, None])
    )
    grid = np.linspace(-4, 4, 20_001)
    density = (stats.norm.cdf((grid + 1) / scale) - stats.norm.cdf((grid - 1) / scale)) / 2
    entropy = -np.trapezoid(density * np.log(np.maximum(density, 1e-300)), grid)
    wanted = entropy - stats.norm.entropy(scale=scale)
    # Q is the posterior except near the ends of the code's range.
    q = np.float64(q)
    given = np.log(2) - stats.norm.entropy(scale=scale)
    assert abs(q.mean() - given) < 4 * q.std() / np.sqrt(len(q))
    assert q.mean() < wanted
    assert given < wanted < given + scale
