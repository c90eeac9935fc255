"""Config fields of models whose convolutions halve the image, and their check against its size."""

from dataclasses import dataclass
from typing import Any

from rnngen_jax.config import require, require_at_least, require_choice
from rnngen_jax.models.base import require_dropout
from rnngen_jax.ops.activations import ACTIVATIONS
from rnngen_jax.shapes import ImageSpec


@dataclass(frozen=True)
class HalvingConfig:
    """Choices of models with halving convolutions and a hidden layer.

    Attributes:
      features: channels of the largest map; each halving doubles them.
      stages: number of halvings; 0 halves once, then until the shorter side is at most 7.
      kernel: side of the convolutions' kernels, even.
      hidden: units of the hidden layer.
      activation: "elu", "gelu", "relu" or another in `ops.activations`.
      dropout: rate for the hidden layer.
    """

    features: int = 32
    stages: int = 0
    kernel: int = 4
    activation: str = "elu"
    hidden: int = 256
    dropout: float = 0.0

    def __post_init__(self) -> None:
        require_at_least(self, "config.model", 1, "features", "kernel", "hidden")
        require(self.kernel % 2 == 0, "config.model.kernel", self.kernel, "even")
        require_at_least(self, "config.model", 0, "stages")
        require_choice("config.model.activation", self.activation, ACTIVATIONS)
        require_dropout(self.dropout)

    def network(self, spec: ImageSpec) -> dict[str, Any]:
        """The fields of a `modules.vae.HalvingNetwork` for images like `spec`.

        Raises:
          UserError: more halvings than the image has room for.
        """
        require_stages(self.stages, spec)
        names = ("features", "stages", "kernel", "hidden", "activation")
        return {"spec": spec, **{name: getattr(self, name) for name in names}}


def require_stages(stages: int, spec: ImageSpec, field: str = "stages") -> None:
    """Raises a `UserError` unless an image like `spec` can be halved `stages` times."""
    most = min(spec.height, spec.width).bit_length() - 1
    require(stages <= most, f"config.model.{field}", stages, f"in [0, {most}]")
