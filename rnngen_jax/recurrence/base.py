"""The strategy contract: one way of running a cell over time."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from rnngen_jax.cells.base import Carry, Cell, Params


class Sequence(NamedTuple):
    """What a strategy runs a cell over.

    Attributes:
      xs: inputs, `[T, ..., D]`.
      first: the cell's own first carry, which a reset goes back to.
      carry: the carry before the first step run.
      reset: bool `[T, ...]`, true where the sequence begins anew; `None` for nowhere.
      reverse: runs from the last step to the first.
    """

    xs: Array
    first: Carry
    carry: Carry
    reset: Array | None
    reverse: bool


# The carry after the last step run, and the outputs `[T, ..., F]` in their places.
Strategy = Callable[[Cell, Params, Sequence], tuple[Carry, Array]]


def pick(mask: Array, chosen: Carry, other: Carry) -> Carry:
    """Picks whole carries by a mask over the batch axes."""

    def where(a: Array, b: Array) -> Array:
        return jnp.where(mask.reshape(mask.shape + (1,) * (a.ndim - mask.ndim)), a, b)

    return jax.tree.map(where, chosen, other)
