"""The spatiotemporal LSTM of PredRNN (Wang et al. 2017): a stack over maps as one cell."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from rnngen_jax.cells.base import Cell, Params, input_kernel
from rnngen_jax.cells.convolved import wide_kernel
from rnngen_jax.cells.over_maps import convolved_inputs, require_side
from rnngen_jax.ops.activations import sigmoid
from rnngen_jax.ops.convolutions import convolution, convolver
from rnngen_jax.ops.precision import matmul

RECURRENT = ("i", "f", "g", "o")
MEMORY = ("i_m", "f_m", "g_m")

# Below it, a squared norm counts as this: increments of blank maps are zero.
_LEAST = 1e-12


class STLSTMCarry(NamedTuple):
    """Each layer's hidden state and memory, from the bottom up, and the memory that they share.

    Attributes:
      h: hidden states, L times `[..., H, W, F]`.
      c: memories.
      m: the spatiotemporal memory, as the top layer has left it.
    """

    h: tuple[Array, ...]
    c: tuple[Array, ...]
    m: Array


def st_lstm(
    features: int,
    kernel: int,
    layers: int,
    *,
    forget_bias: float = 1.0,
    decoupling: bool = False,
) -> Cell:
    """A stack of L layers of ST-LSTM (Wang et al. 2017, eq. 4); * is a convolution.

    At layer l, x is the output of the layer below, and m the memory of the layer below at this
    step, or that of the top layer at the previous step (the zig-zag):

        i, f = σ(W * x + U * h + b),            g = tanh(W_g * x + U_g * h + b_g)
        i', f' = σ(W' * x + V * m + b'),        g' = tanh(W'_g * x + V_g * m + b'_g)
        c' = f c + i g,                         m' = f' m + i' g'
        o = σ(W_o * x + U_o * h + W_cm * [c', m'] + b_o)
        h' = o tanh(W_1x1 * [c', m']),          y = h' of the top layer

    Args:
      features: size F of every state and memory at each place.
      kernel: side of the convolutions, odd.
      layers: L.
      forget_bias: both forget gates' biases at initialisation.
      decoupling: adds an output, the term "decoupling" of a loss (`cells.apart` separates it): the
        absolute cosine over a map's places between A i g and A i' g', mean over features and
        layers, with one kernel A `[F, F]` for all layers (Wang et al. 2022, PredRNN-v2, eq. 5).

    Raises:
      UserError: an even kernel.
      ValueError: `layers` < 1.
    """
    require_side(kernel)
    if layers < 1:
        raise ValueError(f"layers must be ≥ 1, got {layers}")
    names = [str(n) for n in range(layers)]

    def init_layer(key: Array, in_features: int) -> Params:
        places, gates = kernel**2, (*RECURRENT, *MEMORY)
        key_input, key_recurrent, key_memory, key_output, key_last = jax.random.split(key, 5)
        biases = {gate: jnp.zeros(features) for gate in gates}
        return {
            "input": {
                gate: input_kernel(k, places * in_features, features)
                for gate, k in zip(gates, jax.random.split(key_input, len(gates)), strict=True)
            },
            "recurrent": _wide_kernels(key_recurrent, RECURRENT, features, places),
            "memory": _wide_kernels(key_memory, MEMORY, features, places),
            "output": input_kernel(key_output, 2 * places * features, features),
            "last": input_kernel(key_last, 2 * features, features),
            "bias": biases | {g: biases[g] + forget_bias for g in ("f", "f_m")},
        }

    def init(key: Array, in_features: int) -> Params:
        key_adapter, *keys = jax.random.split(key, layers + 1)
        widths = [in_features] + [features] * (layers - 1)
        params = {n: init_layer(k, w) for n, k, w in zip(names, keys, widths, strict=True)}
        if decoupling:
            params["adapter"] = input_kernel(key_adapter, features, features)
        return params

    def carry(batch_shape: tuple[int, ...], dtype: Any) -> STLSTMCarry:
        zeros = jnp.zeros((*batch_shape, features), dtype)
        return STLSTMCarry((zeros,) * layers, (zeros,) * layers, zeros)

    def layer_inputs(params: Params, xs: Array) -> dict[str, Array]:
        return convolved_inputs(params["input"], params["bias"], xs, kernel)

    def inputs(params: Params, xs: Array) -> dict[str, Array]:
        return layer_inputs(params["0"], xs)

    def step(params: Params, carry: STLSTMCarry, z: dict[str, Array]) -> tuple[STLSTMCarry, Array]:
        hs, cs, m, cosines = [], [], carry.m, []
        for n, h, c in zip(names, carry.h, carry.c, strict=True):
            own = params[n]
            z = z if n == "0" else layer_inputs(own, hs[-1])
            products = convolver(own["recurrent"], kernel)(h) | convolver(own["memory"], kernel)(m)
            a = {gate: z[gate] + products[gate] for gate in z}
            more = sigmoid(a["i"]) * jnp.tanh(a["g"])
            more_m = sigmoid(a["i_m"]) * jnp.tanh(a["g_m"])
            c, m = sigmoid(a["f"]) * c + more, sigmoid(a["f_m"]) * m + more_m
            both = jnp.concatenate([c, m], axis=-1)
            o = sigmoid(a["o"] + convolution(both, own["output"], kernel))
            hs.append(o * jnp.tanh(matmul(both, own["last"])))
            cs.append(c)
            if decoupling:
                cosines.append(_cosine(*(matmul(d, params["adapter"]) for d in (more, more_m))))
        y = hs[-1]
        if decoupling:
            term = sum(cosines) / layers
            y = jnp.concatenate([y, jnp.broadcast_to(term, (*y.shape[:-1], 1))], axis=-1)
        return STLSTMCarry(tuple(hs), tuple(cs), m), y

    width, terms = (features + 1, ("decoupling",)) if decoupling else (features, ())
    return Cell(width, init, carry, inputs, step, maps=True, terms=terms)


def _wide_kernels(
    key: Array, gates: tuple[str, ...], features: int, places: int
) -> dict[str, Array]:
    """`{gate: [K F, F]}`, orthogonal at each of the K places."""
    keys = jax.random.split(key, (len(gates), places))
    return {gate: wide_kernel(k, features) for gate, k in zip(gates, keys, strict=True)}


def _cosine(a: Array, b: Array) -> Array:
    """Mean over features of |cos| over places, `[..., H, W, F]` to `[..., 1, 1, 1]`."""

    def over_places(x: Array) -> Array:
        return x.sum((-3, -2), keepdims=True)

    norms = jnp.maximum(over_places(a * a), _LEAST) * jnp.maximum(over_places(b * b), _LEAST)
    return jnp.abs(over_places(a * b) * jax.lax.rsqrt(norms)).mean(-1, keepdims=True)
