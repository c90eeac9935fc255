"""The convolutional GRU (Ballas et al. 2016), over maps."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from rnngen_jax.cells.base import Cell, Params, gate_params
from rnngen_jax.cells.convolved import with_wide_kernels
from rnngen_jax.cells.gru import GRUCarry
from rnngen_jax.cells.over_maps import convolved_inputs, require_side
from rnngen_jax.ops.activations import sigmoid
from rnngen_jax.ops.convolutions import convolution, convolver


def conv_gru(features: int, kernel: int) -> Cell:
    """ConvGRU (Ballas et al. 2016, eqs. 7-10); * is a convolution.

        z, r = σ(W * x + U * h + b)
        n = tanh(W_n * x + U_n * (r h) + b_n),  h' = (1 - z) h + z n,  y = h'

    The reset gate acts before the product; with "gru" `over_maps` it acts after it.

    Args:
      features: size F of the hidden state at each place.
      kernel: side of the convolutions, odd.

    Raises:
      UserError: an even kernel.
    """
    require_side(kernel)

    def init(key: Array, in_features: int) -> Params:
        key_cell, key_kernels = jax.random.split(key)
        params = gate_params(key_cell, kernel**2 * in_features, features, ("z", "r", "n"))
        return with_wide_kernels(params, key_kernels, kernel**2)

    def carry(batch_shape: tuple[int, ...], dtype: Any) -> GRUCarry:
        return GRUCarry(jnp.zeros((*batch_shape, features), dtype))

    def inputs(params: Params, xs: Array) -> dict[str, Array]:
        return convolved_inputs(params["input"], params["bias"], xs, kernel)

    def step(params: Params, carry: GRUCarry, z: dict[str, Array]) -> tuple[GRUCarry, Array]:
        (h,), kernels = carry, params["recurrent"]
        products = convolver({gate: kernels[gate] for gate in "zr"}, kernel)(h)
        update, reset = (sigmoid(z[gate] + products[gate]) for gate in "zr")
        n = jnp.tanh(z["n"] + convolution(reset * h, kernels["n"], kernel))
        h = (1 - update) * h + update * n
        return GRUCarry(h), h

    return Cell(features, init, carry, inputs, step, maps=True)
