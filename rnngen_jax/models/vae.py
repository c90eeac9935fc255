"""Variational autoencoder, and β-VAE: a convolutional encoder and decoder.

log p(x) >= E_q(z|x)[log p(x|z)] - KL(q(z|x) || p(z))   (Kingma and Welling 2014, eq. 3)

The training objective is E_q[log p(x|z)] - β KL (Higgins et al. 2017, eq. 4).
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array

from rnngen_jax import keys
from rnngen_jax.config import require, require_at_least, require_choice
from rnngen_jax.models.base import (
    Extra,
    Model,
    Params,
    dropout_masks,
    require_classes,
    require_dropout,
)
from rnngen_jax.models.latent import LatentConfig, latent_model
from rnngen_jax.models.latent_networks import Inference, Network, independent
from rnngen_jax.modules.vae import Decoder, Encoder
from rnngen_jax.ops import gaussians, likelihoods
from rnngen_jax.ops.activations import ACTIVATIONS
from rnngen_jax.ops.gaussians import Gaussian, Pick
from rnngen_jax.shapes import ImageSpec


@dataclass(frozen=True)
class Config(LatentConfig):
    """Choices of the VAE; see `LatentConfig` for the others.

    Attributes:
      features: channels of the largest map; each halving doubles them.
      stages: number of halvings; 0 halves once, then until the shorter side is at most 7.
      kernel: side of the convolutions' kernels, even.
      hidden: units of the layer between the smallest map and the latents, on either side.
      activation: "elu", "gelu", "relu" or another in `ops.activations`.
      dropout: rate for the two hidden layers.
    """

    features: int = 32
    stages: int = 0
    kernel: int = 4
    hidden: int = 256
    activation: str = "elu"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(self, "config.model", 1, "features", "kernel", "hidden")
        require(self.kernel % 2 == 0, "config.model.kernel", self.kernel, "even")
        require(self.stages >= 0, "config.model.stages", self.stages, "≥ 0")
        require_choice("config.model.activation", self.activation, ACTIVATIONS)
        require_dropout(self.dropout)


def build(config: Config, spec: ImageSpec) -> Model:
    """Builds the model for images like `spec`.

    Raises:
      UserError: a readout unsuitable for the images, or more halvings than the image has room for.
    """
    require_classes(config.class_conditional, spec)
    most = min(spec.height, spec.width).bit_length() - 1
    require(config.stages <= most, "config.model.stages", config.stages, f"in [0, {most}]")
    likelihood = likelihoods.make(config.readout, spec.levels, config.mixtures)
    shared = {
        "spec": spec,
        "stages": config.stages,
        "features": config.features,
        "kernel": config.kernel,
        "hidden": config.hidden,
        "activation": config.activation,
        "conditional": config.class_conditional,
    }
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
        params: Params,
        image: Array,
        label: Array,
        noise: Array,
        train: tuple[Array, Array] | None,
        pick: Pick = gaussians.reparameterised,
    ) -> Inference:
        masks = (None, None)
        if train is not None and config.dropout:
            masks = dropout_masks(*train, (config.hidden, config.hidden), config.dropout)
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
    )
