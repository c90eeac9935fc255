"""Config fields that models with a discriminator have, and checks of their combinations."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from rnngen_jax.config import refuse_unread, require, require_at_least, require_choice
from rnngen_jax.errors import UserError
from rnngen_jax.models.base import require_dropout
from rnngen_jax.ops import adversarial, penalties
from rnngen_jax.ops.augment import require_policy

CONDITIONINGS = ("concat", "projection", "auxiliary")
NOISES = ("normal", "uniform")
NORMS = ("none", "batch", "conditional_batch")


@dataclass(frozen=True)
class DiscriminatorConfig:
    """Choices of a discriminator and of both players' losses, whatever makes the images.

    Attributes:
      loss: "minimax", "non_saturating", "least_squares", "hinge", "wasserstein" or "relativistic".
      label_smoothing: the target for real images is 1 minus this.
      penalty: on the gradient of the discriminator's score: "none", "wgan_gp", "r1", "r2", "r1_r2"
        or "dragan".
      penalty_weight: weight of the penalty.
      spectral: the discriminator's kernels are divided by their largest singular value.
      discriminator_norm: of the discriminator's layers: "none" or "batch".
      dropout: rate in the discriminator.
      slope: of LeakyReLU below 0; 0 is ReLU.
      augmentation: differentiable, of all images shown to the discriminator: "color",
        "translation", "cutout" and "flip", comma-separated; may be empty.
    """

    loss: str = "non_saturating"
    label_smoothing: float = 0.0
    penalty: str = "none"
    penalty_weight: float = 10.0
    spectral: bool = False
    discriminator_norm: str = "none"
    dropout: float = 0.0
    slope: float = 0.2
    augmentation: str = ""

    def __post_init__(self) -> None:
        at = "config.model."
        adversarial.make(self.loss, self.label_smoothing)
        penalties.make(self.penalty)
        require_choice(f"{at}discriminator_norm", self.discriminator_norm, NORMS[:2])
        require_policy(self.augmentation)
        require_dropout(self.dropout)
        require(0 <= self.slope < 1, f"{at}slope", self.slope, "in [0, 1)")
        require_at_least(self, "config.model", 0, "penalty_weight")
        if self.penalty != "none" and self.discriminator_norm == "batch":
            raise UserError(
                f"config.model.penalty={self.penalty!r} needs each score to depend on one image, "
                "but with config.model.discriminator_norm='batch' it depends on other images; set "
                "that to 'none'."
            )
        if self.penalty == "none":
            refuse_unread(self, "config.model", "penalty_weight", ("penalty",))

    def discriminator_layers(self) -> dict[str, Any]:
        """The fields of a discriminator's body that its layers have in common."""
        return {"slope": self.slope, "norm": self.discriminator_norm, "dropout": self.dropout}

    def require_norm_read(self, halvings: int, stages: str) -> None:
        """Raises a `UserError` for a norm with nothing to normalise.

        Args:
          halvings: maps of the discriminator, of which the first is never normalised.
          stages: the field that sets their number.
        """
        if halvings == 1 and self.discriminator_norm != "none":
            raise UserError(
                f"config.model.discriminator_norm={self.discriminator_norm!r} has no effect: the "
                "first map is never normalised, and with one stage there is no other; set "
                f"config.model.{stages}."
            )


@dataclass(frozen=True)
class AdversarialConfig(DiscriminatorConfig):
    """Choices of all models that make images of noise; see `DiscriminatorConfig` for the others.

    Attributes:
      PLAYERS: as `models.players` gives them.
      noise: size Z of a noise vector.
      noise_kind: "normal", or "uniform" in [-1, 1].
      norm: of the generator's layers: "none", "batch", or "conditional_batch" by class.
      slope: of LeakyReLU below 0, in both players; 0 is ReLU.
      class_conditional: the class is an input of the generator, beside its noise.
      conditioning: how the discriminator uses the class: "concat", "projection" or "auxiliary".
      codes: categories of InfoGAN's categorical code, 0 for none.
      traits: number of InfoGAN's continuous codes.
      information: weight of the information that images carry about their InfoGAN codes.
    """

    PLAYERS: ClassVar[Mapping[str, str]] = {
        "discriminator": "discriminator",
        "generator": "optimizer",
    }

    noise: int = 100
    noise_kind: str = "normal"
    norm: str = "none"
    class_conditional: bool = False
    conditioning: str = "projection"
    codes: int = 0
    traits: int = 0
    information: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        at = "config.model."
        require(self.noise >= 1, f"{at}noise", self.noise, "≥ 1")
        require_choice(f"{at}noise_kind", self.noise_kind, NOISES)
        require_choice(f"{at}norm", self.norm, NORMS)
        require_choice(f"{at}conditioning", self.conditioning, CONDITIONINGS)
        require_at_least(self, "config.model", 0, "codes", "traits")
        require(self.codes != 1, f"{at}codes", self.codes, "0 or ≥ 2")
        require_at_least(self, "config.model", 0, "information")
        if self.norm == "conditional_batch" and not self.class_conditional:
            raise UserError(
                "config.model.norm='conditional_batch' needs classes; set "
                "config.model.class_conditional, or norm to 'batch'."
            )
        if not self.class_conditional:
            refuse_unread(self, "config.model", "conditioning", ("class_conditional",))
        if not self.codes + self.traits:
            refuse_unread(self, "config.model", "information", ("codes", "traits"))

    def generator_layers(self) -> dict[str, Any]:
        """The fields of a generator's module that its layers have in common."""
        return {"slope": self.slope, "norm": self.norm}

    def require_private(self, player: str, noise: float) -> None:
        """Raises a `UserError` if private gradients of a player would not protect the images.

        Only the discriminator's gradients are private, one image at a time; nothing else may depend
        on images or classes.

        Args:
          player: the player whose gradients are to be private.
          noise: its `private_noise`.
        """
        if player != "discriminator":
            raise UserError(
                f"config.{self.PLAYERS[player]}.private_noise must be 0, got {noise!r}: the "
                f"{player} sees no images. Set config.discriminator.private_noise."
            )
        whole = "depends on the whole batch"
        reasons = {
            "loss": (("relativistic",), "shows real images to the generator"),
            "penalty": (("dragan",), whole),
            "norm": (NORMS[1:], whole),
            "discriminator_norm": (NORMS[1:], whole),
            "class_conditional": ((True,), "shows the images' classes to the generator"),
        }
        for name, (values, why) in reasons.items():
            given = getattr(self, name)
            if given in values:
                raise UserError(
                    f"config.model.{name}={given!r} cannot be used with a private discriminator: "
                    f"it {why}. Choose another, or set config.discriminator.private_noise=0."
                )
