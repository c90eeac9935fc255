"""The Elman network (Elman 1990), with any activation."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from rnngen_jax.cells.base import (
    Cell,
    Gated,
    Params,
    gated_step,
    input_kernel,
    recurrent_kernel,
    require_no_weights_needed,
)
from rnngen_jax.ops.activations import activation_named
from rnngen_jax.ops.products import product, require_width


class RNNCarry(NamedTuple):
    """Hidden state h, `[..., F]`."""

    h: Array


def rnn(
    features: int,
    *,
    activation: str = "tanh",
    input_weights: bool = True,
    recurrent: bool = True,
) -> Cell:
    """Elman cell, `h[t] = f(x[t] W + h[t-1] U + b)`, `y[t] = h[t]`.

    The readout `y = h W_hy + b_y` of the textbook cell belongs to the model that uses it.

    Args:
      features: size F of the hidden state.
      activation: a name in `ops.activations.ACTIVATIONS`, the f of the equation.
      input_weights: if False, `x[t]` is added unchanged and must have F features; for models that
        tie their readout to their own input weights.
      recurrent: if False, U is left out, `h[t] = f(x[t] W + b)`: the layer without a memory that an
        ablation of cells starts from.

    Raises:
      UserError: an unknown activation; from `init`, inputs of another width than F without input
        weights.
    """
    f = activation_named(activation)

    def init(key: Array, in_features: int) -> Params:
        key_input, key_recurrent = jax.random.split(key)
        params = {"bias": jnp.zeros(features)}
        if recurrent:
            params["recurrent"] = recurrent_kernel(key_recurrent, features)
        if input_weights:
            params["input"] = input_kernel(key_input, in_features, features)
        else:
            require_no_weights_needed("rnn", in_features, features)
        return params

    def carry(batch_shape: tuple[int, ...], dtype: Any) -> RNNCarry:
        return RNNCarry(jnp.zeros((*batch_shape, features), dtype))

    def inputs(params: Params, xs: Array) -> dict[str, Array]:
        if input_weights:
            return {"h": product(xs, params["input"]) + params["bias"]}
        require_width(xs, features)
        return {"h": xs + params["bias"]}

    def combine(carry: RNNCarry, a: dict[str, Array]) -> RNNCarry:
        return RNNCarry(f(a["h"]))

    def forward(params: Params, carry: RNNCarry, a: dict[str, Array]) -> tuple[RNNCarry, Array]:
        del params, carry
        h = f(a["h"])
        return RNNCarry(h), h

    if not recurrent:
        return Cell(features, init, carry, inputs, forward)

    def weights(params: Params) -> tuple[dict[str, Array], dict[str, Array]]:
        return {"h": params["input"]}, {"h": params["bias"]}

    gated = Gated(
        lambda params: {"h": params["recurrent"]},
        lambda params: {},
        combine,
        inputs=weights if input_weights else None,
    )
    return Cell(features, init, carry, inputs, gated_step(gated), gated=gated)
