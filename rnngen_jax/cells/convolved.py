"""Cells at the places along a line, each of which sees its neighbours' hidden states."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from rnngen_jax.cells.base import Cell, Inputs, Params, gated_step, recurrent_kernel
from rnngen_jax.errors import UserError


def wide_kernel(keys: Array, features: int) -> Array:
    """Orthogonal kernels of K places on top of each other, `[K F, F]`, from K keys.

    They are scaled so that the K terms together keep the norm of a state.
    """
    return len(keys) ** -0.5 * jnp.concatenate([recurrent_kernel(k, features) for k in keys])


def with_wide_kernels(params: Params, key: Array, places: int) -> Params:
    """A gated cell's parameters with recurrent kernels `[F, F]` redrawn as `[K F, F]`."""
    kernels, tree = jax.tree.flatten(params["recurrent"])
    keys = jax.random.split(key, (len(kernels), places))
    drawn = [wide_kernel(of_gate, len(u)) for of_gate, u in zip(keys, kernels, strict=True)]
    return {**params, "recurrent": jax.tree.unflatten(tree, drawn)}


def takes_any_width(cell: Cell) -> bool:
    """Whether a cell applies weights to all its inputs, so they may have any width."""
    try:
        jax.eval_shape(lambda: cell.init(jax.random.key(0), cell.features + 1))
    except UserError:
        return False
    return True


def convolved(cell: Cell, offsets: tuple[int, ...], mask: np.ndarray | None = None) -> Cell:
    """Turns a gated cell's product with h into a convolution over P places, carries `[P, ..., F]`.

        a_g[p] = z_g[p] + Σ_k h[p + o_k] U_g,k + c_g     (van den Oord et al. 2016, eq. 3)

    Inputs are `[T, P, ..., D]`. All places share the parameters; h is 0 beyond the line's ends.
    The rest of the carry, such as an LSTM's memory, stays local to its place. A cell that is linear
    in its carry has no product with h to convolve; its inputs must contain the neighbours.

    Args:
      cell: gated or linear, with its input kernels in `params["input"]`.
      offsets: the K offsets o.
      mask: zeros and ones, `[D, F]`: multiplies the input kernels.

    Raises:
      ValueError: the cell is neither gated nor linear.
    """
    if cell.gated is None and cell.linear is None:
        raise ValueError("only cells that are gated or linear can be convolved")

    def init(key: Array, in_features: int) -> Params:
        key_cell, key_kernels = jax.random.split(key)
        params = cell.init(key_cell, in_features)
        if cell.gated is None:
            return params
        return with_wide_kernels(params, key_kernels, len(offsets))

    def inputs(params: Params, xs: Array) -> Inputs:
        if mask is not None:
            masked = jax.tree.map(lambda kernel: kernel * mask, params["input"])
            params = {**params, "input": masked}
        return cell.inputs(params, xs)

    if cell.gated is None:
        return cell._replace(init=init, inputs=inputs)
    gated = cell.gated._replace(offsets=offsets, inputs=None)
    return cell._replace(init=init, inputs=inputs, step=gated_step(gated), gated=gated)
