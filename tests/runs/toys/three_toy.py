"""A toy with three players: an adversarial autoencoder of matrices (Makhzani et al. 2016).

The critic tells codes from noise, the encoder deceives it, and the decoder rebuilds.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp

from rnngen_jax import keys
from rnngen_jax.models.base import Aux, Model
from rnngen_jax.modules.latent import scaled


@dataclass(frozen=True)
class Config:
    """Choices of the toy.

    Attributes:
      size: of a code.
    """

    PLAYERS: ClassVar[Mapping[str, str]] = {
        "critic": "critic",
        "encoder": "encoder",
        "decoder": "optimizer",
    }

    size: int = 2


def build(config, spec):
    shapes = {
        "critic": (config.size, 1),
        "encoder": (spec.dims, config.size),
        "decoder": (config.size, spec.dims),
    }

    def init(key):
        return {
            player: {"kernel": 0.1 * jax.random.normal(keys.named(key, player), shape)}
            for player, shape in shapes.items()
        }, {}

    def codes(params, batch):
        flat = scaled(batch["image"], spec.levels).reshape(-1, spec.dims)
        return flat, flat @ params["encoder"]["kernel"]

    def score(params, code):
        return code @ params["critic"]["kernel"]

    def critic(params, extra, batch, key, step):
        _, code = codes(params, batch)
        each = keys.per_example(key, batch["index"])
        noise = jax.vmap(lambda key: jax.random.normal(key, (config.size,)))(each)
        value = jax.nn.softplus(-score(params, noise)) + jax.nn.softplus(score(params, code))
        return value.mean(), Aux({}, extra)

    def encoder(params, extra, batch, key, step):
        _, code = codes(params, batch)
        return jax.nn.softplus(-score(params, code)).mean(), Aux({}, extra)

    def decoder(params, extra, batch, key, step):
        flat, code = codes(params, batch)
        rebuilt = code @ params["decoder"]["kernel"]
        return jnp.mean((rebuilt - flat) ** 2), Aux({}, extra)

    losses = {"critic": critic, "encoder": encoder, "decoder": decoder}
    return Model("three_toy", spec, False, init, losses)
