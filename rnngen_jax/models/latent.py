"""What models of latent variables share: from an encoder and a decoder to bounds and samples.

    log p(x) >= E_q(z|x)[log p(x|z)] - KL(q(z|x) || p(z))     (Kingma and Welling 2014, eq. 3)

with a standard normal prior p(z) over S steps of Z variables. A deterministic code has no prior,
and so no bound: its model is trained to rebuild images, and cannot draw any.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from rnngen_jax import keys
from rnngen_jax.config import require
from rnngen_jax.models.base import (
    Aux,
    Batch,
    Canvases,
    Extra,
    Inspection,
    Latent,
    Model,
    Params,
    labels_for,
)
from rnngen_jax.ops import bounds, gaussians
from rnngen_jax.ops.gaussians import Gaussian
from rnngen_jax.ops.likelihoods import PixelLikelihood
from rnngen_jax.shapes import ImageSpec

# Completion goes round as often, choosing each time among so many latents.
ROUNDS = 40
CANDIDATES = 8

_COMPLETION = (
    f"{ROUNDS} rounds of encoding, each with the latents chosen from {CANDIDATES} draws by their "
    "importance weights"
)

Choose = Callable[[Array, Array], Array]  # of a value each, from a key and raw outputs [..., P]


class Given(NamedTuple):
    """Pixels that are known while an image is drawn.

    Attributes:
      image: int `[B, H, W, C]`.
      known: bool `[B, H, W]`.
    """

    image: Array
    known: Array


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
      infer: `infer(params, image, label, noise, train) -> Inference`, of int `[B, H, W, C]`, `[B]`
        and `[B, S, Z]`; latents are the posterior's mean plus its scale times the noise. `train`
        is `(key, index [B])` in training, for what else is random there, or `None`.
      draw: `draw(params, latents, label, key, choose, given) -> (raw, image)`, raw outputs
        `[B, H, W, C, P]` and int `[B, H, W, C]`; `choose` picks what is not `given`.
      canvases: `canvases(params, latents, label) -> (raw [T, B, H, W, C, P], read, write)`, as in
        `Canvases`; `None` for networks that give out an image at once.
    """

    init: Callable[[Array], tuple[Params, Extra]]
    infer: Callable[..., Inference]
    draw: Callable[..., tuple[Array, Array]]
    canvases: Callable[..., tuple[Array, Array | None, Array | None]] | None = None


@dataclass(frozen=True)
class Objective:
    """What is minimised in place of the bound's negative.

    Attributes:
      beta: weight of the KL (Higgins et al. 2017, eq. 4); 1 is the bound.
      warmup: steps over which β grows from 0 (Bowman et al. 2016); 0 for none.
      free_bits: nats of a latent variable's KL that cost as much as none (Kingma et al. 2016).
    """

    beta: float = 1.0
    warmup: int = 0
    free_bits: float = 0.0

    def __post_init__(self) -> None:
        at = "config.model."
        require(self.beta >= 0, f"{at}beta", self.beta, "0 or more")
        require(self.warmup >= 0, f"{at}beta_warmup", self.warmup, "0 or more")
        require(self.free_bits >= 0, f"{at}free_bits", self.free_bits, "0 or more")


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


