"""The choices that all adversarial models have, and which of them go together."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from rnngen_jax.config import refuse_unread, require, require_at_least, require_choice
from rnngen_jax.errors import UserError
from rnngen_jax.models.base import require_dropout
from rnngen_jax.ops import adversarial, penalties
from rnngen_jax.ops.augment import require_policy

CONDITIONINGS = ("concat", "projection", "auxiliary")
NOISES = ("normal", "uniform")
NORMS = ("none", "batch", "conditional_batch")


@dataclass(frozen=True)
class AdversarialConfig:
    """Choices that all adversarial models have; see `models.players` for PLAYERS.

    Attributes:
      noise: size Z of a noise vector.
      noise_kind: "normal", or "uniform" in [-1, 1].
      loss: "minimax", "non_saturating", "least_squares", "hinge", "wasserstein" or "relativistic".
      label_smoothing: real images count as real by 1 less this.
      penalty: on the gradient of the discriminator's score: "none", "wgan_gp", "r1", "r2", "r1_r2"
        or "dragan".
      penalty_weight: weight of the penalty.
      spectral: the discriminator's kernels are divided by their largest singular value.
      norm: of the generator's layers: "none", "batch", or "conditional_batch" by class.
      discriminator_norm: of the discriminator's: "none" or "batch".
      dropout: rate in the discriminator.
      slope: of LeakyReLU below 0, in both players; 0 is ReLU.
      augmentation: of all that the discriminator sees, differentiable: "color", "translation",
        "cutout" and "flip", comma between; empty for none.
      class_conditional: the generator is told the class, beside its noise.
      conditioning: how the discriminator is: "concat", "projection" or "auxiliary".
      codes: categories of an InfoGAN code, 0 for none.
      traits: continuous InfoGAN codes.
      information: weight of what the codes' images tell of them.
    """

    PLAYERS: ClassVar[Mapping[str, str]] = {
        "discriminator": "discriminator",
        "generator": "optimizer",
    }

    noise: int = 100
    noise_kind: str = "normal"
    loss: str = "non_saturating"
    label_smoothing: float = 0.0
    penalty: str = "none"
    penalty_weight: float = 10.0
    spectral: bool = False
    norm: str = "none"
    discriminator_norm: str = "none"
    dropout: float = 0.0
    slope: float = 0.2
    augmentation: str = ""
    class_conditional: bool = False
    conditioning: str = "projection"
    codes: int = 0
    traits: int = 0
    information: float = 1.0

    def __post_init__(self) -> None:
        at = "config.model."
        require(self.noise >= 1, f"{at}noise", self.noise, "≥ 1")
        require_choice(f"{at}noise_kind", self.noise_kind, NOISES)
        adversarial.make(self.loss, self.label_smoothing)
        penalties.make(self.penalty)
        require_choice(f"{at}norm", self.norm, NORMS)
        require_choice(f"{at}discriminator_norm", self.discriminator_norm, NORMS[:2])
        require_choice(f"{at}conditioning", self.conditioning, CONDITIONINGS)
        require_policy(self.augmentation)
        require_dropout(self.dropout)
        require(0 <= self.slope < 1, f"{at}slope", self.slope, "in [0, 1)")
        require_at_least(self, "config.model", 0, "codes", "traits")
        require(self.codes != 1, f"{at}codes", self.codes, "0 or ≥ 2")
        require_at_least(self, "config.model", 0, "penalty_weight", "information")
        self._refuse_together()
        self._refuse_unread()

    def require_private(self, player: str, noise: float) -> None:
        """Raises a `UserError` where private gradients of a player would keep no secret.

        The discriminator's are taken of one image at a time, and all else must not see images or
        classes.

        Args:
          player: whose gradients are private.
          noise: its `private_noise`.
        """
        if player != "discriminator":
            raise UserError(
                f"config.{self.PLAYERS[player]}.private_noise={noise!r} does not fit: the "
                f"{player} sees no images; set config.discriminator.private_noise."
            )
        whole = "looks at the whole batch"
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
                    f"config.model.{name}={given!r} does not fit a private discriminator, since it "
                    f"{why}; choose another, or set config.discriminator.private_noise=0."
                )

    def _refuse_together(self) -> None:
        """Raises a `UserError` for choices that contradict each other."""
        if self.penalty != "none" and self.discriminator_norm == "batch":
            raise UserError(
                f"config.model.penalty={self.penalty!r} is of the gradient of each image's own "
                "score, and with config.model.discriminator_norm='batch' a score depends on other "
                "images; set that to 'none'."
            )
        if self.norm == "conditional_batch" and not self.class_conditional:
            raise UserError(
                "config.model.norm='conditional_batch' needs classes; set "
                "config.model.class_conditional, or norm to 'batch'."
            )

    def _refuse_unread(self) -> None:
        """Raises an `UnreadError` where a field is set that the other choices leave unread."""
        if self.penalty == "none":
            refuse_unread(self, "config.model", "penalty_weight", ("penalty",))
        if not self.class_conditional:
            refuse_unread(self, "config.model", "conditioning", ("class_conditional",))
        if not self.codes + self.traits:
            refuse_unread(self, "config.model", "information", ("codes", "traits"))
