"""A small classifier, whose features are used to evaluate samples.

It is trained once on a data set with the cross-entropy of its labels. The activations of its hidden
layer are then the features in which samples are compared with data; this works offline, for any
labelled data. A digest of the parameters identifies the classifier.
"""

from dataclasses import dataclass

import jax.numpy as jnp
from jax import Array
from optax.losses import softmax_cross_entropy_with_integer_labels as cross_entropy

from rnngen_jax import keys
from rnngen_jax.errors import UserError
from rnngen_jax.models.base import Aux, Batch, Extra, Model, Params
from rnngen_jax.models.halving import HalvingConfig
from rnngen_jax.modules.classifier import Classifier
from rnngen_jax.ops import dropout
from rnngen_jax.shapes import ImageSpec


@dataclass(frozen=True)
class Config(HalvingConfig):
    """Choices of the classifier; see `HalvingConfig` for the others.

    Attributes:
      hidden: units F of the hidden layer, whose activations are an image's features.
    """

    hidden: int = 64
    dropout: float = 0.3


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
    network = Classifier(**config.network(spec))

    def init(key: Array) -> tuple[Params, Extra]:
        image = jnp.zeros((1, *spec.shape), jnp.int32)
        return {"model": network.init(keys.named(key, "classifier"), image)["params"]}, {}

    def apply(
        params: Params, image: Array, mask: Array | None = None
    ) -> tuple[tuple[Array, ...], Array]:
        return network.apply({"params": params["model"]}, image, mask)

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
        (*_, features), logits = apply(params, image)
        return features, logits

    def activations(params: Params, extra: Extra, image: Array) -> tuple[Array, ...]:
        del extra
        return apply(params, image * (spec.levels - 1))[0]

    return Model(
        "classifier",
        spec,
        True,
        init,
        {"model": loss},
        classify=classify,
        activations=activations,
    )
