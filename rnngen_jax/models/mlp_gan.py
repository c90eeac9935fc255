"""MLP GAN: a generator and a discriminator of dense layers (Goodfellow et al. 2014)."""

from dataclasses import dataclass

from rnngen_jax.config import require_at_least
from rnngen_jax.models.adversarial import adversarial_model
from rnngen_jax.models.adversarial_config import AdversarialConfig
from rnngen_jax.models.base import Model
from rnngen_jax.modules.mlp_gan import Body, Generator
from rnngen_jax.shapes import ImageSpec


@dataclass(frozen=True)
class Config(AdversarialConfig):
    """Choices of the MLP GAN; see `AdversarialConfig` for the others.

    Attributes:
      hidden: units of each hidden layer, in both players.
      layers: hidden layers, in both players.
    """

    hidden: int = 256
    layers: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(self, "config.model", 1, "hidden", "layers")


def build(config: Config, spec: ImageSpec) -> Model:
    """Builds the model for images like `spec`.

    Raises:
      UserError: a conditional model of images without classes.
    """
    sizes = {"hidden": config.hidden, "layers": config.layers}
    generator = Generator(spec=spec, **sizes, **config.generator_layers())
    body = Body(**sizes, **config.discriminator_layers())
    return adversarial_model("mlp_gan", config, spec, generator, body)
