"""GRU with layer normalisation (Ba et al. 2016)."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from rnngen_jax.cells.base import Cell, Params, input_kernel, recurrent_kernel
from rnngen_jax.cells.gru import GRUCarry
from rnngen_jax.ops.activations import sigmoid
from rnngen_jax.ops.normalisation import layer_norm
from rnngen_jax.ops.precision import matmul
from rnngen_jax.ops.products import require_width


def layer_norm_gru(features: int) -> Cell:
    """Layer-normalised GRU (Ba et al. 2016, supplement, eqs. 27-29).

        (z, r) = σ(LN(h U_zr) + LN(x W_zr) + b)
        n = tanh(LN(x W_n) + r LN(h U_n) + b_n),  h' = (1 - z) h + z n,  y = h'

    The reset gate acts after the product. The LNs over the gates compute mean and variance
    over z and r together, as in the paper.

    Args:
      features: size F of the hidden state.
    """
    sizes = {"gates": 2 * features, "candidate": features}

    def init(key: Array, in_features: int) -> Params:
        keys = jax.random.split(key, (2, 3))
        w = [input_kernel(k, in_features, features) for k in keys[0]]
        u = [recurrent_kernel(k, features) for k in keys[1]]
        norms = {n: {"scale": jnp.ones(s), "bias": jnp.zeros(s)} for n, s in sizes.items()}
        return {
            "input": {"gates": jnp.concatenate(w[:2], 1), "candidate": w[2]},
            "recurrent": {"gates": jnp.concatenate(u[:2], 1), "candidate": u[2]},
            "bias": {n: jnp.zeros(s) for n, s in sizes.items()},
            "input_norm": norms,
            "recurrent_norm": jax.tree.map(jnp.array, norms),
        }

    def carry(batch_shape: tuple[int, ...], dtype: Any) -> GRUCarry:
        return GRUCarry(jnp.zeros((*batch_shape, features), dtype))

    def inputs(params: Params, xs: Array) -> dict[str, Array]:
        require_width(xs, params["input"]["gates"].shape[0])
        return {
            name: layer_norm(matmul(xs, params["input"][name]), **params["input_norm"][name])
            + params["bias"][name]
            for name in sizes
        }

    def step(params: Params, carry: GRUCarry, z: dict[str, Array]) -> tuple[GRUCarry, Array]:
        (h,) = carry
        recurrent = {
            name: layer_norm(matmul(h, params["recurrent"][name]), **params["recurrent_norm"][name])
            for name in sizes
        }
        update, reset = jnp.split(sigmoid(z["gates"] + recurrent["gates"]), 2, axis=-1)
        n = jnp.tanh(z["candidate"] + reset * recurrent["candidate"])
        h = (1 - update) * h + update * n
        return GRUCarry(h), h

    return Cell(features, init, carry, inputs, step)
