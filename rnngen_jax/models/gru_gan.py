"""GRU-GAN: the generator is a recurrent cell over a sequence of noise, then convolutions."""

from dataclasses import dataclass

from rnngen_jax.config import refuse_unread, require, require_choice
from rnngen_jax.models.adversarial import adversarial_model
from rnngen_jax.models.adversarial_config import AdversarialConfig
from rnngen_jax.models.base import Model
from rnngen_jax.models.recurrent import UnrolledConfig, cell_of, run_of
from rnngen_jax.modules.gru_gan import SHARED, Body, Generator, RecurrentBody, map_size
from rnngen_jax.shapes import ImageSpec

STEPS = ("row", "patch")
DISCRIMINATORS = ("convolutional", "recurrent")
OWNERS = ("none", "discriminator", "generator")


@dataclass(frozen=True)
class Config(AdversarialConfig, UnrolledConfig):
    """Choices of the GRU-GAN; see `AdversarialConfig` and `UnrolledConfig` for the others.

    Attributes:
      cell: a cell and its options, such as "gru" or "lstm:forget_bias=0"; "none" for a dense layer
        from the whole noise to all steps in its place.
      step: what one step of the cell generates: a "row" of the feature map, or a "patch", one
        position of it, in raster order.
      noise_each: one noise vector per step; otherwise all steps share one.
      channels: channels of the feature maps, in both players.
      discriminator: "convolutional", or "recurrent" over the image's rows with a cell of the same
        kind.
      share: the player that trains the 3×3 convolutions, which the other one uses too; "none" gives
        each its own.
    """

    norm: str = "batch"
    step: str = "row"
    noise_each: bool = True
    channels: int = 64
    discriminator: str = "convolutional"
    share: str = "none"

    def __post_init__(self) -> None:
        AdversarialConfig.__post_init__(self)
        UnrolledConfig.__post_init__(self)
        require_choice("config.model.step", self.step, STEPS)
        require_choice("config.model.discriminator", self.discriminator, DISCRIMINATORS)
        require_choice("config.model.share", self.share, OWNERS)
        require(self.channels >= 1, "config.model.channels", self.channels, "≥ 1")
        if self.discriminator == "recurrent":
            for name, what in (("share", "convolutions to share"), ("discriminator_norm", "maps")):
                why = f", which has no {what}"
                refuse_unread(self, "config.model", name, ("discriminator",), why)
            needed = "a cell's name with discriminator='recurrent'"
            require(self.cell != "none", "config.model.cell", self.cell, needed)
        if self.cell == "none":
            for name in ("layers", "residual", "learned_carry", "strategy", "remat"):
                refuse_unread(self, "config.model", name, ("cell",))


def build(config: Config, spec: ImageSpec) -> Model:
    """Builds the model for images like `spec`.

    Raises:
      UserError: an unknown cell, or a conditional model of images without classes.
    """
    height, width = map_size(spec)
    steps = height if config.step == "row" else height * width
    cell = None if config.cell == "none" else cell_of(config)
    run = run_of(config)
    generator = Generator(
        spec=spec,
        width=config.features,
        by=config.step,
        features=config.channels,
        cell=cell,
        run=run,
        **config.generator_layers(),
    )
    if config.discriminator == "recurrent":
        body = RecurrentBody(
            cell=cell, width=config.channels, slope=config.slope, dropout=config.dropout, run=run
        )
    else:
        body = Body(features=config.channels, **config.discriminator_layers())
    return adversarial_model(
        "gru_gan",
        config,
        spec,
        generator,
        body,
        steps=steps if config.noise_each else 1,
        shared=None if config.share == "none" else (config.share, SHARED),
    )
