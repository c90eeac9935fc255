"""Cells over maps, whose products with inputs and states are convolutions."""

import jax
from jax import Array

from rnngen_jax.cells.base import Cell, Inputs, Params, gate_inputs, gated_step
from rnngen_jax.cells.convolved import takes_any_width, with_wide_kernels
from rnngen_jax.config import require
from rnngen_jax.errors import UserError
from rnngen_jax.ops.convolutions import convolver, neighbours
from rnngen_jax.ops.products import require_width


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
        if cell.gated is not None and cell.gated.inputs is not None:
            return convolved_inputs(*cell.gated.inputs(params), xs, kernel)
        if cell.inputs is gate_inputs:
            return convolved_inputs(params["input"], params["bias"], xs, kernel)
        require_width(xs, jax.tree.leaves(params["input"])[0].shape[0] // kernel**2)
        return cell.inputs(params, neighbours(xs, kernel))

    if cell.gated is None:
        return cell._replace(init=init, inputs=inputs, maps=True)
    gated = cell.gated._replace(side=kernel, inputs=None)
    return cell._replace(init=init, inputs=inputs, step=gated_step(gated), gated=gated, maps=True)


def convolved_inputs(
    kernels: dict[str, Array], biases: dict[str, Array], xs: Array, side: int
) -> dict[str, Array]:
    """`x * W_g + b_g` for every gate g, from maps `[..., H, W, D]` and kernels `[side² D, F]`."""
    return {gate: z + biases[gate] for gate, z in convolver(kernels, side)(xs).items()}


def require_side(kernel: int) -> None:
    """Raises a `UserError` unless a kernel has a centre."""
    require(kernel >= 1 and kernel % 2 == 1, "kernel", kernel, "odd and ≥ 1")
