"""Finite scalar quantisation: each value of a vector is rounded to a few levels."""

import math

import jax.numpy as jnp
import numpy as np
from jax import Array

from rnngen_jax.modules.quantisers.base import (
    Alternatives,
    Assigned,
    Extra,
    Params,
    Quantiser,
    Train,
    require_codes,
    require_option,
    unchanged,
)
from rnngen_jax.ops import lattices, ranking


def fsq(features: int, *, levels: str = "8x5x5x5") -> Quantiser:
    """The grid of L_1 x ... x L_D points (Mentzer et al. 2023); nothing is learned, no loss added.

    Args:
      features: not read: the vectors have as many values as there are numbers of levels.
      levels: the number of levels of each value, with "x" between.

    Raises:
      UserError: no such numbers, or a number below 3 (two levels are signs: see `lfq`).
    """
    del features
    words = levels.split("x")
    fits = all(word.isascii() and word.isdigit() and 3 <= int(word) <= 2**20 for word in words)
    require_option(fits, "fsq", "levels", levels, "numbers ≥ 3 with x between, such as 8x5x5x5")
    each = tuple(map(int, words))
    codes = math.prod(each)
    require_codes("fsq", codes)

    def init(key: Array) -> tuple[Params, Extra]:
        del key
        return {}, {}

    def assign(
        params: Params, extra: Extra, z: Array, train: Train, mask: Array | None
    ) -> Assigned:
        del params, train, mask
        values = lattices.fsq(z.astype(jnp.float32), each)
        return Assigned(values, lattices.fsq_indices(values, each)[..., None], {}, extra, {})

    def decode(params: Params, extra: Extra, indices: Array) -> Array:
        del params, extra
        return lattices.fsq_values(indices[..., 0], each)

    def alternatives(
        params: Params, extra: Extra, z: Array, indices: Array, count: int
    ) -> Alternatives:
        """Sums over values of the squared distances that other levels have above the own one."""
        del params, extra
        widths = [level // 2 for level in each]
        values = lattices.fsq_bounded(z.astype(jnp.float32), each) / np.float32(widths)
        own = lattices.digits_of(indices[..., 0], each)
        parts, most = [], min(count, max(each))
        for d, levels in enumerate(each):
            grid = (np.arange(levels) - widths[d]) / np.float32(widths[d])
            far = jnp.square(values[..., d, None] - grid.astype(np.float32))
            which, costs = ranking.cheapest(far, own[..., d], count)
            missing = [(0, 0)] * (which.ndim - 1) + [(0, most - which.shape[-1])]
            parts.append((jnp.pad(which, missing), jnp.pad(costs, missing)))
        digits, costs = (jnp.stack(part) for part in zip(*parts, strict=True))
        chosen, sums = ranking.smallest_sums(costs, count, [min(count, n) for n in each])
        digits = jnp.moveaxis(jnp.take_along_axis(digits, chosen, axis=-1), 0, -1)
        return Alternatives((digits * lattices.bases(each)).sum(-1)[..., None], sums)

    return Quantiser(len(each), codes, 1, init, assign, unchanged, decode, alternatives)
