"""What an encoder and a decoder of latents are, as pure functions."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from rnngen_jax.models.base import Extra, Given, Params, Scalar
from rnngen_jax.ops import gaussians
from rnngen_jax.ops.gaussians import Gaussian

Choose = Callable[[Array, Array], Array]  # of a value each, from a key and raw outputs [..., P]


class Inference(NamedTuple):
    """An image taken in and given out again.

    Attributes:
      latents: `[B, S, Z]`.
      posterior: q(z|x), of `[B, S, Z]`; `None` of a deterministic code.
      raw: raw outputs of p(x|z), `[B, H, W, C, P]`.
    """

    latents: Array
    posterior: Gaussian | None
    raw: Array


class Network(NamedTuple):
    """An encoder and a decoder, as pure functions.

    Attributes:
      init: as in `Model`.
      infer: `infer(params, image, label, noise, train, pick) -> Inference`, of int `[B, H, W, C]`,
        `[B]` and `[B, S, Z]`; latents are `pick(posterior, noise)`, the posterior's
        mean plus its scale times the noise. `train` is `(key, index [B])` in training, for what
        else is random there, or `None`.
      draw: `draw(params, latents, label, key, choose, given) -> (raw, image)`, raw outputs
        `[B, H, W, C, P]` and int `[B, H, W, C]`; `choose` picks what is not `given`.
      canvases: `canvases(params, latents, label) -> (raw [T, B, H, W, C, P], read, write)`, as in
        `Canvases`; `None` for networks that give out an image at once.
      autoregressive: whether values depend on others given the latents, so that what `draw` draws
        knows of the given values before each, and not of those after it.
    """

    init: Callable[[Array], tuple[Params, Extra]]
    infer: Callable[..., Inference]
    draw: Callable[..., tuple[Array, Array]]
    canvases: Callable[..., tuple[Array, Array | None, Array | None]] | None = None
    autoregressive: bool = False


def independent(network_draw: Callable[[Params, Array, Array], Array]) -> Callable[..., tuple]:
    """`Network.draw` of a decoder whose values are independent given the latents.

    Args:
      network_draw: `network_draw(params, latents, label) -> raw`.
    """

    def draw(
        params: Params,
        latents: Array,
        label: Array,
        key: Array,
        choose: Choose,
        given: Given | None,
    ) -> tuple[Array, Array]:
        raw = network_draw(params, latents, label)
        image = choose(key, raw)
        if given is not None:
            image = jnp.where(given.known[..., None], given.image, image)
        return raw, image

    return draw


def log_ratio(found: Inference, temperature: Scalar = 1.0) -> Array:
    """log p(z) - log q(z|x) of the latents, `[B]` nats, but for a constant of the temperature.

    The prior's standard deviation is the temperature, as in what is sampled.
    """
    prior = gaussians.log_density_standard(found.latents / temperature)
    return (prior - gaussians.log_density(found.posterior, found.latents)).sum((1, 2))
