"""The perceptual distance against NumPy in float64."""

import jax
import jax.numpy as jnp
import numpy as np

from rnngen_jax.ops import perceptual

RNG = np.random.default_rng(0)
ONE = [RNG.normal(size=(3, 2, 4, 5)).astype(np.float32), RNG.normal(size=(3, 6)).astype(np.float32)]
OTHER = [RNG.normal(size=x.shape).astype(np.float32) for x in ONE]


def unit(x):
    return np.float64(x) / np.linalg.norm(np.float64(x), axis=-1, keepdims=True)


def test_it_is_the_sum_over_layers_of_mean_squared_distances_of_directions():
    first, last = (np.square(unit(a) - unit(b)).sum(-1) for a, b in zip(ONE, OTHER, strict=True))
    found = perceptual.distance(ONE, OTHER)
    np.testing.assert_allclose(found, first.mean((1, 2)) + last, rtol=1e-5)
    np.testing.assert_allclose(perceptual.distance(OTHER, ONE), found, rtol=1e-6)
    np.testing.assert_allclose(perceptual.distance([7 * x for x in ONE], OTHER), found, rtol=1e-5)
    np.testing.assert_array_equal(perceptual.distance(ONE, ONE), 0)
    np.testing.assert_allclose(perceptual.distance(ONE, [-x for x in ONE]), 8, rtol=1e-5)


def test_its_slope_is_finite_where_nothing_is_active():
    dark = jnp.zeros((2, 3))
    slope = jax.grad(lambda x: perceptual.distance([x], [jnp.ones((2, 3))]).sum())(dark)
    assert np.isfinite(slope).all()
    assert perceptual.distance([dark], [dark]).sum() == 0
