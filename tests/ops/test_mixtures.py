"""Mixtures of normals against SciPy, and their draws against their densities."""

import jax
import numpy as np
import pytest
from scipy import special, stats

from rnngen_jax.ops import mixtures

RAW = np.float32([0.3, -1.0, 0.8, -2.0, 0.5, 1.5, -0.7, 0.1, -1.2])


def density(z, temperature):
    p = special.softmax(np.float64(RAW[:3]) / temperature)
    scales = temperature * np.exp(np.float64(RAW[6:]))
    return p @ stats.norm.pdf(z, np.float64(RAW[3:6])[:, None], scales[:, None])


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_densities_and_draws(temperature):
    at = np.linspace(-12, 12, 4001)

    @jax.jit
    def run(z):
        keys = jax.random.split(jax.random.key(0), 3000)
        drawn = jax.vmap(lambda key: mixtures.draw(key, RAW, temperature))(keys)
        raw = np.broadcast_to(RAW, (*z.shape, 9))
        return mixtures.log_density(raw, z, temperature), drawn

    found, drawn = run(np.float32(at))
    wanted = density(np.float32(at), temperature)
    np.testing.assert_allclose(found, np.log(wanted), rtol=2e-5, atol=2e-5)
    assert np.exp(np.float64(found)).sum() * (at[1] - at[0]) == pytest.approx(1, abs=1e-5)
    cdf = np.cumsum(wanted) * (at[1] - at[0])
    assert stats.kstest(drawn, lambda z: np.interp(z, at, cdf)).pvalue > 1e-3


@pytest.mark.parametrize("components", [1, 2, 5])
def test_the_first_mixture_is_near_the_standard_normal(components):
    raw = np.asarray(mixtures.near_standard(components))
    at = np.linspace(-8, 8, 801)
    means, scales = raw[components : 2 * components], np.exp(raw[2 * components :])
    p = stats.norm.pdf(at, means[:, None], scales[:, None]).mean(0)
    assert np.abs(p - stats.norm.pdf(at)).sum() * (at[1] - at[0]) / 2 < 0.08
    variance = (p * at**2).sum() * (at[1] - at[0])
    assert variance == pytest.approx(1, abs=0.02)
