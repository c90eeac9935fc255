"""Latent-variable models from an encoder and a decoder: bounds, samples and completions.

    log p(x) >= E_q(z|x)[log p(x|z)] - KL(q(z|x) || p(z))     (Kingma and Welling 2014, eq. 3)

with a standard normal prior p(z) over S steps of Z variables. A deterministic code has no prior and
so no bound: its model is trained to reconstruct images, and cannot sample.
"""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array

from rnngen_jax import keys
from rnngen_jax.config import require_at_least
from rnngen_jax.models import latent_completion
from rnngen_jax.models.base import (
    Aux,
    Batch,
    Canvases,
    Extra,
    Inspection,
    Latent,
    Model,
    Params,
    Scalar,
    Train,
    labels_for,
    require_mixture_read,
    sampler,
)
from rnngen_jax.models.latent_networks import Inference, Network, log_ratio
from rnngen_jax.ops import bounds, gaussians
from rnngen_jax.ops.likelihoods import PixelLikelihood
from rnngen_jax.shapes import ImageSpec


@dataclass(frozen=True)
class Objective:
    """The training objective, which replaces the negative bound.

    Attributes:
      beta: weight of the KL (Higgins et al. 2017, eq. 4); 1 is the bound.
      beta_warmup: steps over which β grows from 0 (Bowman et al. 2016); 0 for none.
      free_bits: nats per latent variable below which a smaller KL gains nothing (Kingma et al.
        2016).
    """

    beta: float = 1.0
    beta_warmup: int = 0
    free_bits: float = 0.0

    def __post_init__(self) -> None:
        require_at_least(self, "config.model", 0, "beta", "beta_warmup", "free_bits")


@dataclass(frozen=True)
class LatentConfig:
    """Choices of all latent-variable models.

    Attributes:
      latents: number of latent variables Z, per step if there are several steps.
      class_conditional: the class is an input.
      readout: "categorical" over the grey levels, "bernoulli", "logistic_mixture" or "gaussian".
      mixtures: components of the logistic mixture; 1 is the discretised logistic.
      beta: weight of the KL in the training objective; 1 is the ELBO itself.
      beta_warmup: training steps of linear KL warm-up from 0.
      free_bits: nats per latent variable below which a smaller KL gains nothing.
    """

    latents: int = 32
    class_conditional: bool = False
    readout: str = "categorical"
    mixtures: int = 1
    beta: float = 1.0
    beta_warmup: int = 0
    free_bits: float = 0.0

    def __post_init__(self) -> None:
        require_at_least(self, "config.model", 1, "latents")
        require_mixture_read(self)
        self.objective()

    def objective(self) -> Objective:
        """The training objective."""
        return Objective(self.beta, self.beta_warmup, self.free_bits)


def latent_model(
    name: str,
    spec: ImageSpec,
    conditional: bool,
    network: Network,
    likelihood: PixelLikelihood,
    shape: tuple[int, int],
    objective: Objective | None,
) -> Model:
    """Builds a model from an encoder and a decoder.

    Args:
      name: the model's name.
      spec: the images.
      conditional: whether labels matter.
      network: the encoder and the decoder.
      likelihood: the distribution of a value, given its raw outputs.
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
        params: Params, batch: Batch, noise: Array, train: Train = None
    ) -> tuple[Inference, Array]:
        image = batch[spec.key].astype(jnp.int32)
        pick = gaussians.reparameterised
        found = network.infer(params, image, batch["label"], noise, train, pick)
        log_p = log_likelihood(found.raw, image)
        return found, log_p.sum(range(1, log_p.ndim))

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
        beta = bounds.warmed_up(objective.beta, objective.beta_warmup, step)
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
        """Draw i of all images at once, with one key per image and draw."""
        del extra

        def log_weight(number: Array) -> Array:
            noise = noise_of(jax.random.fold_in(key, number), batch["index"])
            found, log_p = inferred(params, batch, noise)
            return log_p + log_ratio(found)

        num = batch["index"].shape[0]
        return bounds.importance_weighted(jax.vmap(log_weight), num, samples, chunk)

    def encode(params: Params, extra: Extra, image: Array, label: Array | None = None) -> Array:
        del extra
        num, pick = image.shape[0], gaussians.reparameterised
        still = jnp.zeros((num, *shape))
        label = labels_for(label, num)
        return network.infer(params, image.astype(jnp.int32), label, still, None, pick).latents

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
        given = batch[spec.key]
        mean = encode(params, extra, given, batch["label"])
        image = decode(params, extra, mean, batch["label"])
        error = jnp.square(image - given / (spec.levels - 1)).mean(range(1, given.ndim))
        kl = None if objective is None else gaussians.kl_to_standard(found.posterior)
        return Inspection(log_p, kl, mean, error)

    def prior(params: Params, extra: Extra, key: Array, label: Array, temperature: Scalar) -> Array:
        del params, extra  # a standard normal, the same for all classes, has no parameters
        return temperature * jax.random.normal(key, (label.shape[0], *shape))

    def sample(
        params: Params, extra: Extra, key: Array, label: Array, temperature: Scalar
    ) -> Array:
        latents = prior(params, extra, keys.named(key, "prior"), label, temperature)

        def choose(key: Array, raw: Array) -> Array:
            return likelihood.draw(key, raw, temperature)

        _, image = decoding(params, latents, label, keys.named(key, "pixels"), choose, None)
        return image.astype(spec.dtype)

    def canvases(
        params: Params, extra: Extra, latents: Array, label: Array | None = None
    ) -> Canvases:
        del extra
        label = labels_for(label, latents.shape[0])
        raw, read, write = network.canvases(params, latents, label)
        return Canvases(likelihood.mean(raw), read, write)

    complete = latent_completion.gibbs(network, likelihood, spec, shape)
    generative = objective is not None
    return Model(
        name=name,
        spec=spec,
        conditional=conditional,
        init=network.init,
        losses={"model": loss},
        likelihood="ELBO" if generative else None,
        log_prob=log_prob if generative else None,
        sample=sampler(sample) if generative else None,
        complete=complete if generative else None,
        candidates=latent_completion.CANDIDATES,
        latent=Latent(
            shape=shape,
            encode=encode,
            decode=decode,
            inspect=inspect,
            prior=sampler(prior) if generative else None,
            importance=importance if generative else None,
            canvases=canvases if network.canvases is not None else None,
            completion=latent_completion.METHOD if generative else None,
        ),
    )
