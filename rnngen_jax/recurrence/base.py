"""The strategy contract: one way of running a cell over time."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from rnngen_jax.cells.base import Carry, Cell, Params


class Sequence(NamedTuple):
    """The input of a strategy.

    Attributes:
      xs: inputs, `[T, ..., D]`.
      first: the cell's own initial carry, restored by a reset.
      carry: the carry before the first step executed.
      reset: bool `[T, ...]`, true where a new sequence begins; `None` if nowhere.
      reverse: runs from the last step to the first.
    """

    xs: Array
    first: Carry
    carry: Carry
    reset: Array | None
    reverse: bool


# Returns the carry after the last step executed, and the outputs `[T, ..., F]` in time order.
Strategy = Callable[[Cell, Params, Sequence], tuple[Carry, Array]]


def pick(mask: Array, chosen: Carry, other: Carry) -> Carry:
    """`jnp.where` leaf by leaf, with a mask over the leading axes.

    Leaves of `chosen` broadcast to those of `other`.
    """

    def where(a: Array | float, b: Array) -> Array:
        return jnp.where(mask.reshape(mask.shape + (1,) * (b.ndim - mask.ndim)), a, b)

    return jax.tree.map(where, chosen, other)


def composed(strategy: Strategy) -> Strategy:
    """Extends a strategy for simple cells to composed cells.

    A stack runs layer by layer, each over the whole sequence: every layer's input product is then
    one product for many steps, and each layer may choose its own strategy.
    """

    def run(cell: Cell, params: Params, sequence: Sequence) -> tuple[Carry, Array]:
        if cell.compose is None:
            return strategy(cell, params, sequence)

        def part(
            cell: Cell, params: Params, xs: Array, first: Carry, carry: Carry
        ) -> tuple[Carry, Array]:
            return run(cell, params, sequence._replace(xs=xs, first=first, carry=carry))

        return cell.compose(part, params, sequence.xs, sequence.first, sequence.carry)

    return run


def in_chunks(
    advance: Callable[[Carry, Any], tuple[Carry, Any]],
    carry: Carry,
    steps: Any,
    size: int,
    reverse: bool,
) -> tuple[Carry, Any]:
    """Runs `advance(carry, steps [size, ...]) -> (carry, ys [size, ...])` over all chunks of time.

    Whole chunks run in one loop; the remaining steps form a last, shorter chunk in time order.

    Args:
      advance: runs one chunk of any number of steps.
      carry: the carry before the first chunk executed.
      steps: a pytree of arrays `[T, ...]`.
      size: steps per chunk, ≥ 1.
      reverse: runs from the last chunk to the first.
    """
    length = jax.tree.leaves(steps)[0].shape[0]
    count, odd = divmod(length, size)
    if count == 1 and not odd:
        return advance(carry, steps)
    cut = odd if reverse else length - odd
    head = jax.tree.map(lambda x: x[:cut], steps)
    tail = jax.tree.map(lambda x: x[cut:], steps)
    whole, rest = (tail, head) if reverse else (head, tail)
    whole = jax.tree.map(lambda x: x.reshape(count, size, *x.shape[1:]), whole)
    carry, ys = jax.lax.scan(advance, carry, whole, reverse=reverse)
    ys = jax.tree.map(lambda y: y.reshape(count * size, *y.shape[2:]), ys)
    if not odd:
        return carry, ys
    carry, last = advance(carry, rest)
    pairs = (last, ys) if reverse else (ys, last)
    return carry, jax.tree.map(lambda a, b: jnp.concatenate([a, b]), *pairs)


def chunk_steps(most: int, length: int) -> int:
    """Steps per chunk: at most `most`, and at least half that if it then divides `length`."""
    most = max(min(most, length), 1)
    even = max(n for n in range(1, most + 1) if length % n == 0)
    return even if 2 * even >= most else most


def checkpointed(strategy: Strategy, steps: int) -> Strategy:
    """Keeps only every `steps`-th carry; the backward pass rematerialises the steps between.

    Memory is that of T / steps carries plus one run over `steps` steps, so it is least at about
    the square root of T (Chen et al. 2016).
    """

    def run(cell: Cell, params: Params, sequence: Sequence) -> tuple[Carry, Array]:
        # A chunk is a loop's body or the last one: nothing can merge the two computations.
        @functools.partial(jax.checkpoint, prevent_cse=False)
        def advance(carry: Carry, chunk: tuple[Array, Array | None]) -> tuple[Carry, Array]:
            xs, reset = chunk
            return strategy(cell, params, sequence._replace(xs=xs, carry=carry, reset=reset))

        chunks = (sequence.xs, sequence.reset)
        return in_chunks(advance, sequence.carry, chunks, steps, sequence.reverse)

    return run
