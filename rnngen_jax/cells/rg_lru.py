"""The real-gated linear recurrent unit of Griffin (De et al. 2024)."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from rnngen_jax.cells.base import Cell, Params, gate_inputs, input_kernel, require_no_weights_needed
from rnngen_jax.ops.activations import sigmoid

# Range of the decay a^c at initialisation (uniform): a memory of 10 to 1,000 steps.
_SLOWEST, _FASTEST = 0.999, 0.9


class RGLRUCarry(NamedTuple):
    """Hidden state h, `[..., F]`."""

    h: Array


def rg_lru(features: int, *, c: float = 8.0, input_weights: bool = True) -> Cell:
    """RG-LRU (De et al. 2024, eqs. 1-4), linear in its carry; Λ is a learned vector `[F]`.

        r, i = σ(x W + b),  v = x W_v + b_v
        a = σ(Λ)^(c r),  h' = a h + sqrt(1 - a²) (i v),  y = h'

    In the paper x has F features already, from a linear layer of the surrounding block; here that
    layer is W_v, and the gates read its input. The gates' kernels are dense, not block-diagonal.

    a is close to 1, so it is computed from its logarithm, and 1 - a² as `-expm1(2 log a)`, which
    keeps the digits that float32 loses in the difference.

    Args:
      features: size F of the hidden state.
      c: how far the recurrence gate r can shorten the memory, > 0.
      input_weights: if False, v is x itself, as in eq. 4, so x must have F features.

    Raises:
      UserError: from `init`, inputs of another width than F without input weights.
    """
    gates = ("r", "i", "v") if input_weights else ("r", "i")

    def init(key: Array, in_features: int) -> Params:
        if not input_weights:
            require_no_weights_needed("rg_lru", in_features, features)
        key_decay, *keys = jax.random.split(key, 1 + len(gates))
        decay = jax.random.uniform(key_decay, (features,), minval=_FASTEST, maxval=_SLOWEST)
        log_a = jnp.log(decay) / c
        return {
            "input": {
                g: input_kernel(k, in_features, features) for g, k in zip(gates, keys, strict=True)
            },
            "bias": {g: jnp.zeros(features) for g in gates},
            "lambda": log_a - jnp.log(-jnp.expm1(log_a)),  # logit of a
        }

    def carry(batch_shape: tuple[int, ...], dtype: Any) -> RGLRUCarry:
        return RGLRUCarry(jnp.zeros((*batch_shape, features), dtype))

    def unweighted(params: Params, xs: Array) -> dict[str, Array]:
        return {**gate_inputs(params, xs), "v": xs}

    def linear(params: Params, zs: dict[str, Array]) -> tuple[Array, Array]:
        log_a = c * jax.nn.log_sigmoid(params["lambda"]) * sigmoid(zs["r"])
        # As a → 1 the root's derivative diverges, but those of log a in Λ and r's argument vanish
        # faster, so their products go to 0. Only r = 0 exactly needs the clamp, against ∞ · 0.
        rest = jnp.maximum(-jnp.expm1(2 * log_a), jnp.finfo(log_a.dtype).tiny)
        return jnp.exp(log_a), jnp.sqrt(rest) * sigmoid(zs["i"]) * zs["v"]

    def step(params: Params, carry: RGLRUCarry, z: dict[str, Array]) -> tuple[RGLRUCarry, Array]:
        a, b = linear(params, z)
        h = a * carry.h + b
        return RGLRUCarry(h), h

    inputs = gate_inputs if input_weights else unweighted
    return Cell(features, init, carry, inputs, step, linear=linear)
