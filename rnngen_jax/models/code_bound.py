"""The bound of a model of codes, tightened by more grids of codes than the image's own.

    log p(x) >= log Σ_{c in S} p(x|c) p(c)    for any set S of distinct grids of codes

S holds the grids that cost the encoder least, summed over places: the image's own first, then those
in which a few places have the second nearest code or another that is near. It depends on the image
alone, and a larger S holds a smaller one, so the bound rises with the size of S, and is log p(x) if
S holds all grids.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from rnngen_jax.models.levels import Grids
from rnngen_jax.modules.quantisers.base import Alternatives
from rnngen_jax.ops import ranking

MOST_VALUES = 2**24  # held at once while candidates are ranked


def candidates(
    alternatives: Callable[[Array, int], tuple[Alternatives, ...]], image: Array, count: int
) -> tuple[Array, ...]:
    """The grids of codes that cost least, of each image.

    Args:
      alternatives: `alternatives(image, count)`, of the codes of each place of each level; those of
        all levels are as many.
      image: `[B, ...]`.
      count: how many at most.

    Returns:
      Of each level int32 `[S, B, h, w, depth]`, distinct ones; S is the count, or the number of all
      grids if that is less. The first are those of the encoder.
    """

    def of_one(found: tuple[Alternatives, ...]) -> tuple[Array, ...]:
        most = found[0].costs.shape[-1]
        costs = jnp.concatenate([own.costs.reshape(-1, most) for own in found])
        chosen, _ = ranking.smallest_sums(costs, count)
        grids, before = [], 0
        for indices, _ in found:
            *size, _, depth = indices.shape
            flat = indices.reshape(-1, most, depth)
            own = chosen[before : before + len(flat), :, None]
            grid = jnp.moveaxis(jnp.take_along_axis(flat, own, axis=1), 1, 0)
            grids.append(grid.reshape(-1, *size, depth))
            before += len(flat)
        return tuple(grids)

    grids = of_each(alternatives, image, count, of_one)
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), grids)


def of_each(
    alternatives: Callable[[Array, int], tuple[Alternatives, ...]],
    image: Array,
    count: int,
    function: Callable[[tuple[Alternatives, ...]], Any],
) -> Any:
    """A function of each image's alternatives, with no more images at once than memory holds.

    Args:
      alternatives, image, count: as for `candidates`.
      function: of the alternatives of one image, without an axis of images.
    """

    def of_one(image: Array) -> Any:
        found = alternatives(image[None], count)
        return function(jax.tree.map(lambda x: x[0], found))

    # Alternatives of several depths are looked for among `count` times K.
    shapes = jax.eval_shape(lambda image: alternatives(image, count), image[:1])
    held = count * sum(own.costs.size for own in shapes)
    size = min(max(1, MOST_VALUES // held), len(image))
    return jax.lax.map(of_one, image, batch_size=size)


def log_sum(log_joint: Callable[[Grids], Array], grids: Grids) -> Array:
    """log Σ p(x, c) over grids c, one after the other, `[B]` nats.

    Args:
      log_joint: `log_joint(codes)`, log p(x, c) of a grid for each image, `[B]`.
      grids: codes with an axis of grids before that of images, `[S, B, ...]`.
    """

    def add(total: Array, found: Grids) -> tuple[Array, None]:
        return jnp.logaddexp(total, log_joint(found)), None

    num = jax.tree.leaves(grids)[0].shape[1]
    return jax.lax.scan(add, jnp.full(num, -jnp.inf), grids)[0]
