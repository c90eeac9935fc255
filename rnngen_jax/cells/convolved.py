"""A cell at each place along a line, whose step takes in the states of neighbouring places."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from rnngen_jax.cells.base import Cell, Inputs, Params, gated_step, recurrent_kernel


def convolved(cell: Cell, offsets: tuple[int, ...], mask: np.ndarray | None = None) -> Cell:
    """Makes a gated cell's product of h a convolution over the places P of carries `[P, ..., F]`.

        a_g[p] = z_g[p] + Σ_k h[p + o_k] U_g,k + c_g     (van den Oord et al. 2016, eq. 3)

    Inputs are `[T, P, ..., D]`: feature maps for features. All places share the parameters; beyond
    the line's ends h is 0. What else the cell carries, such as an LSTM's memory, is that of the
    place itself. A cell that is linear in its carry has no product of h, so nothing is convolved;
    its neighbours must come with its inputs.

    Args:
      cell: gated or linear, with kernels of the inputs in `params["input"]`.
      offsets: o, K of them.
      mask: of zeros and ones, `[D, F]`: multiplies the kernels of the inputs.

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
        kernels, tree = jax.tree.flatten(params["recurrent"])
        keys = jax.random.split(key_kernels, (len(kernels), len(offsets)))
        # Each place adds its share: together they keep the norm of a state.
        scale = len(offsets) ** -0.5
        drawn = [
            scale * jnp.concatenate([recurrent_kernel(k, cell.features) for k in of_gate])
            for of_gate in keys
        ]
        return {**params, "recurrent": jax.tree.unflatten(tree, drawn)}

    def inputs(params: Params, xs: Array) -> Inputs:
        if mask is not None:
            masked = jax.tree.map(lambda kernel: kernel * mask, params["input"])
            params = {**params, "input": masked}
        return cell.inputs(params, xs)

    def spread(h: Array) -> Array:
        return jnp.concatenate([shifted(h, offset) for offset in offsets], axis=-1)

    if cell.gated is None:
        return cell._replace(init=init, inputs=inputs)
    gated = cell.gated._replace(spread=spread, inputs=None)
    return cell._replace(init=init, inputs=inputs, step=gated_step(gated), gated=gated)


def shifted(x: Array, offset: int) -> Array:
    """`x[p + offset]` in place p of the first axis; 0 beyond its ends."""
    places = x.shape[0]
    before, after = max(-offset, 0), max(offset, 0)
    padding = [(before, after)] + [(0, 0)] * (x.ndim - 1)
    return jax.lax.slice_in_dim(jnp.pad(x, padding), after, after + places)
