"""PSNR and SSIM against their equations in NumPy, in float64."""

import numpy as np
import pytest

from rnngen_jax.evaluation.distortion import distortion

RNG = np.random.default_rng(0)


def pair(shape, levels, noise):
    """Smooth images, and the same with noise."""
    ramp = np.linspace(0, levels - 1, shape[1])[None, :, None, None]
    images = np.rint(np.broadcast_to(ramp, shape) * RNG.uniform(0.3, 1, shape)).astype(np.uint8)
    other = np.clip(images + np.rint(noise * RNG.standard_normal(shape)), 0, levels - 1)
    return images, other.astype(np.uint8)


def ssim(x, y, window):
    """Equation 13 of Wang et al. (2004) for images `[H, W]` in [0, 1], over all whole windows."""
    at = np.arange(window) - window // 2
    weight = np.exp(-(at**2) / (2 * 1.5**2))
    weight = np.outer(weight, weight) / weight.sum() ** 2
    found = []
    for row in range(x.shape[0] - window + 1):
        for column in range(x.shape[1] - window + 1):
            a, b = (z[row : row + window, column : column + window] for z in (x, y))
            mean_a, mean_b = (weight * a).sum(), (weight * b).sum()
            var_a, var_b = (weight * (a - mean_a) ** 2).sum(), (weight * (b - mean_b) ** 2).sum()
            both = (weight * (a - mean_a) * (b - mean_b)).sum()
            found.append(
                (2 * mean_a * mean_b + 0.01**2)
                * (2 * both + 0.03**2)
                / ((mean_a**2 + mean_b**2 + 0.01**2) * (var_a + var_b + 0.03**2))
            )
    return np.mean(found)


@pytest.mark.parametrize(
    ("shape", "levels", "window"),
    [((3, 15, 13, 1), 256, 11), ((2, 8, 8, 1), 17, 7), ((2, 12, 10, 3), 256, 9)],
)
def test_they_are_those_of_the_equations(shape, levels, window):
    """Small images have a window that fits, and colours are averaged."""
    images, other = pair(shape, levels, levels / 20)
    found = distortion(images, other, levels)
    x, y = (z.astype(np.float64) / (levels - 1) for z in (images, other))
    assert found.psnr == pytest.approx(10 * np.log10(1 / np.square(x - y).mean()), rel=1e-9)
    planes = [(n, c) for n in range(shape[0]) for c in range(shape[3])]
    wanted = np.mean([ssim(x[n, ..., c], y[n, ..., c], window) for n, c in planes])
    assert found.ssim == pytest.approx(wanted, abs=2e-5)
    assert found.window == window
    assert 0.2 < found.ssim < 0.99
    assert ("in windows of" in str(found)) == (window != 11)


def test_many_images_are_taken_in_parts(monkeypatch):
    images, other = pair((5, 8, 9, 1), 17, 1)
    whole = distortion(images, other, 17)
    monkeypatch.setattr("rnngen_jax.evaluation.distortion.CHUNK", 2)
    assert distortion(images, other, 17) == pytest.approx(whole)


def test_equal_images_lose_nothing_and_tiny_ones_have_no_ssim():
    images, other = pair((2, 6, 8, 1), 17, 2)
    assert distortion(images, images, 17) == (float("inf"), None, 0)
    assert "no SSIM of images below 7 pixels" in str(distortion(images, other, 17))
    images, _ = pair((2, 8, 8, 1), 17, 2)
    assert distortion(images, images, 17).ssim == pytest.approx(1)
