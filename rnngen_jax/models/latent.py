"""Latent-variable models from an encoder and a decoder: bounds, samples and completions.

    log p(x) >= E_q(z|x)[log p(x|z)] - KL(q(z|x) || p(z))     (Kingma and Welling 2014, eq. 3)

with a prior p(z) over S steps of Z variables, a standard normal or a learned one. A deterministic
code has no bound: its model is trained to reconstruct images. It can sample only with a learned
prior, which is trained on the codes as they are.
"""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array

from rnngen_jax import keys
from rnngen_jax.config import refuse_unread, require_at_least
from rnngen_jax.models import latent_completion, latent_priors
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
from rnngen_jax.models.latent_priors import NORMAL, LatentPrior
from rnngen_jax.ops import bounds, gaussians
from rnngen_jax.ops.likelihoods import PixelLikelihood
from rnngen_jax.shapes import ImageSpec

PRIOR = "prior"  # where those of a learned one are


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
      prior: of the latents, "normal" or a learned "recurrent", with its options after a colon:
        "recurrent:cell=gru,features=64,components=5".
    """

    latents: int = 32
    class_conditional: bool = False
    readout: str = "categorical"
    mixtures: int = 1
    beta: float = 1.0
    beta_warmup: int = 0
    free_bits: float = 0.0
    prior: str = NORMAL

    def __post_init__(self) -> None:
        require_at_least(self, "config.model", 1, "latents")
        require_mixture_read(self)
        self.objective()
        if self.learned_prior((1, self.latents), 0) is not None:
            why = ", whose KL is estimated from one draw"
            refuse_unread(self, "config.model", "free_bits", ("prior",), why)

    def objective(self) -> Objective:
        """The training objective."""
        return Objective(self.beta, self.beta_warmup, self.free_bits)

    def learned_prior(self, shape: tuple[int, int], classes: int) -> LatentPrior | None:
        """The prior of latents of a shape (S, Z), for each class if that is an input.

        `None` for the standard normal.
        """
        if self.prior == NORMAL:
            return None
        classes = classes if self.class_conditional else 0
        return latent_priors.from_spec(self.prior, shape, classes)


def latent_model(
    name: str,
    spec: ImageSpec,
    conditional: bool,
    network: Network,
    likelihood: PixelLikelihood,
    shape: tuple[int, int],
    objective: Objective | None,
    prior: LatentPrior | None = None,
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
      prior: a learned prior; `None` for a standard normal, or none for a deterministic code.
    """
    decoding, learned = network.draw, prior is not None
    if prior is None and objective is not None:
        prior = latent_priors.normal(shape)

    def init(key: Array) -> tuple[Params, Extra]:
        params, extra = network.init(key)
        if learned:
            own = {PRIOR: prior.init(keys.named(key, "latent prior"))}
            params = {**params, "model": {**params["model"], **own}}
        return params, extra

    def of_prior(params: Params) -> Params:
        return params["model"][PRIOR] if learned else {}

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
        rebuilding = -log_p.mean() / spec.dims
        if objective is None and prior is None:
            return rebuilding, Aux(metrics, extra)
        if objective is None:
            codes = jax.lax.stop_gradient(found.latents)
            density = prior.log_density(of_prior(params), codes, batch["label"])
            metrics["latent_nats"] = -density.sum((1, 2)).mean()
            return rebuilding + metrics["latent_nats"] / spec.dims, Aux(metrics, extra)
        kl = prior.kl(of_prior(params), found.posterior, found.latents, batch["label"])
        nats = -bounds.elbo(log_p, kl).mean()
        beta = bounds.warmed_up(objective.beta, objective.beta_warmup, step)
        # An estimate of a KL may be below 0, and must not be cut there.
        spent = kl.sum((1, 2)) if learned else bounds.free_bits(kl, objective.free_bits)
        paid = beta * spent.mean()
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
        kl = prior.kl(of_prior(params), found.posterior, found.latents, batch["label"])
        return bounds.elbo(log_p, kl)

    def importance(
        params: Params, extra: Extra, batch: Batch, key: Array, samples: int, chunk: int
    ) -> Array:
        """Draw i of all images at once, with one key per image and draw."""
        del extra

        def log_weight(number: Array) -> Array:
            noise = noise_of(jax.random.fold_in(key, number), batch["index"])
            found, log_p = inferred(params, batch, noise)
            log_prior = prior.log_density(of_prior(params), found.latents, batch["label"])
            return log_p + log_ratio(found, log_prior)

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
        kl = None
        if objective is not None:
            own = found.posterior, found.latents, batch["label"]
            kl = prior.kl(of_prior(params), *own)
        return Inspection(log_p, kl, mean, error)

    def drawn(params: Params, extra: Extra, key: Array, label: Array, temperature: Scalar) -> Array:
        del extra
        return prior.draw(of_prior(params), key, label, temperature)

    def log_prior(
        params: Params, extra: Extra, latents: Array, label: Array | None = None
    ) -> Array:
        del extra
        label = labels_for(label, latents.shape[0])
        return prior.log_density(of_prior(params), latents, label).sum((1, 2))

    def sample(
        params: Params, extra: Extra, key: Array, label: Array, temperature: Scalar
    ) -> Array:
        latents = drawn(params, extra, keys.named(key, "prior"), label, temperature)

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

    generative, samples = objective is not None, prior is not None
    complete = None
    if generative:

        def log_prior_of(params: Params, z: Array, label: Array, temperature: Scalar) -> Array:
            return prior.log_density(of_prior(params), z, label, temperature)

        complete = latent_completion.gibbs(network, likelihood, spec, shape, log_prior_of)
    return Model(
        name=name,
        spec=spec,
        conditional=conditional,
        init=init,
        losses={"model": loss},
        likelihood="ELBO" if generative else None,
        log_prob=log_prob if generative else None,
        sample=sampler(sample) if samples else None,
        complete=complete,
        candidates=latent_completion.CANDIDATES,
        latent=Latent(
            shape=shape,
            encode=encode,
            decode=decode,
            inspect=inspect,
            prior=sampler(drawn) if samples else None,
            log_prior=log_prior if samples else None,
            importance=importance if generative else None,
            canvases=canvases if network.canvases is not None else None,
            completion=latent_completion.METHOD if generative else None,
        ),
    )