def latent_model(
    name: str,
    spec: ImageSpec,
    conditional: bool,
    network: Network,
    likelihood: PixelLikelihood,
    shape: tuple[int, int],
    objective: Objective | None,
) -> Model:
    """A model from an encoder and a decoder.

    Args:
      name: of the model.
      spec: the images.
      conditional: whether labels matter.
      network: the encoder and the decoder.
      likelihood: of a value, given the raw outputs for it.
      shape: (S, Z) of the latents.
      objective: `None` for a deterministic code.
    """
    decoding = network.draw

    def log_likelihood(raw: Array, image: Array) -> Array:
        return likelihood.log_prob(raw, image.astype(jnp.int32))

    def noise_of(key: Array, index: Array) -> Array:
        each = keys.per_example(keys.named(key, "latents"), index)
        return jax.vmap(lambda key: jax.random.normal(key, shape))(each)

    def inferred(
        params: Params, batch: Batch, noise: Array, train: tuple[Array, Array] | None = None
    ) -> tuple[Inference, Array]:
        image = batch["image"].astype(jnp.int32)
        found = network.infer(params, image, batch["label"], noise, train)
        return found, log_likelihood(found.raw, image).sum((1, 2, 3))

    def log_ratio(found: Inference) -> Array:
        """log p(z) - log q(z|x) of the latents drawn, `[B]`."""
        prior = gaussians.log_density_standard(found.latents)
        return (prior - gaussians.log_density(found.posterior, found.latents)).sum((1, 2))

    def loss(
        params: Params, extra: Extra, batch: Batch, key: Array, step: Array
    ) -> tuple[Array, Aux]:
        """Mean of the objective over values, in nats."""
        index = batch["index"]
        found, log_p = inferred(params, batch, noise_of(key, index), (key, index))
        metrics = {"reconstruction_nats": -log_p.mean()}
        if objective is None:
            return -log_p.mean() / spec.dims, Aux(metrics, extra)
        kl = gaussians.kl_to_standard(found.posterior)
        nats = -bounds.elbo(log_p, kl).mean()
        beta = bounds.warmed_up(objective.beta, objective.warmup, step)
        paid = beta * bounds.free_bits(kl, objective.free_bits).mean()
        metrics |= {
            "kl": kl.sum((1, 2)).mean(),
            "nats_per_image": nats,
            "bits_per_dim": nats / (spec.dims * math.log(2)),
            "beta": beta,
        }
        return (paid - log_p.mean()) / spec.dims, Aux(metrics, extra)

    def log_prob(params: Params, extra: Extra, batch: Batch, key: Array) -> Array:
        """The bound, with one draw of the latents."""
        del extra
        found, log_p = inferred(params, batch, noise_of(key, batch["index"]))
        return bounds.elbo(log_p, gaussians.kl_to_standard(found.posterior))

    def importance(
        params: Params, extra: Extra, batch: Batch, key: Array, samples: int, chunk: int
    ) -> Array:
        """Draws number i of all images at once: each has a key of the image's index and of i."""
        del extra

        def log_weight(number: Array) -> Array:
            noise = noise_of(jax.random.fold_in(key, number), batch["index"])
            found, log_p = inferred(params, batch, noise)
            return log_p + log_ratio(found)

        num = batch["image"].shape[0]
        return bounds.importance_weighted(jax.vmap(log_weight), num, samples, chunk)

    def encode(params: Params, extra: Extra, image: Array, label: Array | None = None) -> Array:
        del extra
        num = image.shape[0]
        still = jnp.zeros((num, *shape))
        label = labels_for(label, num)
        return network.infer(params, image.astype(jnp.int32), label, still, None).latents

    def expected(raw: Array) -> Array:
        """The level nearest to the expected value."""
        return jnp.rint(likelihood.mean(raw) * (spec.levels - 1)).astype(jnp.int32)

    def decode(params: Params, extra: Extra, latents: Array, label: Array | None = None) -> Array:
        del extra
        label = labels_for(label, latents.shape[0])
        key = jax.random.key(0)  # nothing is drawn
        raw, _ = decoding(params, latents, label, key, lambda _, raw: expected(raw), None)
        return likelihood.mean(raw)

    def inspect(params: Params, extra: Extra, batch: Batch, key: Array) -> Inspection:
        found, log_p = inferred(params, batch, noise_of(key, batch["index"]))
        mean = encode(params, extra, batch["image"], batch["label"])
        image = decode(params, extra, mean, batch["label"])
        error = jnp.square(image - batch["image"] / (spec.levels - 1)).mean((1, 2, 3))
        kl = None if objective is None else gaussians.kl_to_standard(found.posterior)
        return Inspection(log_p, kl, mean, error)

    def prior(key: Array, num: int, temperature: Array | float = 1.0) -> Array:
        return temperature * jax.random.normal(key, (num, *shape))

    def chooser(temperature: Array | float) -> Choose:
        return lambda key, raw: likelihood.draw(key, raw, temperature)

    def sample(
        params: Params,
        extra: Extra,
        key: Array,
        num: int,
        label: Array | None = None,
        temperature: Array | float = 1.0,
    ) -> Array:
        del extra
        latents = prior(keys.named(key, "prior"), num, temperature)
        choose, label = chooser(temperature), labels_for(label, num)
        _, image = decoding(params, latents, label, keys.named(key, "pixels"), choose, None)
        return image.astype(jnp.uint8)

    def complete(
        params: Params,
        extra: Extra,
        key: Array,
        image: Array,
        known: Array,
        label: Array | None = None,
        temperature: Array | float = 1.0,
    ) -> Array:
        """Repeated encoding: latents for the image as it is, then new values where none is known.

        Rezende et al. 2014, appendix F; each time several latents are drawn, an image from each,
        and one of these is chosen by its importance weight for the known pixels (as Mattei and
        Frellsen 2018 do once).
        """
        del extra
        num = image.shape[0]
        label, choose = labels_for(label, num), chooser(temperature)
        given = Given(image.astype(jnp.int32), known)

        def weighed(key: Array, current: Array) -> tuple[Array, Array]:
            noise = jax.random.normal(keys.named(key, "latents"), (num, *shape))
            found = network.infer(params, current, label, noise, None)
            pixels = keys.named(key, "pixels")
            # An autoregressive decoder's known pixels are weighed given those drawn before them.
            raw, drawn = decoding(params, found.latents, label, pixels, choose, given)
            log_p = jnp.where(known[..., None], log_likelihood(raw, given.image), 0.0)
            return drawn, log_p.sum((1, 2, 3)) + log_ratio(found)

        def again(current: Array, key: Array) -> tuple[Array, None]:
            drawing = jax.random.split(keys.named(key, "candidates"), CANDIDATES)
            drawn, weights = jax.vmap(weighed, in_axes=(0, None))(drawing, current)
            which = jax.random.categorical(keys.named(key, "which"), weights, axis=0)
            return drawn[which, jnp.arange(num)], None

        unknown = jax.random.randint(keys.named(key, "first"), image.shape, 0, spec.levels)
        first = jnp.where(known[..., None], given.image, unknown)
        completed, _ = jax.lax.scan(again, first, jax.random.split(key, ROUNDS))
        return completed.astype(jnp.uint8)

    def canvases(
        params: Params, extra: Extra, latents: Array, label: Array | None = None
    ) -> Canvases:
        del extra
        label = labels_for(label, latents.shape[0])
        raw, read, write = network.canvases(params, latents, label)
        return Canvases(likelihood.mean(raw), read, write)

    generative = objective is not None
    return Model(
        name=name,
        spec=spec,
        conditional=conditional,
        init=network.init,
        losses={"model": loss},
        likelihood="ELBO" if generative else None,
        log_prob=log_prob if generative else None,
        sample=sample if generative else None,
        complete=complete if generative else None,
        latent=Latent(
            shape=shape,
            encode=encode,
            decode=decode,
            inspect=inspect,
            prior=prior if generative else None,
            importance=importance if generative else None,
            canvases=canvases if network.canvases is not None else None,
            completion=_COMPLETION if generative else None,
        ),
    )
