"""A small convolutional classifier, sized from the image."""

from flax import linen as nn
from jax import Array

from rnngen_jax.modules.halving import Halve
from rnngen_jax.modules.latent import scaled
from rnngen_jax.modules.vae import sizes
from rnngen_jax.ops.activations import ACTIVATIONS
from rnngen_jax.shapes import ImageSpec


class Classifier(nn.Module):
    """Convolutions of stride 2, each doubling the features, then a hidden layer.

    Attributes:
      spec: the images.
      stages: number of halvings, as in `modules.vae.sizes`.
      features: of the first map.
      kernel: the convolutions' size.
      hidden: units F of the hidden layer.
      activation: a name in `ops.activations.ACTIVATIONS`.
    """

    spec: ImageSpec
    stages: int
    features: int
    kernel: int
    hidden: int
    activation: str

    @nn.compact
    def __call__(self, image: Array, mask: Array | None = None) -> tuple[Array, Array]:
        """Int `[B, H, W, C]` to the hidden layer's activations `[B, F]` and logits `[B, K]`.

        The dropout mask `[B, F]` acts between the two: the activations are returned without it.
        """
        activation = ACTIVATIONS[self.activation]
        # Black is zero, the value that the convolutions see beyond the border.
        x = scaled(image, self.spec.levels)
        for stage, _ in enumerate(sizes(*image.shape[1:3], self.stages)[1:]):
            x = activation(Halve(self.features << stage, self.kernel)(x))
        features = activation(nn.Dense(self.hidden)(x.reshape(x.shape[0], -1)))
        kept = features if mask is None else features * mask
        return features, nn.Dense(self.spec.classes)(kept)
