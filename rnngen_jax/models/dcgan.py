"""DCGAN: transposed convolutions against convolutions (Radford et al. 2016)."""

from dataclasses import dataclass

import jax.numpy as jnp
from jax import Array

from rnngen_jax.config import require, require_at_least
from rnngen_jax.errors import UserError
from rnngen_jax.models.adversarial import Schedule, adversarial_model
from rnngen_jax.models.adversarial_config import AdversarialConfig
from rnngen_jax.models.base import Model
from rnngen_jax.modules.dcgan import Body, Generator, faded
from rnngen_jax.modules.vae import sizes
from rnngen_jax.shapes import ImageSpec


@dataclass(frozen=True)
class Config(AdversarialConfig):
    """Choices of DCGAN; see `AdversarialConfig` for the others.

    Attributes:
      features: of the largest map; each smaller one has twice as many.
      stages: how often the image is halved; 0 for once, and then as often as its shorter side is
        above 7.
      kernel: side of the convolutions' kernels.
      attention: self-attention over the largest map of either player (Zhang et al. 2019).
      grow: steps over which each resolution beyond the smallest comes in, with as many in between
        (Karras et al. 2018); 0 for all at once. It takes sides that halve without rest.
    """

    norm: str = "batch"
    features: int = 64
    stages: int = 0
    kernel: int = 4
    attention: bool = False
    grow: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(self, "config.model", 1, "features", "kernel")
        require(self.kernel >= 2, "config.model.kernel", self.kernel, "≥ 2")
        require_at_least(self, "config.model", 0, "stages", "grow")


def build(config: Config, spec: ImageSpec) -> Model:
    """Builds the model for images like `spec`.

    Raises:
      UserError: more halvings than the image has room for, a norm without a map, sides that cannot
        grow, or a conditional model of images without classes.
    """
    most = min(spec.height, spec.width).bit_length() - 1
    require(config.stages <= most, "config.model.stages", config.stages, f"in [0, {most}]")
    count = len(sizes(spec.height, spec.width, config.stages)) - 1
    if count == 1 and config.discriminator_norm != "none":
        raise UserError(
            f"config.model.discriminator_norm={config.discriminator_norm!r} has no effect: the "
            "first map is never normalised, and with one stage there is no other; set "
            "config.model.stages."
        )
    if config.grow and (spec.height % 2**count or spec.width % 2**count):
        raise UserError(
            f"config.model.grow={config.grow} does not fit images of {spec.height}x{spec.width}: "
            f"their sides do not halve {count} times; allowed: 0, or fewer stages."
        )
    shared = {
        "stages": config.stages,
        "features": config.features,
        "kernel": config.kernel,
        "slope": config.slope,
        "attention": config.attention,
        "grow": config.grow > 0,
    }
    generator = Generator(spec=spec, norm=config.norm, **shared)
    body = Body(dropout=config.dropout, norm=config.discriminator_norm, **shared)

    def at(step: Array) -> dict[str, Array]:
        # Resolution n comes in between steps (2 n + 1) and (2 n + 2) times `grow`.
        begins = (2 * jnp.arange(count) + 1) * config.grow
        return {"fade": jnp.clip((step - begins) / config.grow, 0.0, 1.0)}

    schedule = Schedule(at, faded) if config.grow else None
    return adversarial_model("dcgan", config, spec, generator, body, schedule=schedule)
