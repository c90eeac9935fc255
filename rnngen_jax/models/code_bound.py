"""The bound of a model of codes, tightened by more grids of codes than the image's own.

    log p(x) >= log Σ_{c in S} p(x|c) p(c)    for any set S of distinct grids of codes

S holds the grids that cost the encoder least, summed over places: the image's own first, then those
in which a few places have the second nearest code or another that is near. It depends on the image
alone, and a larger S holds a smaller one, so the bound rises with the size of S, and is log p(x) if
S holds all grids.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from rnngen_jax.modules.quantisers.base import Alternatives
from rnngen_jax.ops import ranking

MOST_VALUES = 2**24  # held at once while candidates are ranked


def candidates(
    alternatives: Callable[[Array, int], Alternatives], image: Array, count: int
) -> Array:
    """The grids of codes that cost least, of each image.

    Args:
      alternatives: `alternatives(image, count)`, of the codes of each place.
      image: `[B, ...]`.
      count: how many at most.

    Returns:
      int32 `[S, B, h, w, depth]`, distinct; S is the count, or the number of all grids if that is
      less. The first are those of the encoder.
    """

    def of_one(image: Array) -> Array:
        indices, costs = (x[0] for x in alternatives(image[None], count))
        height, width, most, depth = indices.shape
        chosen, _ = ranking.smallest_sums(costs.reshape(-1, most), count)
        indices = indices.reshape(-1, most, depth)
        found = jnp.take_along_axis(indices, chosen[..., None], axis=1)
        return jnp.moveaxis(found, 1, 0).reshape(-1, height, width, depth)

    # An image's alternatives of several depths are looked for among `count` times K.
    shapes = jax.eval_shape(lambda image: alternatives(image, count), image[:1])
    size = max(1, MOST_VALUES // (shapes.costs.size * count))
    return jnp.moveaxis(jax.lax.map(of_one, image, batch_size=min(size, len(image))), 0, 1)


def log_sum(log_joint: Callable[[Array], Array], grids: Array) -> Array:
    """log Σ p(x, c) over grids c, one after the other, `[B]` nats.

    Args:
      log_joint: `log_joint(codes [B, h, w, depth])`, log p(x, c) of a grid for each image.
      grids: `[S, B, h, w, depth]`.
    """

    def add(total: Array, found: Array) -> tuple[Array, None]:
        return jnp.logaddexp(total, log_joint(found)), None

    return jax.lax.scan(add, jnp.full(grids.shape[1], -jnp.inf), grids)[0]
