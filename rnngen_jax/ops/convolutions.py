"""Convolutions of maps that keep their size, with kernels `[K² D, F]` of rows in raster order."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from rnngen_jax.ops.devices import compiled_for
from rnngen_jax.ops.precision import matmul, rounds
from rnngen_jax.ops.products import require_width

# On a CPU, values of the neighbourhoods that are laid out at once for a kernel's gradient.
_CPU_VALUES = 2**20


def neighbours(maps: Array, side: int) -> Array:
    """The values around each place of a map, with zeros beyond its edges.

    Args:
      maps: `[..., H, W, D]`.
      side: of the square of K² places around each one; odd.

    Returns:
      `[..., H, W, K² D]`, places in raster order, so that a product with a kernel is a convolution.
    """
    if side == 1:
        return maps
    *lead, height, width, depth = maps.shape
    reach = side // 2
    around = jnp.pad(maps, [(0, 0)] * len(lead) + [(reach, reach)] * 2 + [(0, 0)])
    taps = [around[..., i : i + height, j : j + width, :] for i in range(side) for j in range(side)]
    if compiled_for() != "cpu":
        return jnp.concatenate(taps, axis=-1)
    # Written one by one, in place: half of the time of a concatenation.
    laid = jnp.zeros((*lead, height, width, side**2 * depth), maps.dtype)
    for n, tap in enumerate(taps):
        laid = jax.lax.dynamic_update_slice_in_dim(laid, tap, n * depth, axis=-1)
    return laid


def convolution(maps: Array, kernel: Array, side: int) -> Array:
    """`[..., H, W, D]` with a kernel `[side² D, F]`, to `[..., H, W, F]`; zeros beyond the edges.

    Neighbourhoods, side² times as large as the maps, are not kept for the gradient. On a CPU, and
    in bfloat16, it has no forward mode.

    Raises:
      ValueError: the kernel is for maps of another width.
    """
    require_width(maps, kernel.shape[0] // side**2)
    if rounds():
        return jax.checkpoint(lambda maps, kernel: matmul(neighbours(maps, side), kernel))(
            maps, kernel
        )
    return (_on_a_cpu if compiled_for() == "cpu" else _direct)(maps, kernel, side)


def convolver(kernels: dict[str, Array], side: int) -> Callable[[Array], dict[str, Array]]:
    """`convolve(maps [..., H, W, D]) -> {gate: [..., H, W, F]}`, as one convolution for all gates.

    Args:
      kernels: `{gate: [side² D, F]}`.
      side: of the kernels.
    """
    wide = jnp.concatenate(list(kernels.values()), axis=-1)

    def convolve(maps: Array) -> dict[str, Array]:
        parts = jnp.split(convolution(maps, wide, side), len(kernels), axis=-1)
        return dict(zip(kernels, parts, strict=True))

    return convolve


def _direct(maps: Array, kernel: Array, side: int) -> Array:
    images = maps.reshape(-1, *maps.shape[-3:])
    out = jax.lax.conv_general_dilated(
        images,
        kernel.reshape(side, side, maps.shape[-1], -1),
        window_strides=(1, 1),
        padding="SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return out.reshape(*maps.shape[:-1], -1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _on_a_cpu(maps: Array, kernel: Array, side: int) -> Array:
    """`_direct`, whose gradient for the kernel is a product: its own takes twice as long there."""
    return _direct(maps, kernel, side)


def _forward(maps: Array, kernel: Array, side: int) -> tuple[Array, tuple[Array, Array]]:
    return _on_a_cpu(maps, kernel, side), (maps, kernel)


def _backward(side: int, kept: tuple[Array, Array], d_out: Array) -> tuple[Array, Array]:
    maps, kernel = kept
    depth, features = maps.shape[-1], kernel.shape[-1]
    # Seen from an input, the output at the opposite place has its weight.
    turned = kernel.reshape(side**2, depth, features)[::-1].swapaxes(1, 2).reshape(-1, depth)
    return _on_a_cpu(d_out, turned, side), _kernel_gradient(maps, d_out, side)


_on_a_cpu.defvjp(_forward, _backward)


def _kernel_gradient(maps: Array, d_out: Array, side: int) -> Array:
    """`[side² D, F]`, over some images at a time, whose neighbourhoods stay near the core."""
    images, d_images = (x.reshape(-1, *x.shape[-3:]) for x in (maps, d_out))
    count, height, width, depth = images.shape
    size = min(max(_CPU_VALUES // (height * width * side**2 * depth), 1), count)

    def of_some(start: Array | int, some: int) -> Array:
        x, d = (jax.lax.dynamic_slice_in_dim(a, start, some) for a in (images, d_images))
        rows = neighbours(x, side).reshape(-1, side**2 * depth)
        return rows.T @ d.reshape(-1, d.shape[-1])

    whole, odd = divmod(count, size)
    total = of_some(whole * size, odd) if odd else None
    if whole == 1:
        found = of_some(0, size)
        return found if total is None else total + found
    zero = jnp.zeros((side**2 * depth, d_images.shape[-1]), d_out.dtype)
    start = zero if total is None else total
    return jax.lax.fori_loop(0, whole, lambda n, sum_: sum_ + of_some(n * size, size), start)
