"""The interface of an encoder and a decoder of latents, as pure functions."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from rnngen_jax.models.base import Extra, Given, Params
from rnngen_jax.ops import gaussians
from rnngen_jax.ops.gaussians import Gaussian

Choose = Callable[[Array, Array], Array]  # from a key and raw outputs [..., P] to values [...]


class Inference(NamedTuple):
    """An image's latents and reconstruction.

    Attributes:
      latents: `[B, S, Z]`.
      posterior: q(z|x), over `[B, S, Z]`; `None` for a deterministic code.
      raw: raw outputs of p(x|z), `[B, H, W, C, P]`.
    """

    latents: Array
    posterior: Gaussian | None
    raw: Array


class Network(NamedTuple):
    """An encoder and a decoder, as pure functions.

    Attributes:
      init: as in `Model`.
      infer: `infer(params, image, label, noise, train, pick) -> Inference`, from int `[B, H, W, C]`
        and `[B]`, and noise `[B, S, Z]`; latents are `pick(posterior, noise)`, such as the
        posterior's mean plus its scale times the noise. `train` as in `models.base.Train`.
      draw: `draw(params, latents, label, key, choose, given) -> (raw, image)`, raw outputs
        `[B, H, W, C, P]` and int `[B, H, W, C]`; `choose` draws the values that are not `given`.
      canvases: `canvases(params, latents, label) -> (raw [T, B, H, W, C, P], read, write)`, as in
        `Canvases`; `None` for networks that do not draw step by step.
      autoregressive: whether values depend on earlier ones given the latents, so that `draw`
        conditions each value on the given ones before it, and not on those after it.
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


def log_ratio(found: Inference, log_prior: Array) -> Array:
    """log p(z) - log q(z|x) of the latents, `[B]` nats, from that of each variable's prior."""
    return (log_prior - gaussians.log_density(found.posterior, found.latents)).sum((1, 2))
