"""Encoders of frames to maps of features and their mirrored decoders, chosen by a spec string."""

from dataclasses import dataclass

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from rnngen_jax.config import nearest, options, require, require_at_least
from rnngen_jax.errors import UserError
from rnngen_jax.modules.dense import Dense
from rnngen_jax.modules.halving import Double, Halve
from rnngen_jax.modules.vae import sizes
from rnngen_jax.ops import patches
from rnngen_jax.shapes import ImageSpec

WHERE = "config.model.encoder"


@dataclass(frozen=True)
class Convolutions:
    """Convolutions of stride 2, and transposed ones back.

    Attributes:
      stages: number of halvings; 0 halves once, then until the shorter side is at most 7.
      features: of the largest map; each halving doubles them.
      kernel: side of the kernels, even.
    """

    stages: int = 1
    features: int = 16
    kernel: int = 4

    def __post_init__(self) -> None:
        """Checks the options."""
        require_at_least(self, WHERE, 0, "stages")
        require_at_least(self, WHERE, 1, "features")
        even = self.kernel >= 2 and self.kernel % 2 == 0
        require(even, f"{WHERE}.kernel", self.kernel, "even and ≥ 2")

    def map(self, spec: ImageSpec) -> tuple[int, int, int]:
        """Height, width and features of the encoded map.

        Raises:
          UserError: more halvings than the frames have room for.
        """
        most = min(spec.height, spec.width).bit_length() - 1
        require(self.stages <= most, f"{WHERE}.stages", self.stages, f"in [0, {most}]")
        every = sizes(spec.height, spec.width, self.stages)
        return (*every[-1], self.features << (len(every) - 2))

    def encoder(self, spec: ImageSpec) -> nn.Module:
        """A module from `[B, H, W, D]` to the map."""
        del spec
        return Halving(self.stages, self.features, self.kernel)

    def decoder(self, spec: ImageSpec, outputs: int) -> nn.Module:
        """A module from maps `[B, h, w, F]` to `[B, H, W, outputs]`."""
        return Doubling(spec, self.stages, self.features, self.kernel, outputs)


@dataclass(frozen=True)
class Patches:
    """Space to depth: square patches become the places of a map, their pixels its features.

    Attributes:
      size: side of a patch, which divides the frames' sides.
    """

    size: int = 4

    def __post_init__(self) -> None:
        """Checks the options."""
        require_at_least(self, WHERE, 1, "size")

    def map(self, spec: ImageSpec) -> tuple[int, int, int]:
        """Height, width and features of the encoded map.

        Raises:
          UserError: patches that do not cover the frames evenly.
        """
        size, fits = self.size, not (spec.height % self.size or spec.width % self.size)
        allowed = f"a divisor of the frames' sides, {spec.height} and {spec.width}"
        require(fits, f"{WHERE}.size", size, allowed)
        # Beside the values of a pixel there is a flag for being inside a frame.
        return spec.height // size, spec.width // size, (spec.channels + 1) * size * size

    def encoder(self, spec: ImageSpec) -> nn.Module:
        """A module from `[B, H, W, D]` to the map."""
        del spec
        return ToDepth(self.size)

    def decoder(self, spec: ImageSpec, outputs: int) -> nn.Module:
        """A module from maps `[B, h, w, F]` to `[B, H, W, outputs]`."""
        return FromDepth(self.size, spec.height, spec.width, outputs)


FrameCoding = Convolutions | Patches
CODINGS = {"convolutions": Convolutions, "patches": Patches}


def from_spec(spec: str) -> FrameCoding:
    """The coding that a spec string names, such as "convolutions:stages=2" or "patches:size=4".

    Raises:
      UserError: an unknown coding or option, or a value out of range.
    """
    name, _, text = spec.partition(":")
    if name not in CODINGS:
        raise UserError(f"{WHERE}={spec!r} is unknown; {nearest(name, CODINGS)}")
    return CODINGS[name](**options(CODINGS[name], f"{WHERE} {name!r}", text))


class Halving(nn.Module):
    """Convolutions of stride 2, each doubling the features, with rectifiers.

    Attributes:
      stages, features, kernel: as in `Convolutions`.
    """

    stages: int
    features: int
    kernel: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """`[B, H, W, D]` to `[B, h, w, F]`."""
        for stage, _ in enumerate(sizes(*x.shape[1:3], self.stages)[1:]):
            x = nn.relu(Halve(self.features << stage, self.kernel)(x))
        return x


class Doubling(nn.Module):
    """The mirror of `Halving`.

    Attributes:
      spec: the frames.
      stages, features, kernel: as in `Convolutions`.
      outputs: features of the result.
    """

    spec: ImageSpec
    stages: int
    features: int
    kernel: int
    outputs: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """`[B, h, w, F]` to `[B, H, W, outputs]`."""
        *larger, _ = sizes(self.spec.height, self.spec.width, self.stages)
        for stage in reversed(range(len(larger))):
            out = self.features << stage >> 1 if stage else self.outputs
            x = Double(out, self.kernel, *larger[stage])(x)
            x = nn.relu(x) if stage else x
        return x


class ToDepth(nn.Module):
    """Space to depth, without parameters.

    Attributes:
      size: side of a patch.
    """

    size: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """`[B, H, W, D]` to `[B, H / size, W / size, size² D]`."""
        batch, height, width, _ = x.shape
        steps = patches.to_steps(x, self.size, self.size)
        places = steps.reshape(height // self.size, width // self.size, batch, steps.shape[-1])
        return jnp.moveaxis(places, 2, 0)


class FromDepth(nn.Module):
    """A linear map of each place's features to the values of its patch.

    Attributes:
      size: side of a patch.
      height, width: of the result.
      outputs: features of the result.
    """

    size: int
    height: int
    width: int
    outputs: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """`[B, h, w, F]` to `[B, height, width, outputs]`."""
        raw = Dense(self.size * self.size * self.outputs)(x)
        steps = jnp.moveaxis(raw, 0, 2).reshape(-1, x.shape[0], raw.shape[-1])
        shape = (self.height, self.width, self.outputs)
        return patches.from_steps(steps, shape, self.size, self.size)
