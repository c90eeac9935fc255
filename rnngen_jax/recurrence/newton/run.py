"""The problem to solve: a sequence in order of execution, with carries as single arrays."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from rnngen_jax.recurrence.base import pick


class Run(NamedTuple):
    """A `Sequence` with time forwards and carries as vectors.

    Attributes:
      xs: inputs, `[T, ..., D]`.
      reset: bool `[T, ...]`, or `None`.
      first: the state restored by a reset, `[..., S]`.
      carry: the state before the first step, `[..., S]`.
    """

    xs: Array
    reset: Array | None
    first: Array
    carry: Array

    def part(self, start: Array, length: int, carry: Array) -> "Run":
        """The steps from `start` on, which follow the state `carry`."""
        cut = functools.partial(jax.lax.dynamic_slice_in_dim, start_index=start, slice_size=length)
        return Run(*jax.tree.map(cut, (self.xs, self.reset)), self.first, carry)

    def before(self, states: Array) -> Array:
        """The state that each step sees, from those after each step, `[T, ..., S]`."""
        return self.cut(jnp.concatenate([self.carry[None], states[:-1]]), self.first)

    def cut(self, values: Array, other: Array | float = 0.0) -> Array:
        """`values [T, ...]`, with `other` at resets."""
        return values if self.reset is None else pick(self.reset, other, values)
