"""How far images are from others: PSNR and SSIM."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

WINDOW, SIGMA = 11, 1.5  # of SSIM's Gaussian window (Wang et al. 2004, section III.B)
LEAST_WINDOW = 7  # a smaller one would cut most of the Gaussian off
CHUNK = 256  # images at once


class Distortion(NamedTuple):
    """The distortion of images.

    Attributes:
      psnr: peak signal-to-noise ratio in dB, of the mean squared error over all values of all
        images, the peak being the highest level; infinite for equal images.
      ssim: mean structural similarity over images, or `None` for images smaller than the least
        window.
      window: side of its window: 11, or as large and odd as fits into the images; 0 without.
    """

    psnr: float
    ssim: float | None
    window: int

    def __str__(self) -> str:
        if self.ssim is None:
            return f"PSNR {self.psnr:.2f} dB, no SSIM of images below {LEAST_WINDOW} pixels"
        small = "" if self.window == WINDOW else f" in windows of {self.window}x{self.window}"
        return f"PSNR {self.psnr:.2f} dB, SSIM {self.ssim:.4f}{small}"


def distortion(images: np.ndarray, others: np.ndarray, levels: int) -> Distortion:
    """The distortion of images `[N, H, W, C]` against others, grey levels in `[0, levels)`."""
    gap = images.astype(np.float64) - others.astype(np.float64)
    error = np.square(gap).mean() / (levels - 1) ** 2
    psnr = float("inf") if error == 0 else float(-10 * np.log10(error))
    side = min(WINDOW, *images.shape[1:3])
    window = side - 1 + side % 2
    if window < LEAST_WINDOW:
        return Distortion(psnr, None, 0)
    found = [
        np.asarray(_ssim(*(_scaled(x[at : at + CHUNK], levels) for x in (images, others)), window))
        for at in range(0, len(images), CHUNK)
    ]
    return Distortion(psnr, float(np.concatenate(found).astype(np.float64).mean()), window)


def _scaled(images: np.ndarray, levels: int) -> np.ndarray:
    """Grey levels as float32 in [0, 1]."""
    return (images / (levels - 1)).astype(np.float32)


@functools.partial(jax.jit, static_argnums=2)
def _ssim(images: Array, others: Array, window: int) -> Array:
    """SSIM of each pair of images, `[N]`, over all places of the window within the image."""
    import dm_pix  # here, as only this needs it

    at = (np.arange(window) - (window - 1) / 2) / SIGMA
    weights = np.exp(-np.square(at) / 2) / np.exp(-np.square(at) / 2).sum()

    def along(size: int) -> np.ndarray:
        """The weights at each place within the image, `[size - window + 1, size]`."""
        shifted = [w * np.eye(size - window + 1, size, k) for k, w in enumerate(weights)]
        return np.sum(shifted, axis=0).astype(np.float32)

    def blur(x: Array) -> Array:
        """Two products; dm-pix's own convolutions take several times as long on a CPU."""
        down, across = along(x.shape[1]), along(x.shape[2])
        return jnp.einsum("ih,bhwc,jw->bijc", down, x, across, precision="highest")

    return dm_pix.ssim(images, others, filter_fn=blur)
