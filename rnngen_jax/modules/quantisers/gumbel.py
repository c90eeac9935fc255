"""Gumbel-softmax: codes are drawn from logits in training, the likeliest one is taken otherwise."""

import math

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from rnngen_jax import keys
from rnngen_jax.modules.quantisers.base import (
    Alternatives,
    Assigned,
    Extra,
    Params,
    Quantiser,
    Train,
    mean_of,
    require_codes,
    require_option,
    unchanged,
)
from rnngen_jax.ops import codebooks, ranking


def gumbel(
    features: int,
    *,
    codes: int = 512,
    width: int = 0,
    temperature: float = 1.0,
    coldest: float = 0.1,
    halved_every: int = 1000,
    uniform: float = 5e-4,
) -> Quantiser:
    """A one-hot draw y of K codes, with the gradient of softmax((logits + g) / τ).

    Jang et al. (2017), eq. 2, in its straight-through form; the temperature τ falls with the number
    of batches that it was trained on.

    Args:
      features: width of the vectors, if `width` is 0.
      codes: K.
      width: D of a code and of the vectors; 0 for `features`.
      temperature: τ at first.
      coldest: the lowest τ.
      halved_every: batches after which τ is halved.
      uniform: weight of the KL divergence of the choice from an even one.

    Raises:
      UserError: an option out of range.
    """
    name = "gumbel"
    require_codes(name, codes)
    require_option(width >= 0, name, "width", width, "≥ 0")
    require_option(0 < coldest <= temperature, name, "coldest", coldest, "in (0, temperature]")
    require_option(halved_every >= 1, name, "halved_every", halved_every, "≥ 1")
    require_option(uniform >= 0, name, "uniform", uniform, "≥ 0")
    width = width or features

    def init(key: Array) -> tuple[Params, Extra]:
        first, second = jax.random.split(key)
        kernel = nn.initializers.lecun_normal()(first, (width, codes))
        table = jax.random.normal(second, (codes, width)) * width**-0.5
        params = {"kernel": kernel, "bias": jnp.zeros(codes), "codes": table}
        return params, {"batches": jnp.float32(0)}

    def logits_of(params: Params, z: Array) -> Array:
        return codebooks.product(z, params["kernel"]) + params["bias"]

    def assign(
        params: Params, extra: Extra, z: Array, train: Train, mask: Array | None
    ) -> Assigned:
        logits = logits_of(params, z)
        log_p = jax.nn.log_softmax(logits)
        kl = (jnp.exp(log_p) * (log_p + math.log(codes))).sum(-1, keepdims=True)
        losses = {"uniform": uniform * mean_of(kl, mask)}
        noisy, tau = logits, jnp.float32(1.0)
        if train is not None:
            each = keys.per_example(keys.named(train[0], "gumbel"), train[1])
            draw = jax.vmap(lambda key: jax.random.gumbel(key, logits.shape[1:]))
            cooled = temperature * 0.5 ** (extra["batches"] / halved_every)
            noisy, tau = logits + draw(each), jnp.maximum(cooled, coldest)
            extra = {"batches": extra["batches"] + 1}
        indices = jnp.argmax(noisy, axis=-1).astype(jnp.int32)
        soft = jax.nn.softmax(noisy / tau)
        q = params["codes"][indices]
        mixed = codebooks.product(soft, jax.lax.stop_gradient(params["codes"]))
        # The drawn code is moved by its own gradient, the logits by that of the mixture.
        values = codebooks.exactly(q, q + mixed)
        return Assigned(values, indices[..., None], losses, extra, {})

    def decode(params: Params, extra: Extra, indices: Array) -> Array:
        del extra
        return codebooks.look_up(params["codes"], indices[..., 0])

    def alternatives(
        params: Params, extra: Extra, z: Array, indices: Array, count: int
    ) -> Alternatives:
        del extra
        which, costs = ranking.cheapest(-logits_of(params, z), indices[..., 0], count)
        return Alternatives(which[..., None], costs)

    return Quantiser(width, codes, 1, init, assign, unchanged, decode, alternatives)
