"""Any autoregressive model of images as a prior over the codes of a VQ-VAE.

Row LSTM, Diagonal BiLSTM, PixelCNN and the others take a grid of codes as they take an image: a
code is a grey level, and a residual quantiser's depths are channels. `config.tokenizer` makes it a
model of images (`models.two_stage`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from rnngen_jax import models
from rnngen_jax.config import options, require, require_choice
from rnngen_jax.errors import UserError
from rnngen_jax.models.autoregressive import PixelConfig
from rnngen_jax.models.base import Model
from rnngen_jax.shapes import ImageSpec


@dataclass(frozen=True)
class Config:
    """Choices of a prior over codes.

    Attributes:
      TOKENIZER: the model whose codes it is trained on unless `config.tokenizer` names a run of
        another; it has a section of its own.
      prior: an autoregressive model and its fields, such as "row_lstm:features=64,layers=3",
        "diagonal_bilstm" or "pixel_cnn:gated=True,class_conditional=True".
    """

    TOKENIZER: ClassVar[str] = "vqvae"

    prior: str = "row_lstm"

    def __post_init__(self) -> None:
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
