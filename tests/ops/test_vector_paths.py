"""Paths between vectors, against a rotation in their plane in float64."""

import jax.numpy as jnp
import numpy as np
import pytest

from rnngen_jax.ops import paths

FRACTIONS = np.linspace(0, 1, 7)


def vectors(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def walked(path, first, last, fractions=FRACTIONS):
    found = paths.PATHS[path](jnp.array(first), jnp.array(last), jnp.array(fractions, jnp.float32))
    return np.asarray(found)


def rotated(first, last, fraction):
    """`first` rotated towards `last` by a fraction of the angle, its length interpolated."""
    first, last = np.float64(first), np.float64(last)
    start, end = np.linalg.norm(first), np.linalg.norm(last)
    u = first / start
    across = last - (last @ u) * u
    angle = np.arccos(last @ u / end)
    direction = np.cos(fraction * angle) * u
    direction += np.sin(fraction * angle) * across / np.linalg.norm(across)
    return (start + fraction * (end - start)) * direction


def test_spherical_turns_in_the_plane_of_both():
    first, last = 2 * vectors(0, 5, 6), vectors(1, 5, 6)
    found = walked("spherical", first, last)
    assert found.shape == (5, 7, 6)
    for n in range(5):
        want = [rotated(first[n], last[n], f) for f in FRACTIONS]
        np.testing.assert_allclose(found[n], want, rtol=1e-5, atol=1e-5)


def test_linear_is_a_weighted_mean():
    first, last = vectors(0, 2, 3, 4), vectors(1, 2, 3, 4)
    want = np.stack([first + f * (last - first) for f in FRACTIONS], axis=2)
    np.testing.assert_allclose(walked("linear", first, last), want, atol=1e-6)


@pytest.mark.parametrize("path", sorted(paths.PATHS))
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_both_ends_are_the_vectors(path, scale):
    first, last = scale * vectors(2, 9, 5), vectors(3, 9, 5)
    found = walked(path, first, last, [0, 1])
    np.testing.assert_allclose(found[:, 0], first, rtol=1e-6)
    np.testing.assert_allclose(found[:, 1], last, rtol=1e-6)


def test_the_length_stays_between_those_of_the_ends():
    angle = np.radians(179)  # Shoemake's formula alone would give a far longer midpoint
    first, last = np.array([1.0, 0]), 3 * np.array([np.cos(angle), np.sin(angle)])
    length = np.linalg.norm(walked("spherical", first, last), axis=-1)
    np.testing.assert_allclose(length, 1 + 2 * FRACTIONS, rtol=1e-5)


@pytest.mark.parametrize("case", ["same", "parallel", "nearly", "opposite", "zero", "both zero"])
def test_without_a_great_circle_the_path_is_straight(case):
    first = vectors(4, 6)
    last = {
        "same": first,
        "parallel": 2 * first,
        "nearly": first * (1 + 1e-5 * vectors(5, 6)),
        "opposite": -first,
        "zero": 0 * first,
        "both zero": 0 * first,
    }[case]
    first = 0 * first if case == "both zero" else first
    found = walked("spherical", first, last)
    want = np.stack([(1 - f) * first + f * last for f in FRACTIONS])
    np.testing.assert_allclose(found, want, atol=1e-5)
