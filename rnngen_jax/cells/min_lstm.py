"""The minimal long short-term memory, whose gates see the input only (Feng et al. 2024)."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from rnngen_jax.cells.base import Cell, Params, gate_inputs, input_kernel
from rnngen_jax.ops.activations import sigmoid

GATES = ("f", "i", "n")


class MinLSTMCarry(NamedTuple):
    """Hidden state h, `[..., F]`; there is no separate memory."""

    h: Array


def min_lstm(features: int, *, positive: bool = False, forget_bias: float = 0.0) -> Cell:
    """minLSTM with normalised gates (Feng et al. 2024, sec. 3.2), linear in its carry.

        f, i = σ(x W + b),  n = x W_n + b_n
        h' = f/(f+i) h + i/(f+i) n,  y = h'

    f + i can underflow although the quotient is well defined, so it is computed in log space: with
    `log σ(u) = -softplus(-u)`, `f/(f+i) = σ(log f - log i)`. The recurrence itself needs no log
    space, for the reason given in `min_gru`.

    Args:
      features: size F of the hidden state.
      positive: the published log-space version (appendix B), in which h is never negative:
        `n = g(x W_n + b_n)`, with `g(u) = u + 1/2` for u ≥ 0 and σ(u) below.
      forget_bias: the forget gate's bias at initialisation; 0 is the plain linear layer of the
        equations; > 0 keeps more of h at first, with which the paper trains in fewer steps.
    """

    def init(key: Array, in_features: int) -> Params:
        keys = jax.random.split(key, len(GATES))
        return {
            "input": {
                g: input_kernel(k, in_features, features) for g, k in zip(GATES, keys, strict=True)
            },
            "bias": {g: jnp.full(features, forget_bias if g == "f" else 0.0) for g in GATES},
        }

    def carry(batch_shape: tuple[int, ...], dtype: Any) -> MinLSTMCarry:
        return MinLSTMCarry(jnp.zeros((*batch_shape, features), dtype))

    def linear(params: Params, zs: dict[str, Array]) -> tuple[Array, Array]:
        n = zs["n"]
        if positive:
            n = jnp.where(n >= 0, n + 0.5, sigmoid(n))
        keep = sigmoid(jax.nn.softplus(-zs["i"]) - jax.nn.softplus(-zs["f"]))
        return keep, (1 - keep) * n

    def step(
        params: Params, carry: MinLSTMCarry, z: dict[str, Array]
    ) -> tuple[MinLSTMCarry, Array]:
        a, b = linear(params, z)
        h = a * carry.h + b
        return MinLSTMCarry(h), h

    return Cell(features, init, carry, gate_inputs, step, linear=linear)
