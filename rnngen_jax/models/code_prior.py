"""Any autoregressive model of images as a prior over the codes of a VQ-VAE.

Row LSTM, Diagonal BiLSTM, PixelCNN and the others take a grid of codes as they take an image: a
code is a grey level, and a residual quantiser's depths are channels. Of two levels of codes each
has a model of its own, and the bottom's is given the top's codes. `config.tokenizer` makes it a
model of images (`models.two_stage`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from rnngen_jax import models
from rnngen_jax.config import options, require, require_at_least, require_choice
from rnngen_jax.errors import UserError
from rnngen_jax.models.autoregressive import PixelConfig
from rnngen_jax.models.base import Model
from rnngen_jax.models.levels import Coarser
from rnngen_jax.shapes import ImageSpec


@dataclass(frozen=True)
class Config:
    """Choices of a prior over codes.

    Attributes:
      TOKENIZER: the model whose codes it is trained on unless `config.tokenizer` names a run of
        another; it has a section of its own.
      prior: an autoregressive model and its fields, such as "row_lstm:features=64,layers=3",
        "diagonal_bilstm" or "pixel_cnn:gated=True,class_conditional=True".
      around: of two levels, the bottom's inputs are the top's codes at the place above and at
        `around` places to each side of it; not read for one level.
    """

    TOKENIZER: ClassVar[str] = "vqvae"

    prior: str = "row_lstm"
    around: int = 1

    def __post_init__(self) -> None:
        require_at_least(self, "config.model", 0, "around")
        self.fields()

    def fields(self) -> tuple[str, Mapping[str, Any]]:
        """The prior's name, and its fields by name.

        Raises:
          UserError: an unknown prior or field, or a value that does not fit.
        """
        name, _, text = self.prior.partition(":")
        require_choice("config.model.prior", name, priors())
        own = models.config_class(name)
        found = options(own, f"config.model.prior {name!r}", text)
        try:
            own(**found)
        except UserError as error:
            raise UserError(f"config.model.prior={self.prior!r}: {error}") from None
        return name, found

    def require_private(self, player: str, noise: float) -> None:
        """Raises a `UserError`: the tokenizer and the counts of codes have no private gradients."""
        del player
        require(noise == 0, "config.optimizer.private_noise", noise, "0 for code_prior")


def priors() -> list[str]:
    """Names of the models that can be priors: those of an image's values in some order."""
    return [name for name in models.names() if issubclass(models.config_class(name), PixelConfig)]


def build(config: Config, spec: ImageSpec) -> Model:
    """Builds the model for grids of codes like `spec`.

    Raises:
      UserError: a prior unsuitable for the codes.
    """
    name, fields = config.fields()
    return models.build(name, fields, spec)._replace(name="code_prior")


def build_level(
    config: Config, spec: ImageSpec, coarser: Coarser | None = None
) -> Callable[..., Model]:
    """Builds a level of `models.levels.over_levels`, given the codes of a coarser level, if any.

    Raises:
      UserError: a prior unsuitable for the codes, or one that takes no coarser level.
    """
    name, fields = config.fields()
    own = models.level_builder(name)
    able = [prior for prior in priors() if models.level_builder(prior) is not None]
    allowed = f"one of {', '.join(able)} for codes of two levels"
    require(own is not None, "config.model.prior", name, allowed)
    return own(models.config_class(name)(**fields), spec, coarser)
