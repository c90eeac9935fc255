"""Grids of codes against NumPy in float64."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rnngen_jax.ops import lattices

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("levels", [(8, 5, 3), (4, 7), (6,)])
def test_finite_scalars_are_those_of_the_paper(levels):
    z = 2 * RNG.standard_normal((50, len(levels)))
    count = np.array(levels)
    h = (count - 1) * (1 - 1e-3) / 2
    o = np.where(count % 2, 0.0, 0.5)
    bounded = np.tanh(z + np.arctanh(o / h)) * h - o
    q = np.round(bounded) / (count // 2)
    found = lattices.fsq(jnp.float32(z), levels)
    np.testing.assert_allclose(found, q, atol=1e-6)
    gradient = jax.grad(lambda z: lattices.fsq(z, levels).sum())(jnp.float32(z))
    wanted = (1 - np.square(np.tanh(z + np.arctanh(o / h)))) * h / (count // 2)
    np.testing.assert_allclose(gradient, wanted, atol=1e-5)
    index = ((np.round(q * (count // 2)) + count // 2) * np.cumprod([1, *levels[:-1]])).sum(-1)
    np.testing.assert_array_equal(lattices.fsq_indices(found, levels), index)


@pytest.mark.parametrize("some", [[(3, 4), (5, 3)], [(n,) for n in range(3, 65)]])
def test_every_index_comes_back(some):
    """For all levels up to 64: truncation instead of rounding loses 16 of them."""
    for levels in some:
        number = np.prod(levels)
        every = np.arange(64) % number  # of one shape, so that operations are compiled once
        values = lattices.fsq_values(jnp.asarray(every), levels)
        np.testing.assert_array_equal(lattices.fsq_indices(values, levels), every)
        assert len(np.unique(np.asarray(values), axis=0)) == number


def test_every_level_is_reached():
    z = jnp.linspace(-9, 9, 2001)[:, None]
    for n in (3, 4, 5, 8):
        assert len(np.unique(lattices.fsq_indices(lattices.fsq(z, (n,)), (n,)))) == n


def test_signs_and_indices():
    every = jnp.arange(16)
    values = lattices.sign_values(every, 4)
    assert set(np.unique(values)) == {-1.0, 1.0}
    np.testing.assert_array_equal(lattices.sign_indices(values), every)
    np.testing.assert_array_equal(lattices.signs(jnp.array([0.0, -0.0, 1e-30])), [-1, -1, 1])


@pytest.mark.parametrize("group", [1, 2, 4])
def test_entropies_are_those_of_the_listed_codes(group):
    z, sharpness, size = RNG.standard_normal((30, 4)), 0.7, 0.5
    own = 0.0
    of_mean = 0.0
    for start in range(0, 4, group):
        codes = size * np.array(list(itertools.product([-1, 1], repeat=group)))
        logits = 2 * sharpness * z[:, start : start + group] @ codes.T
        p = np.exp(logits - logits.max(-1, keepdims=True))
        p /= p.sum(-1, keepdims=True)
        own += -(p * np.log(p)).sum(-1).mean()
        of_mean += -(p.mean(0) * np.log(p.mean(0))).sum()
    weight = np.arange(30) < 20

    @jax.jit
    def run(z, weight):
        found = lattices.sign_entropies(z, size, sharpness, group)
        part = lattices.sign_entropies(z[:20], size, sharpness, group)
        masked = lattices.sign_entropies(z, size, sharpness, group, weight)
        return found, part, masked, lattices.sign_entropies(z, 1.0, 100.0, group)

    found, part, masked, sharp = run(jnp.float32(z), jnp.float32(weight))
    np.testing.assert_allclose(found, (own, of_mean), rtol=1e-5)
    np.testing.assert_allclose(masked, part, rtol=1e-5)
    assert np.isfinite(sharp).all()
