"""Recurrent autoencoder: image patches to latents and back, with or without attention.

    log p(x) >= E_q[Σ_t log p(x_t | x_<t, z)] - KL(q(z|x) || p(z))

with x_t the values of patch t, conditionally independent; a free-running decoder is not conditioned
on x_<t. With deterministic latents only the first term is trained: the model then reconstructs but
cannot sample.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array

from rnngen_jax.config import refuse_unread, require, require_at_least, require_choice
from rnngen_jax.models.base import (
    Extra,
    Given,
    Model,
    Params,
    Train,
    dropout_masks,
    require_classes,
    require_dropout,
)
from rnngen_jax.models.latent import LatentConfig, latent_model
from rnngen_jax.models.latent_networks import Choose, Inference, Network, independent
from rnngen_jax.models.recurrent import UnrolledConfig, cell_of, run_of
from rnngen_jax.modules.pixels import require_encoding
from rnngen_jax.modules.rnn_autoencoder import DecoderCarry, RNNAutoencoder
from rnngen_jax.ops import attention, likelihoods, patches
from rnngen_jax.ops.gaussians import Pick
from rnngen_jax.recurrence import generate
from rnngen_jax.shapes import ImageSpec

SEQUENCES = ("rows", "columns", "patches")
LATENT = ("gaussian", "deterministic")
ATTENTION = ("none", *attention.KINDS)
ATTEND = ("states", "embedding")
DECODERS = ("free", "autoregressive")


@dataclass(frozen=True)
class Config(LatentConfig, UnrolledConfig):
    """Choices of the recurrent autoencoder; see `LatentConfig` and `UnrolledConfig` for the others.

    Attributes:
      cell: of the encoder and the decoder, a cell and its options, such as "lstm" or "gru".
      strategy: as in `UnrolledConfig`; must be left at its default with attention, whose decoder
        attends to the codes at each step.
      bidirectional: a second encoder reads the patches in reverse.
      input_features: width D of the cells' inputs.
      pixels: "onehot" has a weight per grey level, "scalar" maps it to [-1, 1].
      sequence: each step is one of the image's "rows", "columns" or square "patches".
      patch: side of a square patch; divides the image's sides.
      latent: "gaussian", which can be sampled, or "deterministic".
      latents: Z of each code.
      attention: "none" makes one code from the encoder's last state; "additive" and "dot" make one
        per step, over which the decoder attends at each of its own.
      attend: with attention, codes are made from the encoder's "states", or from each patch's
        "embedding" without any recurrence.
      decoder: "autoregressive" sees the previous patch, "free" does not.
      class_conditional: the class is an input of the decoder.
      dropout: rate for the decoder's inputs and outputs, one mask per image.
    """

    bidirectional: bool = False
    pixels: str = "scalar"
    input_features: int = 64
    sequence: str = "rows"
    patch: int = 4
    latent: str = "gaussian"
    latents: int = 16
    attention: str = "none"
    attend: str = "states"
    decoder: str = "free"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        LatentConfig.__post_init__(self)
        UnrolledConfig.__post_init__(self)
        require_encoding(self.pixels)
        require_dropout(self.dropout)
        require_choice("config.model.sequence", self.sequence, SEQUENCES)
        require_choice("config.model.latent", self.latent, LATENT)
        require_choice("config.model.attention", self.attention, ATTENTION)
        require_choice("config.model.attend", self.attend, ATTEND)
        require_choice("config.model.decoder", self.decoder, DECODERS)
        require_at_least(self, "config.model", 1, "input_features", "patch")
        if self.latent == "deterministic":
            for name in ("beta", "beta_warmup", "free_bits"):
                refuse_unread(self, "config.model", name, ("latent",), ", which has no KL")
        if self.attention != "none":
            why = ", whose decoder attends to the codes at each step"
            refuse_unread(self, "config.model", "strategy", ("attention",), why)


def build(config: Config, spec: ImageSpec) -> Model:
    """Builds the model for images like `spec`.

    Raises:
      UserError: an unknown cell or readout, one unsuitable for the images, or a patch that does
        not divide them.
    """
    require_classes(config.class_conditional, spec)
    height, width = {
        "rows": (1, spec.width),
        "columns": (spec.height, 1),
        "patches": (config.patch, config.patch),
    }[config.sequence]
    divides = spec.height % height == 0 and spec.width % width == 0
    size = f"a divisor of {spec.height} and {spec.width} (the image's height and width)"
    require(divides, "config.model.patch", config.patch, size)
    steps = spec.height // height * (spec.width // width)
    likelihood = likelihoods.make(config.readout, spec.levels, config.mixtures)
    cell = cell_of(config)
    gaussian = config.latent == "gaussian"
    net = RNNAutoencoder(
        encoder=cell,
        decoder=cell,
        steps=steps,
        values=height * width * spec.channels,
        levels=spec.levels,
        classes=spec.classes if config.class_conditional else 0,
        latents=config.latents,
        size=likelihood.size,
        encoding=config.pixels,
        width=config.input_features,
        bidirectional=config.bidirectional,
        gaussian=gaussian,
        attention=config.attention,
        attend=config.attend,
        autoregressive=config.decoder == "autoregressive",
        run=run_of(config),
    )
    shape = (1 if config.attention == "none" else steps, config.latents)

    def to_steps(image: Array) -> Array:
        return patches.to_steps(image, height, width)

    def from_steps(values: Array) -> Array:
        return patches.from_steps(values, spec.shape, height, width)

    def init(key: Array) -> tuple[Params, Extra]:
        image, label = jnp.zeros((1, *spec.shape), jnp.int32), jnp.zeros(1, jnp.int32)
        noise = jnp.zeros((shape[0], 1, shape[1]))
        variables = net.init(key, to_steps(image), label, noise, None, method=net.infer)
        return {"model": variables["params"]}, {}

    def infer(
        params: Params, image: Array, label: Array, noise: Array, train: Train, pick: Pick
    ) -> Inference:
        sizes = config.input_features, cell.features
        masks = dropout_masks(train, sizes, config.dropout)
        codes, posterior, raw = net.apply(
            {"params": params["model"]},
            to_steps(image),
            label,
            jnp.moveaxis(noise, 1, 0),
            masks,
            pick,
            method=net.infer,
        )
        codes, posterior = jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), (codes, posterior))
        return Inference(codes, posterior, from_steps(raw))

    def decode(params: Params, latents: Array, label: Array) -> Array:
        variables, codes = {"params": params["model"]}, jnp.moveaxis(latents, 1, 0)
        return from_steps(net.apply(variables, codes, label, method=net.decode))

    def draw(
        params: Params, codes: Array, label: Array, key: Array, choose: Choose, given: Given | None
    ) -> tuple[Array, Array]:
        """Patch by patch, each given the previous one, drawn or known."""
        variables, num = {"params": params["model"]}, codes.shape[0]
        told = net.apply(variables, jnp.moveaxis(codes, 1, 0), method=net.told)
        fixed = None
        if given is not None:
            known = jnp.broadcast_to(given.known[..., None], given.image.shape)
            fixed = to_steps(known), to_steps(given.image)

        def step(
            carry: DecoderCarry, before: tuple[Array, Array], t: Array, key: Array
        ) -> tuple[DecoderCarry, tuple[Array, Array]]:
            carry, raw = net.apply(variables, carry, told, t, before[1], label, method=net.step)
            values = choose(key, raw)
            if fixed is not None:
                values = jnp.where(fixed[0][t], fixed[1][t], values)
            return carry, (raw, values)

        outside = jnp.full((num, net.values), spec.levels, jnp.int32)
        nothing = jnp.zeros((num, net.values, likelihood.size))
        carry = net.apply(variables, num, method=net.first)
        _, drawn = generate(step, carry, (nothing, outside), key, steps)
        return from_steps(drawn[0]), from_steps(drawn[1])

    autoregressive = config.decoder == "autoregressive"
    return latent_model(
        "rnn_autoencoder",
        spec,
        config.class_conditional,
        Network(
            init,
            infer,
            draw if autoregressive else independent(decode),
            autoregressive=autoregressive,
        ),
        likelihood,
        shape,
        config.objective() if gaussian else None,
        config.learned_prior(shape, spec.classes),
    )
