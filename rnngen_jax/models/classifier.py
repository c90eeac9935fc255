"""A small classifier, whose features judge the samples of generators.

It is trained once on a data set with the cross-entropy of its labels. The activations of its hidden
layer are then the features in which samples are compared with data, offline and for any data; a
digest of the parameters identifies it.
"""

from dataclasses import dataclass

import jax.numpy as jnp
from jax import Array
from optax.losses import softmax_cross_entropy_with_integer_labels as cross_entropy

from rnngen_jax import keys
from rnngen_jax.config import require, require_at_least, require_choice
from rnngen_jax.errors import UserError
from rnngen_jax.models.base import Aux, Batch, Extra, Model, Params, require_dropout
from rnngen_jax.modules.classifier import Classifier
from rnngen_jax.ops import dropout
from rnngen_jax.ops.activations import ACTIVATIONS
from rnngen_jax.shapes import ImageSpec


@dataclass(frozen=True)
class Config:
    """Choices of the classifier.

    Attributes:
      features: channels of the largest map; each halving doubles them.
      stages: number of halvings; 0 halves once, then until the shorter side is at most 7.
      kernel: side of the convolutions' kernels, even.
      hidden: units F of the hidden layer, whose activations are an image's features.
      activation: "relu", "elu", "gelu" or another in `ops.activations`.
      dropout: rate for the hidden layer.
    """

    features: int = 32
    stages: int = 0
    kernel: int = 4
    hidden: int = 64
    activation: str = "elu"
    dropout: float = 0.3

    def __post_init__(self) -> None:
        require_at_least(self, "config.model", 1, "features", "kernel", "hidden")
        require(self.kernel % 2 == 0, "config.model.kernel", self.kernel, "even")
        require(self.stages >= 0, "config.model.stages", self.stages, "≥ 0")
        require_choice("config.model.activation", self.activation, ACTIVATIONS)
        require_dropout(self.dropout)


def build(config: Config, spec: ImageSpec) -> Model:
    """Builds the model for images like `spec`.

    Raises:
      UserError: data without labels, or more halvings than the image has room for.
    """
    if spec.classes < 2:
        raise UserError(
            "config.model.name='classifier' cannot be trained on data without labels; "
            "choose a data set with 2 classes or more."
        )
    most = min(spec.height, spec.width).bit_length() - 1
    require(config.stages <= most, "config.model.stages", config.stages, f"in [0, {most}]")
    network = Classifier(
        spec=spec,
        stages=config.stages,
        features=config.features,
        kernel=config.kernel,
        hidden=config.hidden,
        activation=config.activation,
    )

    def init(key: Array) -> tuple[Params, Extra]:
        image = jnp.zeros((1, *spec.shape), jnp.int32)
        return {"model": network.init(keys.named(key, "classifier"), image)["params"]}, {}

    def apply(params: Params, image: Array, mask: Array | None = None) -> tuple[Array, Array]:
        return network.apply({"params": params["model"]}, image.astype(jnp.int32), mask)

    def loss(
        params: Params, extra: Extra, batch: Batch, key: Array, step: Array
    ) -> tuple[Array, Aux]:
        """Mean cross-entropy of the labels, in nats."""
        del step
        mask = None
        if config.dropout:
            each = keys.per_example(keys.named(key, "dropout"), batch["index"])
            mask = dropout.mask(each, config.hidden, config.dropout)
        _, logits = apply(params, batch["image"], mask)
        accuracy = (logits.argmax(-1) == batch["label"]).mean(dtype=jnp.float32)
        return cross_entropy(logits, batch["label"]).mean(), Aux({"accuracy": accuracy}, extra)

    def classify(params: Params, extra: Extra, image: Array) -> tuple[Array, Array]:
        del extra
        return apply(params, image)

    return Model("classifier", spec, True, init, {"model": loss}, classify=classify)
