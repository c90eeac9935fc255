"""Finite scalar quantisation: each value of a vector is rounded to a few levels."""

import math

import jax.numpy as jnp
from jax import Array

from rnngen_jax.modules.quantisers.base import (
    Assigned,
    Extra,
    Params,
    Quantiser,
    Train,
    require_codes,
    require_option,
    unchanged,
)
from rnngen_jax.ops import lattices


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

    return Quantiser(len(each), codes, 1, init, assign, unchanged, decode)
