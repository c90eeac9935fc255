"""The convolutional encoder and decoder of a VAE, sized from the image."""

from flax import linen as nn
from jax import Array

from rnngen_jax.modules.dense import Dense
from rnngen_jax.modules.halving import Double, Halve
from rnngen_jax.modules.latent import GaussianHead, scaled
from rnngen_jax.modules.pixels import Table
from rnngen_jax.ops.activations import ACTIVATIONS
from rnngen_jax.ops.gaussians import Gaussian
from rnngen_jax.shapes import ImageSpec

SMALLEST = 7  # rows or columns down to which an image is halved if `stages` is 0


def sizes(height: int, width: int, stages: int) -> list[tuple[int, int]]:
    """Heights and widths of the maps, starting with the image; each is half the previous one.

    Args:
      height, width: of the image.
      stages: number of halvings, rounded up; 0 halves once, then until the shorter side is at most
        7.
    """
    found = [(height, width)]
    while len(found) <= max(stages, 1) or (not stages and min(found[-1]) > SMALLEST):
        found.append(tuple(-(-side // 2) for side in found[-1]))  # type: ignore[arg-type]
    return found


class HalvingNetwork(nn.Module, kw_only=True):
    """Base of networks with convolutions that halve or double a map, and one hidden layer.

    Attributes:
      spec: the images.
      stages: as in `sizes`.
      features: of the largest map; each halving doubles them.
      kernel: side of the convolutions' kernels.
      hidden: units of the hidden layer.
      activation: a name in `ops.activations.ACTIVATIONS`.
    """

    spec: ImageSpec
    stages: int
    features: int
    kernel: int
    hidden: int
    activation: str

    def activate(self, x: Array) -> Array:
        """`x` after the activation function."""
        return ACTIVATIONS[self.activation](x)


class Encoder(HalvingNetwork):
    """Convolutions of stride 2, each doubling the features, then a hidden layer.

    Attributes:
      latents: Z.
      conditional: adds an embedding of the class to the hidden layer.
    """

    latents: int
    conditional: bool

    @nn.compact
    def __call__(self, image: Array, label: Array, mask: Array | None = None) -> Gaussian:
        """Int `[B, H, W, C]` to q(z|x) over `[B, Z]`; `mask` is the dropout mask, `[B, hidden]`."""
        x = 2 * scaled(image, self.spec.levels) - 1
        for stage, _ in enumerate(sizes(*image.shape[1:3], self.stages)[1:]):
            x = self.activate(Halve(self.features << stage, self.kernel)(x))
        x = Dense(self.hidden)(x.reshape(x.shape[0], -1))
        if self.conditional:
            x = x + Table(self.spec.classes, self.hidden)(label)
        x = self.activate(x)
        return GaussianHead(self.latents)(x if mask is None else x * mask)


class Decoder(HalvingNetwork):
    """The encoder's mirror: a hidden layer, then transposed convolutions.

    Attributes:
      size: raw outputs P per value.
      conditional: adds an embedding of the class to the hidden layer.
    """

    size: int
    conditional: bool

    @nn.compact
    def __call__(self, z: Array, label: Array, mask: Array | None = None) -> Array:
        """`[B, Z]` to raw outputs `[B, H, W, C, P]`."""
        spec, batch = self.spec, z.shape[0]
        *larger, (height, width) = sizes(spec.height, spec.width, self.stages)
        x = Dense(self.hidden)(z)
        if self.conditional:
            x = x + Table(spec.classes, self.hidden)(label)
        x = self.activate(x)
        x = x if mask is None else x * mask
        last = self.features << len(larger) >> 1
        x = self.activate(Dense(height * width * last)(x)).reshape(batch, height, width, last)
        for stage in reversed(range(len(larger))):
            out = spec.channels * self.size if stage == 0 else self.features << stage >> 1
            x = Double(out, self.kernel, *larger[stage])(x)
            x = self.activate(x) if stage else x
        return x.reshape(*x.shape[:-1], spec.channels, self.size)
