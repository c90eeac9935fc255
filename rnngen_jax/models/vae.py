"""Variational autoencoder, and β-VAE: a convolutional encoder and decoder.

log p(x) >= E_q(z|x)[log p(x|z)] - KL(q(z|x) || p(z))   (Kingma and Welling 2014, eq. 3)

The training objective is E_q[log p(x|z)] - β KL (Higgins et al. 2017, eq. 4).
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array

from rnngen_jax import keys
from rnngen_jax.models.base import Extra, Model, Params, Train, dropout_masks, require_classes
from rnngen_jax.models.halving import HalvingConfig
from rnngen_jax.models.latent import LatentConfig, latent_model
from rnngen_jax.models.latent_networks import Inference, Network, independent
from rnngen_jax.modules.vae import Decoder, Encoder
from rnngen_jax.ops import likelihoods
from rnngen_jax.ops.gaussians import Gaussian, Pick
from rnngen_jax.shapes import ImageSpec


@dataclass(frozen=True)
class Config(LatentConfig, HalvingConfig):
    """Choices of the VAE; see `LatentConfig` and `HalvingConfig` for the others.

    Attributes:
      class_conditional: the class is an input of encoder and decoder.
      hidden: units of the layer between the smallest map and the latents, on either side.
      dropout: rate for the two hidden layers.
    """

    def __post_init__(self) -> None:
        LatentConfig.__post_init__(self)
        HalvingConfig.__post_init__(self)


def build(config: Config, spec: ImageSpec) -> Model:
    """Builds the model for images like `spec`.

    Raises:
      UserError: a readout unsuitable for the images, or more halvings than the image has room for.
    """
    require_classes(config.class_conditional, spec)
    likelihood = likelihoods.make(config.readout, spec.levels, config.mixtures)
    shared = {**config.network(spec), "conditional": config.class_conditional}
    encoder = Encoder(latents=config.latents, **shared)
    decoder = Decoder(size=likelihood.size, **shared)

    def init(key: Array) -> tuple[Params, Extra]:
        label = jnp.zeros(1, jnp.int32)
        image, latents = jnp.zeros((1, *spec.shape), jnp.int32), jnp.zeros((1, config.latents))
        encoding = encoder.init(keys.named(key, "encoder"), image, label)
        decoding = decoder.init(keys.named(key, "decoder"), latents, label)
        return {"model": {"encoder": encoding["params"], "decoder": decoding["params"]}}, {}

    def decode(params: Params, latents: Array, label: Array, mask: Array | None = None) -> Array:
        variables = {"params": params["model"]["decoder"]}
        return decoder.apply(variables, latents[:, 0], label, mask)

    def infer(
        params: Params, image: Array, label: Array, noise: Array, train: Train, pick: Pick
    ) -> Inference:
        sizes = config.hidden, config.hidden
        masks = dropout_masks(train, sizes, config.dropout) or (None, None)
        variables = {"params": params["model"]["encoder"]}
        found = encoder.apply(variables, image, label, masks[0])
        posterior = Gaussian(*jax.tree.map(lambda x: x[:, None], found))
        latents = pick(posterior, noise)
        return Inference(latents, posterior, decode(params, latents, label, masks[1]))

    return latent_model(
        "vae",
        spec,
        config.class_conditional,
        Network(init, infer, independent(decode)),
        likelihood,
        (1, config.latents),
        config.objective(),
        config.learned_prior((1, config.latents), spec.classes),
    )
