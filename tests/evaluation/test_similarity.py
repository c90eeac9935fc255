"""SSIM in uniform windows, against its definition place by place."""

import jax
import numpy as np
import pytest

from rnngen_jax.evaluation.similarity import uniform_ssim


def by_definition(one, other, data_range):
    """In float64, window by window, as scikit-image's default has it."""
    found = []
    height, width, channels = one.shape
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    for row in range(height - 6):
        for column in range(width - 6):
            for channel in range(channels):
                at = slice(row, row + 7), slice(column, column + 7), channel
                x, y = (np.float64(image[at]).ravel() for image in (one, other))
                (xx, xy), (_, yy) = np.cov(x, y)
                above = (2 * x.mean() * y.mean() + c1) * (2 * xy + c2)
                below = (x.mean() ** 2 + y.mean() ** 2 + c1) * (xx + yy + c2)
                found.append(above / below)
    return np.mean(found)


@pytest.mark.parametrize("data_range", [1.0, 2.0])
def test_it_is_the_mean_over_windows(data_range):
    rng = np.random.default_rng(0)
    one = rng.random((2, 8, 9, 2), np.float32)
    other = np.clip(one + 0.2 * rng.standard_normal(one.shape, np.float32), 0, 1)
    found = jax.jit(uniform_ssim, static_argnums=2)(one, other, data_range)
    wanted = [by_definition(x, y, data_range) for x, y in zip(one, other, strict=True)]
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert 0.1 < wanted[0] < 0.9
