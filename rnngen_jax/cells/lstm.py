"""Long short-term memory (Hochreiter and Schmidhuber 1997, with the forget gate of Gers 2000)."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from rnngen_jax.cells.base import Cell, Gated, Params, gate_inputs, gate_params, gated_step
from rnngen_jax.ops.activations import sigmoid

GATES = ("i", "f", "g", "o")


class LSTMCarry(NamedTuple):
    """Hidden state h and memory c, each `[..., F]`."""

    h: Array
    c: Array


def lstm(features: int, *, forget_bias: float = 1.0) -> Cell:
    """LSTM without peepholes (Graves 2013, eqs. 7-11, less its diagonal weights).

        i, f, o = σ(x W + h U + b),  g = tanh(x W_g + h U_g + b_g)
        c' = f c + i g,  h' = o tanh(c'),  y = h'

    Args:
      features: size F of the hidden state and of the memory.
      forget_bias: the forget gate's bias at initialisation; 1 makes the cell remember at
        first (Jozefowicz et al. 2015). It is an initial value, not a constant: it is trained.
    """

    def init(key: Array, in_features: int) -> Params:
        params = gate_params(key, in_features, features, GATES)
        params["bias"]["f"] += forget_bias
        return params

    def carry(batch_shape: tuple[int, ...], dtype: Any) -> LSTMCarry:
        zeros = jnp.zeros((*batch_shape, features), dtype)
        return LSTMCarry(zeros, zeros)

    def combine(carry: LSTMCarry, a: dict[str, Array]) -> LSTMCarry:
        c = sigmoid(a["f"]) * carry.c + sigmoid(a["i"]) * jnp.tanh(a["g"])
        return LSTMCarry(sigmoid(a["o"]) * jnp.tanh(c), c)

    gated = Gated(
        lambda params: params["recurrent"],
        lambda params: {},
        combine,
        inputs=lambda params: (params["input"], params["bias"]),
    )
    return Cell(features, init, carry, gate_inputs, gated_step(gated), gated=gated)
