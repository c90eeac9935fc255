"""Cells over maps, whose products with inputs and states are convolutions."""

from typing import Any

import jax
from jax import Array

from rnngen_jax.cells.base import Cell, Inputs, Params, gated_step
from rnngen_jax.cells.convolved import takes_any_width, with_wide_kernels
from rnngen_jax.config import require
from rnngen_jax.errors import UserError
from rnngen_jax.ops.patches import neighbours
from rnngen_jax.ops.products import multiplier, require_width


def over_maps(cell: Cell, kernel: int = 3) -> Cell:
    """Turns a cell over vectors into one over maps `[B, H, W, F]`.

        a_g[p] = Σ_k (x[p + o_k] W_g,k + h[p + o_k] U_g,k) + b_g,   o_k in the square around 0

    All places share the parameters, whose kernels are `[K² D, F]` and `[K² F, F]`; x and h are 0
    beyond a map's edges. The rest of the carry, such as an LSTM's memory, stays local to its place.
    A cell that is linear in its carry sees its neighbours' inputs alone, and still runs in parallel
    over time.

    Args:
      cell: gated or linear, with weights for its inputs.
      kernel: side K of the square of places, odd.

    Raises:
      UserError: an even kernel, or a cell of another form.
    """
    require_side(kernel)
    if (cell.gated is None and cell.linear is None) or not takes_any_width(cell) or cell.maps:
        raise UserError("only cells that are gated or linear, with input weights, run over maps")

    def init(key: Array, in_features: int) -> Params:
        key_cell, key_kernels = jax.random.split(key)
        params = cell.init(key_cell, kernel**2 * in_features)
        if cell.gated is None:
            return params
        return with_wide_kernels(params, key_kernels, kernel**2)

    def inputs(params: Params, xs: Array) -> Inputs:
        require_map_width(params["input"], xs, kernel)
        return cell.inputs(params, neighbours(xs, kernel))

    if cell.gated is None:
        return cell._replace(init=init, inputs=inputs, maps=True)
    gated = cell.gated._replace(side=kernel, inputs=None)
    return cell._replace(init=init, inputs=inputs, step=gated_step(gated), gated=gated, maps=True)


def require_side(kernel: int) -> None:
    """Raises a `UserError` unless a kernel has a centre."""
    require(kernel >= 1 and kernel % 2 == 1, "kernel", kernel, "odd and ≥ 1")


def require_map_width(kernels: Any, maps: Array, side: int) -> None:
    """Raises a `ValueError` unless kernels `[side² D, F]` are for maps `[..., H, W, D]`."""
    require_width(maps, jax.tree.leaves(kernels)[0].shape[0] // side**2)


def convolve(kernels: dict[str, Array], maps: Array, side: int) -> dict[str, Array]:
    """Convolves maps with the kernels of several gates at once.

    Neighbourhoods are side² times as large as the maps, so they are not kept for the gradient.

    Args:
      kernels: `{gate: [side² D, F]}`.
      maps: `[..., H, W, D]`.
      side: of the kernels.

    Returns:
      `{gate: [..., H, W, F]}`.

    Raises:
      ValueError: the kernels are for maps of another width.
    """
    require_map_width(kernels, maps, side)

    @jax.checkpoint
    def product(kernels: dict[str, Array], maps: Array) -> dict[str, Array]:
        return multiplier(kernels)(neighbours(maps, side))

    return product(kernels, maps)
