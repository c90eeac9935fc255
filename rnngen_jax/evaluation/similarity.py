"""Structural similarity of images in windows of equal weights, as video prediction reports it."""

import jax.numpy as jnp
import numpy as np
from jax import Array

WINDOW = 7  # side of the window, as by default in scikit-image
K1, K2 = 0.01, 0.03  # Wang et al. 2004, section III.C


def uniform_ssim(images: Array, others: Array, data_range: float) -> Array:
    """SSIM with windows of 7x7 equal weights and unbiased covariances (Wang et al. 2004, eq. 13).

    It is scikit-image's default, which published figures of predicted frames use.

    Args:
      images, others: `[..., H, W, C]`, H and W ≥ 7.
      data_range: R, the difference of the greatest and the least possible value.

    Returns:
      The mean over channels and all places of the window within the image, `[...]`.
    """

    def along(size: int) -> np.ndarray:
        """Equal weights at each place within the image, `[size - 6, size]`."""
        places = size - WINDOW + 1
        return np.sum([np.eye(places, size, k) for k in range(WINDOW)], axis=0) / WINDOW

    down, across = (np.float32(along(size)) for size in images.shape[-3:-1])

    def mean(x: Array) -> Array:
        return jnp.einsum("ih,...hwc,jw->...ijc", down, x, across, precision="highest")

    unbiased = WINDOW**2 / (WINDOW**2 - 1)
    one, other = mean(images), mean(others)
    variances = unbiased * (mean(images**2) - one**2 + mean(others**2) - other**2)
    covariance = unbiased * (mean(images * others) - one * other)
    c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
    above = (2 * one * other + c1) * (2 * covariance + c2)
    below = (one**2 + other**2 + c1) * (variances + c2)
    return (above / below).mean((-3, -2, -1))
