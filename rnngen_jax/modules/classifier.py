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
    def __call__(self, image: Array, mask: Array | None = None) -> tuple[tuple[Array, ...], Array]:
        """Grey levels `[B, H, W, C]` to every layer's activations and logits `[B, K]`.

        Activations are the convolutions' maps `[B, h, w, D]`, then the hidden layer's, `[B, F]`.
        The dropout mask `[B, F]` acts between that layer and the logits: activations are returned
        without it. They are differentiable with respect to the image, which may lie between levels.
        """
        # Black is zero, the value that the convolutions see beyond the border.
        x, maps = scaled(image, self.spec.levels), []
        for stage, _ in enumerate(sizes(*image.shape[1:3], self.stages)[1:]):
            x = self.activate(Halve(self.features << stage, self.kernel)(x))
            maps.append(x)
        features = self.activate(Dense(self.hidden)(x.reshape(x.shape[0], -1)))
        kept = features if mask is None else features * mask
        return (*maps, features), Dense(self.spec.classes)(kept)
