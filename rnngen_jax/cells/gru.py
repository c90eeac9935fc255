"""Gated recurrent units, in three variants that are often confused."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from rnngen_jax.cells.base import Cell, Gated, Params, gate_inputs, gate_params, gated_step
from rnngen_jax.config import require_choice
from rnngen_jax.ops.activations import sigmoid
from rnngen_jax.ops.precision import matmul

VARIANTS = ("reset_after", "reset_before", "nested")


class GRUCarry(NamedTuple):
    """Hidden state h, `[..., F]`."""

    h: Array


def gru(features: int, *, variant: str = "reset_after") -> Cell:
    """GRU. Update gate z and reset gate r are `σ(x W + h U + b)` in every variant.

    Args:
      features: size F of the hidden state.
      variant: where the reset gate acts, and which state the update gate keeps:

        "reset_after": after the recurrent product, as in cuDNN; z keeps the old state.

            n = tanh(x W_n + b_n + r (h U_n + b_u)),  h' = (1 - z) n + z h

        "reset_before": before the product (Cho et al. 2014, eqs. 5-8, with z and 1 - z swapped);
        z takes the new state.

            n = tanh(x W_n + (r h) U_n + b_n),  h' = (1 - z) h + z n

        "nested": a published misprint of "reset_before" that puts the reset gate's input weights
        inside the recurrent product, so the candidate has no input weights of its own.

            n = tanh((r h + x W_r) U_n + b_n),  h' = (1 - z) h + z n

    Raises:
      UserError: an unknown variant.
    """
    require_choice("gru variant", variant, VARIANTS)

    def init(key: Array, in_features: int) -> Params:
        params = gate_params(key, in_features, features, ("z", "r", "n"))
        if variant == "reset_after":
            params["bias"]["u"] = jnp.zeros(features)
        if variant == "nested":
            del params["input"]["n"]
        return params

    def carry(batch_shape: tuple[int, ...], dtype: Any) -> GRUCarry:
        return GRUCarry(jnp.zeros((*batch_shape, features), dtype))

    def nested_inputs(params: Params, xs: Array) -> dict[str, Array]:
        zs = gate_inputs(params, xs)
        # (r h + x W_r) U_n = (r h) U_n + x W_r U_n: the second term needs no time loop.
        shared = matmul(xs, params["input"]["r"])
        zs["n"] = matmul(shared, params["recurrent"]["n"]) + params["bias"]["n"]
        return zs

    def kernels(params: Params) -> dict[str, Array]:
        recurrent = params["recurrent"]
        return {"z": recurrent["z"], "r": recurrent["r"], "u": recurrent["n"]}

    def combine(carry: GRUCarry, a: dict[str, Array]) -> GRUCarry:
        update = sigmoid(a["z"])
        n = jnp.tanh(a["n"] + sigmoid(a["r"]) * a["u"])
        return GRUCarry((1 - update) * n + update * carry.h)

    def reset_before(
        params: Params, carry: GRUCarry, z: dict[str, Array]
    ) -> tuple[GRUCarry, Array]:
        (h,) = carry
        recurrent = params["recurrent"]
        update = sigmoid(z["z"] + matmul(h, recurrent["z"]))
        reset = sigmoid(z["r"] + matmul(h, recurrent["r"]))
        n = jnp.tanh(z["n"] + matmul(reset * h, recurrent["n"]))
        h = (1 - update) * h + update * n
        return GRUCarry(h), h

    inputs = nested_inputs if variant == "nested" else gate_inputs
    if variant != "reset_after":
        return Cell(features, init, carry, inputs, reset_before)
    gated = Gated(kernels, lambda params: {"u": params["bias"]["u"]}, combine)
    return Cell(features, init, carry, inputs, gated_step(gated), gated=gated)
