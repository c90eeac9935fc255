"""Building blocks of the layers over pixels."""

import jax
import numpy as np
from flax import linen as nn
from jax import Array

from rnngen_jax.modules.pixels import PixelDense
from rnngen_jax.ops import grids
from rnngen_jax.ops.grids import Taps
from rnngen_jax.ops.products import plus_bias, product


class GridLayer(nn.Module, kw_only=True):
    """Base of the layers over pixels: sizes of the map, and the projection back to its width.

    Attributes:
      width: features D of the map.
      columns: W.
      channels: C.
      residual: adds the layer's input to its output.
    """

    width: int
    columns: int
    channels: int
    residual: bool = True

    def setup(self) -> None:
        """Declares the projection; subclasses add their own layers."""
        self.out = MaskedDense(self.width, self.channels)

    def project(self, x: Array, y: Array) -> Array:
        """The layer's output `[..., D]` from its input `x [..., D]` and features `y [..., F]`."""
        return x + self.out(y) if self.residual else self.out(y)


class MaskedDense(nn.Module):
    """A linear map of a pixel's features: a 1x1 convolution with mask B.

    Attributes:
      features: F.
      channels: groups of features.
    """

    features: int
    channels: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """`[..., D]` to `[..., F]`."""
        return TapDense(self.features, self.channels, ((0, 0),), name="dense")(x)


class TapDense(nn.Module):
    """A linear map of a pixel's taps: a convolution, with mask B at the pixel itself.

    Attributes:
      features: F.
      channels: groups of features.
      taps: K positions, as row and column offsets.
      parts: number of parts of the F features, each with its own groups; 2 for a gated unit.
    """

    features: int
    channels: int
    taps: Taps
    parts: int = 1

    @nn.compact
    def __call__(self, seen: Array) -> Array:
        """`[..., K · D]`, as from `grids.gather`, to `[..., F]`."""
        sources = seen.shape[-1] // len(self.taps)
        part = self.features // self.parts
        mask = grids.tap_mask("B", self.channels, self.taps, sources, part)
        kernel = _masked_kernel(self, np.tile(mask, self.parts))
        return plus_bias(product(seen, kernel), _bias(self, self.features))


class FirstConv(nn.Module):
    """The first convolution, with mask A, of the pixels' values.

    Attributes:
      features: D.
      channels: C.
      levels: grey levels.
      encoding: of values, as in `PixelDense`.
    """

    features: int
    channels: int
    levels: int
    encoding: str

    @nn.compact
    def __call__(self, context: Array, own: Array) -> Array:
        """Int `[..., K · C]`, `levels` outside the image, and the pixel's own `[..., C]`."""
        x = PixelDense(self.features, self.levels, self.encoding, name="before")(context)
        for channel in range(self.channels - 1):
            seen = grids.channel_mask("A", self.channels, self.channels, self.features)[channel]
            values = own[..., channel : channel + 1]
            part = PixelDense(self.features, self.levels, self.encoding, name=f"own_{channel}")
            x = x + part(values) * seen
        return plus_bias(x, _bias(self, self.features))


class Head(nn.Module):
    """Raw likelihood parameters of a pixel's channels (van den Oord et al. 2016, table 1).

    Attributes:
      channels: C.
      size: raw outputs P per value.
      hidden: units of a hidden layer, 0 for none.
    """

    channels: int
    size: int
    hidden: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """`[..., D]` to `[..., C, P]`."""
        if self.hidden:
            x = MaskedDense(self.hidden, self.channels, name="hidden")(nn.relu(x))
        raw = MaskedDense(self.channels * self.size, self.channels, name="raw")(nn.relu(x))
        return raw.reshape(*x.shape[:-1], self.channels, self.size)


def _masked_kernel(module: nn.Module, mask: np.ndarray) -> Array:
    """A kernel `[D, F]` that is zero where the mask is, initialised by the remaining fan-in."""
    normal = jax.nn.initializers.lecun_normal()
    scale = np.sqrt(len(mask) / np.maximum(mask.sum(0), 1.0))
    kernel = module.param("kernel", lambda key, shape: normal(key, shape) * scale, mask.shape)
    return kernel if mask.all() else kernel * mask


def _bias(module: nn.Module, features: int) -> Array:
    return module.param("bias", nn.initializers.zeros, (features,))
