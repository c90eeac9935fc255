"""The convolutional encoder and decoder of a VAE, sized from the image."""

from flax import linen as nn
from jax import Array

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


class Encoder(nn.Module):
    """Convolutions of stride 2, each doubling the features, then a hidden layer.

    Attributes:
      spec: the images.
      stages: as in `sizes`.
      features: of the first map.
      kernel: the convolutions' size.
      hidden: units of the hidden layer.
      latents: Z.
      activation: a name in `ops.activations.ACTIVATIONS`.
      conditional: adds an embedding of the class to the hidden layer.
    """

    spec: ImageSpec
    stages: int
    features: int
    kernel: int
    hidden: int
    latents: int
    activation: str
    conditional: bool

    @nn.compact
    def __call__(self, image: Array, label: Array, mask: Array | None = None) -> Gaussian:
        """Int `[B, H, W, C]` to q(z|x) over `[B, Z]`; `mask` is the dropout mask, `[B, hidden]`."""
        activation = ACTIVATIONS[self.activation]
        x = 2 * scaled(image, self.spec.levels) - 1
        for stage, _ in enumerate(sizes(*image.shape[1:3], self.stages)[1:]):
            x = activation(Halve(self.features << stage, self.kernel)(x))
        x = nn.Dense(self.hidden)(x.reshape(x.shape[0], -1))
        if self.conditional:
            x = x + Table(self.spec.classes, self.hidden)(label)
        x = activation(x)
        return GaussianHead(self.latents)(x if mask is None else x * mask)


class Decoder(nn.Module):
    """The encoder's mirror: a hidden layer, then transposed convolutions.

    Attributes:
      size: raw outputs P per value.
      others: as in `Encoder`.
    """

    spec: ImageSpec
    stages: int
    features: int
    kernel: int
    hidden: int
    size: int
    activation: str
    conditional: bool

    @nn.compact
    def __call__(self, z: Array, label: Array, mask: Array | None = None) -> Array:
        """`[B, Z]` to raw outputs `[B, H, W, C, P]`."""
        activation = ACTIVATIONS[self.activation]
        spec, batch = self.spec, z.shape[0]
        *larger, (height, width) = sizes(spec.height, spec.width, self.stages)
        x = nn.Dense(self.hidden)(z)
        if self.conditional:
            x = x + Table(spec.classes, self.hidden)(label)
        x = activation(x)
        x = x if mask is None else x * mask
        last = self.features << len(larger) >> 1
        x = activation(nn.Dense(height * width * last)(x)).reshape(batch, height, width, last)
        for stage in reversed(range(len(larger))):
            out = spec.channels * self.size if stage == 0 else self.features << stage >> 1
            x = Double(out, self.kernel, *larger[stage])(x)
            x = activation(x) if stage else x
        return x.reshape(*x.shape[:-1], spec.channels, self.size)
