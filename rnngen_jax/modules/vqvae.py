"""The convolutional encoder and decoder around a codebook, sized from the image."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from rnngen_jax.modules.dense import Dense
from rnngen_jax.modules.halving import Double, Halve
from rnngen_jax.modules.latent import scaled
from rnngen_jax.modules.maps import Same
from rnngen_jax.ops.activations import ACTIVATIONS
from rnngen_jax.shapes import ImageSpec

MOST_STAGES = 3  # halvings if `stages` is 0
SMALLEST = 4  # rows or columns of codes down to which an image is then halved


def sizes(height: int, width: int, stages: int) -> list[tuple[int, int]]:
    """Heights and widths of the maps from the image to its codes; each is half the previous one.

    Args:
      height, width: of the image.
      stages: number of halvings, rounded up; 0 halves once, then up to three times in all while the
        shorter side stays at 4 or above.
    """
    found = [(height, width)]
    while True:
        done, half = len(found) - 1, [-(-side // 2) for side in found[-1]]
        more = done < 1 or (done < MOST_STAGES and min(half) >= SMALLEST)
        if not (done < stages if stages else more):
            return found
        found.append((half[0], half[1]))


class CodeNetwork(nn.Module, kw_only=True):
    """Base of the two networks.

    Attributes:
      spec: the images.
      stages: as in `sizes`.
      features: of the largest map; each halving doubles them.
      kernel: side of the halving convolutions' kernels.
      blocks: residual blocks at the size of the codes, on either side.
      activation: a name in `ops.activations.ACTIVATIONS`.
    """

    spec: ImageSpec
    stages: int
    features: int
    kernel: int
    blocks: int
    activation: str

    def activate(self, x: Array) -> Array:
        """`x` after the activation function."""
        return ACTIVATIONS[self.activation](x)

    def mixed(self, x: Array) -> Array:
        """The residual blocks: x + W₁ f(W₃ f(x)), with kernels of 3x3 and 1x1."""
        for _ in range(self.blocks):
            inner = Same(x.shape[-1])(self.activate(x))
            x = x + Dense(x.shape[-1])(self.activate(inner))
        return x


class CodeFeatures(CodeNetwork):
    """Convolutions of stride 2, then residual blocks."""

    @nn.compact
    def __call__(self, image: Array) -> Array:
        """Int `[B, H, W, C]` to `[B, h, w, F]`, after the activation function."""
        return self.features_of(image)

    def features_of(self, image: Array) -> Array:
        """The same, within a module."""
        x = 2 * scaled(image, self.spec.levels) - 1
        for stage, _ in enumerate(sizes(*image.shape[1:3], self.stages)[1:]):
            x = Halve(self.features << stage, self.kernel)(self.activate(x) if stage else x)
        return self.activate(self.mixed(x))


class CodeEncoder(CodeFeatures):
    """Convolutions of stride 2, residual blocks, and a map to the vectors that are quantised.

    Attributes:
      vectors: width D of these vectors.
    """

    vectors: int

    @nn.compact
    def __call__(self, image: Array) -> Array:
        """Int `[B, H, W, C]` to `[B, h, w, D]`."""
        return Dense(self.vectors)(self.features_of(image))


class TopEncoder(CodeNetwork):
    """From the features of the bottom level to the vectors of the top level, half its size.

    Attributes:
      vectors: width D of the vectors that are quantised.
    """

    vectors: int

    @nn.compact
    def __call__(self, features: Array) -> Array:
        """`[B, h, w, F]` to `[B, ⌈h/2⌉, ⌈w/2⌉, D]`."""
        x = Halve(2 * features.shape[-1], self.kernel)(features)
        return Dense(self.vectors)(self.activate(self.mixed(x)))


class BottomEncoder(CodeNetwork):
    """The vectors of the bottom level, from its features and the quantised top level.

    Attributes:
      vectors: width D of the vectors that are quantised.
    """

    vectors: int

    @nn.compact
    def __call__(self, features: Array, top: Array) -> Array:
        """`[B, h, w, F]` and `[B, ⌈h/2⌉, ⌈w/2⌉, D]` to `[B, h, w, D]`."""
        width = features.shape[-1]
        x = self.mixed(Same(2 * width)(top))
        x = Double(width, self.kernel, *features.shape[1:3])(self.activate(x))
        return Dense(self.vectors)(jnp.concatenate([features, self.activate(x)], axis=-1))


class CodeDecoder(CodeNetwork):
    """The encoder's mirror; it sees the quantised vectors alone.

    Attributes:
      size: raw outputs P per value.
    """

    size: int

    @nn.compact
    def __call__(self, vectors: Array) -> Array:
        """`[B, h, w, D]` to raw outputs `[B, H, W, C, P]`."""
        return self.raw_of(vectors)

    def raw_of(self, vectors: Array) -> Array:
        """The same, within a module."""
        spec = self.spec
        *larger, _ = sizes(spec.height, spec.width, self.stages)
        x = self.mixed(Same(self.features << len(larger) >> 1)(vectors))
        for stage in reversed(range(len(larger))):
            out = spec.channels * self.size if stage == 0 else self.features << stage >> 1
            x = Double(out, self.kernel, *larger[stage])(self.activate(x))
        return x.reshape(*x.shape[:-1], spec.channels, self.size)


class LevelsDecoder(CodeDecoder):
    """A decoder that sees two levels, the top enlarged beside the bottom."""

    @nn.compact
    def __call__(self, vectors: tuple[Array, Array]) -> Array:
        """`[B, ⌈h/2⌉, ⌈w/2⌉, D]` and `[B, h, w, D]` to raw outputs `[B, H, W, C, P]`."""
        top, bottom = vectors
        larger = Double(top.shape[-1], self.kernel, *bottom.shape[1:3])(top)
        return self.raw_of(jnp.concatenate([larger, bottom], axis=-1))


def last_layer(params: Mapping[str, Any]) -> str:
    """The name of a decoder's last layer among its parameters: the doubling to the image."""
    doublings = [name for name in params if name.startswith("Double_")]
    return max(doublings, key=lambda name: int(name.rpartition("_")[2]))
