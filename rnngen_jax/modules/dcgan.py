"""The two players of DCGAN (Radford et al. 2016), sized from the image.

With `grow`, they grow by resolution (Karras et al. 2018): each map is also converted to an image,
and weights between 0 and 1, one per doubling, blend each resolution's image with the doubled image
of the resolution below.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from rnngen_jax.modules.adversarial import dropped
from rnngen_jax.modules.dense import Dense
from rnngen_jax.modules.halving import Double, Halve
from rnngen_jax.modules.maps import SelfAttention, activated
from rnngen_jax.modules.vae import sizes
from rnngen_jax.shapes import ImageSpec


class Generator(nn.Module):
    """A dense layer to the smallest map, then transposed convolutions that double it.

    Attributes:
      spec: the images.
      stages: doublings, as in `modules.vae.sizes`.
      features: channels of the largest map before the image; each smaller map has twice as many.
      kernel: side of the convolutions' kernels.
      slope: slope of LeakyReLU below 0.
      norm: "none", "batch", or "conditional_batch" by class.
      attention: self-attention over the map before the last doubling.
      grow: whether the image is blended from all resolutions.
    """

    spec: ImageSpec
    stages: int
    features: int
    kernel: int
    slope: float
    norm: str
    attention: bool
    grow: bool

    @nn.compact
    def __call__(
        self, noise: Array, label: Array, *, train: bool, fade: Array | None = None
    ) -> Array:
        """`[B, S, Z]` and int `[B]` to images `[B, H, W, C]` in [-1, 1]; `fade` is `[stages]`."""
        spec = self.spec
        *larger, (height, width) = sizes(spec.height, spec.width, self.stages)
        how = self.norm, self.slope, spec.classes
        features = self.features << len(larger) >> 1
        x = Dense(height * width * features)(noise.reshape(noise.shape[0], -1))
        x = activated(x.reshape(-1, height, width, features), label, train, *how)
        image = self._image(x, len(larger)) if self.grow else None
        for stage in reversed(range(len(larger))):
            if stage == 0 and self.attention:
                x = SelfAttention()(x)
            last = stage == 0 and not self.grow
            out = spec.channels if last else self.features << stage >> 1
            x = Double(max(out, 1), self.kernel, *larger[stage])(x)
            if last:
                return jnp.tanh(x)
            x = activated(x, label, train, *how)
            if self.grow:
                share = fade[len(larger) - 1 - stage]
                image = blended(doubled(image), self._image(x, stage), share)
        return jnp.tanh(image)

    def _image(self, x: Array, stage: int) -> Array:
        """A map converted to an image, before the tanh."""
        return Dense(self.spec.channels, name=f"image_{stage}")(x)


class Body(nn.Module):
    """The discriminator's convolutions that halve the image.

    Attributes:
      stages, features, kernel, slope, attention, grow: as in `Generator`, mirrored.
      dropout: rate after each convolution.
      norm: "none" or "batch"; never on the first map.
    """

    stages: int
    features: int
    kernel: int
    slope: float
    dropout: float
    norm: str
    attention: bool
    grow: bool

    @nn.compact
    def __call__(
        self,
        image: Array,
        *,
        train: bool,
        drop: Array | None = None,
        fade: Array | None = None,
    ) -> Array:
        """`[B, H, W, C]` to features `[B, F]`."""
        count = len(sizes(*image.shape[1:3], self.stages)) - 1
        x = self._map(image, 0) if self.grow else image
        for stage in range(count):
            x = Halve(self.features << stage, self.kernel)(x)
            x = activated(x, None, train, self.norm if stage else "none", self.slope)
            if self.grow:
                image = halved(image)
                x = blended(self._map(image, stage + 1), x, fade[count - 1 - stage])
            x = dropped(x, drop, f"stage {stage}", self.dropout)
            if stage == 0 and self.attention:
                x = SelfAttention()(x)
        return x.reshape(x.shape[0], -1)

    def _map(self, image: Array, stage: int) -> Array:
        """An image converted to a map like the convolutions' at its resolution."""
        x = Dense(self.features << stage >> 1 or 1, name=f"map_{stage}")(image)
        return jax.nn.leaky_relu(x, self.slope)


def blended(low: Array, high: Array, share: Array) -> Array:
    """`(1 - share) low + share high`."""
    return low + share * (high - low)


def doubled(image: Array) -> Array:
    """`[B, H, W, C]` to `[B, 2 H, 2 W, C]`, each pixel four times."""
    return jnp.repeat(jnp.repeat(image, 2, axis=1), 2, axis=2)


def halved(image: Array) -> Array:
    """`[B, 2 H, 2 W, C]` to `[B, H, W, C]`, the mean of each block of 2x2 pixels."""
    batch, height, width, channels = image.shape
    return image.reshape(batch, height // 2, 2, width // 2, 2, channels).mean((2, 4))


def faded(image: Array, fade: Array) -> Array:
    """Real images `[B, H, W, C]`, blurred like a growing generator's by the weights `[stages]`.

    The first weight is that of the second smallest resolution.
    """
    levels = [image]
    for _ in range(fade.shape[0]):
        levels.append(halved(levels[-1]))
    shown = levels.pop()
    for share, level in zip(fade, reversed(levels), strict=True):
        shown = blended(doubled(shown), level, share)
    return shown
