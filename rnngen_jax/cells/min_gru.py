"""The minimal gated recurrent unit, whose gates see the input only (Feng et al. 2024)."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from rnngen_jax.cells.base import Cell, Params, gate_inputs, input_kernel
from rnngen_jax.ops.activations import sigmoid

GATES = ("z", "n")


class MinGRUCarry(NamedTuple):
    """Hidden state h, `[..., F]`."""

    h: Array


def min_gru(features: int, *, positive: bool = False) -> Cell:
    """minGRU (Feng et al. 2024, sec. 3.1), linear in its carry.

        z = σ(x W_z + b_z),  n = x W_n + b_n
        h' = (1 - z) h + z n,  y = h'

    The paper needs log space because it solves with a cumulative product of 1 - z, which underflows
    within a few hundred steps, and a cumulative sum. Solved as `h' = a h + b`, nothing is divided
    by a product of a's, so no `logcumsumexp` is needed, and candidates and initial carries may be
    zero or of either sign. Biases are initialised to zero.

    Args:
      features: size F of the hidden state.
      positive: the published log-space version (appendix B), in which h is never negative:
        `n = g(x W_n + b_n)`, with `g(u) = u + 1/2` for u ≥ 0 and σ(u) below.
    """

    def init(key: Array, in_features: int) -> Params:
        keys = jax.random.split(key, len(GATES))
        return {
            "input": {
                g: input_kernel(k, in_features, features) for g, k in zip(GATES, keys, strict=True)
            },
            "bias": {g: jnp.zeros(features) for g in GATES},
        }

    def carry(batch_shape: tuple[int, ...], dtype: Any) -> MinGRUCarry:
        return MinGRUCarry(jnp.zeros((*batch_shape, features), dtype))

    def linear(params: Params, zs: dict[str, Array]) -> tuple[Array, Array]:
        z, n = sigmoid(zs["z"]), zs["n"]
        if positive:
            n = jnp.where(n >= 0, n + 0.5, sigmoid(n))
        return 1 - z, z * n

    def step(params: Params, carry: MinGRUCarry, z: dict[str, Array]) -> tuple[MinGRUCarry, Array]:
        a, b = linear(params, z)
        h = a * carry.h + b
        return MinGRUCarry(h), h

    return Cell(features, init, carry, gate_inputs, step, linear=linear)
