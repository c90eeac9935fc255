"""DCGAN: transposed convolutions against convolutions (Radford et al. 2016)."""

from dataclasses import dataclass

import jax.numpy as jnp
from jax import Array

from rnngen_jax.config import require, require_at_least
from rnngen_jax.errors import UserError
from rnngen_jax.models.adversarial import Schedule, adversarial_model
from rnngen_jax.models.adversarial_config import AdversarialConfig
from rnngen_jax.models.base import Model
from rnngen_jax.models.halving import require_stages
from rnngen_jax.modules.dcgan import Body, Generator, faded
from rnngen_jax.modules.vae import sizes
from rnngen_jax.shapes import ImageSpec


@dataclass(frozen=True)
class Config(AdversarialConfig):
    """Choices of DCGAN; see `AdversarialConfig` for the others.

    Attributes:
      features: channels of the largest map; each halving doubles them.
      stages: number of halvings; 0 halves once, then until the shorter side is at most 7.
      kernel: side of the convolutions' kernels.
      attention: self-attention over the largest map of either player (Zhang et al. 2019).
      grow: steps over which each resolution above the smallest fades in, with as many in between
        (Karras et al. 2018); 0 trains all at once. The image's sides must halve evenly.
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
      UserError: more halvings than the image has room for, a norm with nothing to normalise, sides
        that do not halve evenly, or a conditional model of images without classes.
    """
    require_stages(config.stages, spec)
    count = len(sizes(spec.height, spec.width, config.stages)) - 1
    config.require_norm_read(count, "stages")
    if config.grow and (spec.height % 2**count or spec.width % 2**count):
        raise UserError(
            f"config.model.grow must be 0 for images of {spec.height}x{spec.width}, got "
            f"{config.grow}: their sides do not halve evenly {count} times. Use fewer stages."
        )
    shared = {
        "stages": config.stages,
        "features": config.features,
        "kernel": config.kernel,
        "attention": config.attention,
        "grow": config.grow > 0,
    }
    generator = Generator(spec=spec, **shared, **config.generator_layers())
    body = Body(**shared, **config.discriminator_layers())

    def at(step: Array) -> dict[str, Array]:
        # Resolution n fades in between steps (2 n + 1) and (2 n + 2) times `grow`.
        begins = (2 * jnp.arange(count) + 1) * config.grow
        return {"fade": jnp.clip((step - begins) / config.grow, 0.0, 1.0)}

    schedule = Schedule(at, faded) if config.grow else None
    return adversarial_model("dcgan", config, spec, generator, body, schedule=schedule)
