"""The convolutional LSTM (Shi et al. 2015), over maps."""

from typing import Any

import jax.numpy as jnp
from jax import Array

from rnngen_jax.cells.base import Cell, Params
from rnngen_jax.cells.lstm import LSTMCarry, lstm
from rnngen_jax.cells.over_maps import over_maps
from rnngen_jax.ops.activations import sigmoid
from rnngen_jax.ops.convolutions import convolver

PEEPHOLES = ("i", "f", "o")


def conv_lstm(
    features: int, kernel: int, *, peepholes: bool = False, forget_bias: float = 1.0
) -> Cell:
    """ConvLSTM (Shi et al. 2015, eq. 3); * is a convolution.

        i = σ(W_i * x + U_i * h + p_i c + b_i),  f = σ(W_f * x + U_f * h + p_f c + b_f)
        c' = f c + i tanh(W_g * x + U_g * h + b_g)
        o = σ(W_o * x + U_o * h + p_o c' + b_o),  h' = o tanh(c'),  y = h'

    Args:
      features: size F of the hidden state and of the memory at each place.
      kernel: side of the convolutions, odd.
      peepholes: adds the terms with c, whose weights `[F]` start at 0. All places share them, so
        that parameters fit maps of any size; in the paper each place has its own. Without them, as
        in most later work, the cell is the LSTM `over_maps`, with its faster gradient.
      forget_bias: the forget gate's bias at initialisation.

    Raises:
      UserError: an even kernel.
    """
    plain = over_maps(lstm(features, forget_bias=forget_bias), kernel)
    if not peepholes:
        return plain

    def init(key: Array, in_features: int) -> Params:
        peephole = {gate: jnp.zeros(features) for gate in PEEPHOLES}
        return {**plain.init(key, in_features), "peephole": peephole}

    def step(params: Params, carry: LSTMCarry, z: dict[str, Array]) -> tuple[LSTMCarry, Array]:
        h, c = carry
        peephole, products = params["peephole"], convolver(params["recurrent"], kernel)(h)
        a: dict[str, Any] = {gate: z[gate] + products[gate] for gate in z}
        i, f = (sigmoid(a[gate] + peephole[gate] * c) for gate in "if")
        c = f * c + i * jnp.tanh(a["g"])
        h = sigmoid(a["o"] + peephole["o"] * c) * jnp.tanh(c)
        return LSTMCarry(h, c), h

    return Cell(features, init, plain.carry, plain.inputs, step, maps=True)
