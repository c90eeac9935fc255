"""Attention windows: grids of Gaussian filters that read or write a patch of an image.

Gregor et al. 2015 (DRAW), section 3.2, with that paper's equation numbers. A window is a grid of
N x N filters. As there, pixels are counted from 1, and a filter's weights over pixels sum to 1.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from rnngen_jax.ops.precision import einsum


class Window(NamedTuple):
    """A window's parameters, `[B]` each.

    Attributes:
      row: g_Y, the grid's centre, from 1 for the first row to H for the last.
      column: g_X, the same for columns.
      stride: δ, pixels between neighbouring filters.
      variance: σ² of each filter, pixels².
      intensity: γ, which multiplies a patch that is read and divides one that is written.
    """

    row: Array
    column: Array
    stride: Array
    variance: Array
    intensity: Array


PARAMETERS = len(Window._fields)


def window(raw: Array, height: int, width: int, size: int) -> Window:
    """A window from a linear map's outputs `[B, 5]` (eqs. 21-24).

    For outputs of zero it covers the whole image.

    Args:
      raw: g̃_X, g̃_Y, log σ², log δ̃ and log γ.
      height, width: of the image.
      size: filters N per side.
    """
    column, row, log_variance, log_stride, log_intensity = jnp.moveaxis(raw, -1, 0)
    most = max(height, width) - 1
    return Window(
        row=(height + 1) / 2 * (row + 1),
        column=(width + 1) / 2 * (column + 1),
        stride=most / max(size - 1, 1) * jnp.exp(log_stride),
        variance=jnp.exp(log_variance),
        intensity=jnp.exp(log_intensity),
    )


def covering(height: int, width: int, size: int, writes: bool) -> Array:
    """Raw outputs `[5]` of a window over the whole image, to initialise a network's bias.

    Filters are half their stride wide, so they leave no pixel out. A window that `writes` gets the
    intensity at which a patch of ones adds about one to every pixel: weights that sum to 1 over all
    pixels are small at each, so with γ = 1 a network would hardly change its canvas at first.
    """
    stride = (max(height, width) - 1) / max(size - 1, 1)
    intensity = size**2 / (height * width) if writes else 1.0
    return jnp.array([0.0, 0.0, 2 * math.log(max(stride / 2, 0.5)), 0.0, math.log(intensity)])


def filters(centre: Array, stride: Array, variance: Array, pixels: int, size: int) -> Array:
    """A filter bank along one axis, `[B, N, pixels]` (eqs. 19, 20, 25, 26).

    The division by Z is a softmax, so a filter far outside the image selects the nearest pixel
    instead of dividing 0 by 0.

    Args:
      centre, stride, variance: of the grid along this axis, `[B]`.
      pixels: of the image along this axis.
      size: filters N per side.
    """
    number = jnp.arange(1, size + 1)
    means = centre[:, None] + (number - size / 2 - 0.5) * stride[:, None]
    pixel, mean = jnp.arange(1, pixels + 1), means[..., None]
    nearest = jax.lax.stop_gradient(jnp.clip(jnp.rint(mean), 1, pixels))
    # (a - μ)² minus that of the nearest pixel, where it is exactly 0 however the compiler rounds.
    further = (pixel - nearest) * (pixel + nearest - 2 * mean)
    return jax.nn.softmax(-further / (2 * variance[:, None, None]), axis=-1)


def banks(window: Window, height: int, width: int, size: int) -> tuple[Array, Array]:
    """F_Y `[B, N, H]` and F_X `[B, N, W]` of a window."""
    rows = filters(window.row, window.stride, window.variance, height, size)
    columns = filters(window.column, window.stride, window.variance, width, size)
    return rows, columns


def read(window: Window, image: Array, size: int) -> Array:
    """`γ F_Y x F_Xᵀ`, the patch `[B, N, N, C]` of images `[B, H, W, C]` (eq. 27)."""
    height, width, channels = image.shape[1:]
    rows, columns = banks(window, height, width, size)
    # Scaling the filters is cheaper than the image. A row's values are one axis: long loops are
    # fast, in the gradient too.
    rows = window.intensity[:, None, None] * rows
    lines = einsum("bnh,bhv->bnv", rows, image.reshape(-1, height, width * channels))
    return einsum("bmw,bnwc->bnmc", columns, lines.reshape(-1, size, width, channels))


def write(window: Window, patch: Array, height: int, width: int) -> Array:
    """`1/γ F_Yᵀ w F_X`, patches `[B, N, N, C]` laid into images `[B, H, W, C]` (eq. 29)."""
    size, channels = patch.shape[2:]
    rows, columns = banks(window, height, width, size)
    rows = rows / window.intensity[:, None, None]
    lines = einsum("bmw,bnmc->bnwc", columns, patch)
    image = einsum("bnh,bnv->bhv", rows, lines.reshape(-1, size, width * channels))
    return image.reshape(-1, height, width, channels)


def box(window: Window, size: int) -> Array:
    """The outer filters' means as top, left, bottom and right, `[B, 4]` pixels from 0."""
    half = (size - 1) / 2 * window.stride
    top, left = window.row - 1 - half, window.column - 1 - half
    return jnp.stack([top, left, top + 2 * half, left + 2 * half], axis=-1)
