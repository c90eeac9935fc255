"""LSTM with layer normalisation (Ba et al. 2016)."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from rnngen_jax.cells.base import Cell, Params, input_kernel, recurrent_kernel
from rnngen_jax.cells.lstm import LSTMCarry
from rnngen_jax.ops.activations import sigmoid
from rnngen_jax.ops.normalisation import layer_norm
from rnngen_jax.ops.precision import matmul
from rnngen_jax.ops.products import require_width


def layer_norm_lstm(features: int, *, forget_bias: float = 1.0) -> Cell:
    """Layer-normalised LSTM (Ba et al. 2016, eqs. 20-22).

        (f, i, o, g) = LN(h U) + LN(x W) + b
        c' = σ(f) c + σ(i) tanh(g),  h' = σ(o) tanh(LN(c')),  y = h'

    Each LN over a product computes mean and variance over all four gates together, as in the
    paper; the gates are concatenated in the order f, i, o, g.

    Args:
      features: size F of the hidden state and of the memory.
      forget_bias: the forget gate's bias at initialisation.
    """

    def init(key: Array, in_features: int) -> Params:
        keys = jax.random.split(key, (2, 4))
        wide, one = 4 * features, features
        return {
            "input": jnp.concatenate([input_kernel(k, in_features, features) for k in keys[0]], 1),
            "recurrent": jnp.concatenate([recurrent_kernel(k, features) for k in keys[1]], 1),
            "bias": jnp.zeros(wide).at[:features].set(forget_bias),
            "input_norm": {"scale": jnp.ones(wide), "bias": jnp.zeros(wide)},
            "recurrent_norm": {"scale": jnp.ones(wide), "bias": jnp.zeros(wide)},
            "memory_norm": {"scale": jnp.ones(one), "bias": jnp.zeros(one)},
        }

    def carry(batch_shape: tuple[int, ...], dtype: Any) -> LSTMCarry:
        zeros = jnp.zeros((*batch_shape, features), dtype)
        return LSTMCarry(zeros, zeros)

    def inputs(params: Params, xs: Array) -> Array:
        require_width(xs, params["input"].shape[0])
        return layer_norm(matmul(xs, params["input"]), **params["input_norm"]) + params["bias"]

    def step(params: Params, carry: LSTMCarry, z: Array) -> tuple[LSTMCarry, Array]:
        product = matmul(carry.h, params["recurrent"])
        f, i, o, g = jnp.split(z + layer_norm(product, **params["recurrent_norm"]), 4, axis=-1)
        c = sigmoid(f) * carry.c + sigmoid(i) * jnp.tanh(g)
        h = sigmoid(o) * jnp.tanh(layer_norm(c, **params["memory_norm"]))
        return LSTMCarry(h, c), h

    return Cell(features, init, carry, inputs, step)
