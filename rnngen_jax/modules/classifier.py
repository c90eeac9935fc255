"""A small convolutional classifier, sized from the image."""

from flax import linen as nn
from jax import Array

from rnngen_jax.modules.dense import Dense
from rnngen_jax.modules.halving import Halve
from rnngen_jax.modules.latent import scaled
from rnngen_jax.modules.vae import HalvingNetwork, sizes


class Classifier(HalvingNetwork):
    """Convolutions of stride 2, each doubling the features, then a hidden layer of F units."""

    @nn.compact
    def __call__(self, image: Array, mask: Array | None = None) -> tuple[Array, Array]:
        """Int `[B, H, W, C]` to the hidden layer's activations `[B, F]` and logits `[B, K]`.

        The dropout mask `[B, F]` acts between the two: the activations are returned without it.
        """
        # Black is zero, the value that the convolutions see beyond the border.
        x = scaled(image, self.spec.levels)
        for stage, _ in enumerate(sizes(*image.shape[1:3], self.stages)[1:]):
            x = self.activate(Halve(self.features << stage, self.kernel)(x))
        features = self.activate(Dense(self.hidden)(x.reshape(x.shape[0], -1)))
        kept = features if mask is None else features * mask
        return features, Dense(self.spec.classes)(kept)
