"""Input encoding of pixel values, and the readout for them."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from rnngen_jax.config import require_choice
from rnngen_jax.modules.dense import Dense, DenseGeneral
from rnngen_jax.ops.precision import matmul
from rnngen_jax.shapes import ImageSpec

ENCODINGS = ("onehot", "scalar")

# Up to this many levels a product with one-hot rows beats a gather, whose gradient is a scatter.
_DENSE_LEVELS = 32


class PixelNetwork(nn.Module, kw_only=True):
    """Base of networks from an image's values to a distribution over each of them.

    Attributes:
      spec: the images.
      readout_size: raw outputs P per value.
      encoding: of pixel values, as in `PixelDense`.
      position: adds embeddings of the position of what is predicted.
      conditional: adds an embedding of the class.
    """

    spec: ImageSpec
    readout_size: int
    encoding: str
    position: bool
    conditional: bool


class PixelDense(nn.Module):
    """A linear map of integer pixel values; `levels` stands for a value outside the image.

    With the encoding "onehot" each of the K values has its own table of embeddings (a kernel over
    one-hot rows); with "scalar" it is mapped to [-1, 1], with a flag for being inside the image.

    Attributes:
      features: size D of the result.
      levels: grey levels L.
      encoding: "onehot" or "scalar".
    """

    features: int
    levels: int
    encoding: str

    @nn.compact
    def __call__(self, values: Array) -> Array:
        """Int `[..., K]` to `[..., D]`: the sum of the K values' embeddings."""
        count = values.shape[-1]
        outside = values == self.levels
        if self.encoding == "scalar":
            scaled = jnp.where(outside, 0.0, 2.0 * values / (self.levels - 1) - 1.0)
            flags = jnp.where(outside, 0.0, 1.0)
            kernel = self.param(
                "kernel", nn.initializers.lecun_normal(), (2 * count, self.features)
            )
            return matmul(jnp.concatenate([scaled, flags], axis=-1), kernel)

        # `count` rows are summed at a time, so that is the fan-in.
        table = self.param(
            "table",
            nn.initializers.normal(count**-0.5),
            (count, self.levels + 1, self.features),
        )
        if self.levels <= _DENSE_LEVELS:
            rows = jax.nn.one_hot(values, self.levels + 1, dtype=table.dtype)
            flat = rows.reshape(*values.shape[:-1], count * (self.levels + 1))
            return matmul(flat, table.reshape(-1, self.features))
        return sum(table[k][values[..., k]] for k in range(count))  # type: ignore[return-value]


class Table(nn.Module):
    """A learned embedding of `num` integers, such as rows, columns or classes.

    Attributes:
      num: number of integers.
      features: size D of a vector.
    """

    num: int
    features: int

    @nn.compact
    def __call__(self, index: Array) -> Array:
        """Int `[...]` to `[..., D]`."""
        scale = nn.initializers.normal(self.features**-0.5)
        return self.param("table", scale, (self.num, self.features))[index]


class Readout(nn.Module):
    """Raw likelihood parameters of a pixel's channels, each channel given the earlier ones.

        p(pixel | y) = Π_c p(x_c | y, x_0 ... x_{c-1})   (van den Oord et al. 2016, eq. 2)

    Attributes:
      size: raw outputs P per value.
      channels: C.
      levels: grey levels.
      encoding: of the earlier channels, as in `PixelDense`.
      hidden: units of a hidden layer that sees y and the earlier channels; with 0, earlier channels
        shift the raw outputs independently of y.
    """

    size: int
    channels: int
    levels: int
    encoding: str
    hidden: int = 0

    @nn.compact
    def __call__(self, y: Array, values: Array) -> Array:
        """`y [..., F]`, `values` int `[..., C]` to raw `[..., C, P]`; channel c sees values[:c]."""
        width = self.hidden or self.size
        own = () if self.hidden else (self.channels,)
        base = DenseGeneral((*own, width), name="base")(y)
        if self.hidden:
            base = base[..., None, :]
        base = jnp.broadcast_to(base, (*y.shape[:-1], self.channels, width))
        parts = [base[..., 0, :]]
        for c in range(1, self.channels):
            earlier = PixelDense(width, self.levels, self.encoding, name=f"channel_{c}")
            parts.append(base[..., c, :] + earlier(values[..., :c]))
        if self.hidden:
            parts = [
                Dense(self.size, name=f"raw_{c}")(nn.relu(part)) for c, part in enumerate(parts)
            ]
        return jnp.stack(parts, axis=-2)


def require_encoding(encoding: str) -> None:
    """Raises a `UserError` unless `encoding` is known."""
    require_choice("config.model.pixels", encoding, ENCODINGS)
