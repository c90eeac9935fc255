"""The strategy contract: one way of running a cell over time."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

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
    """Picks `chosen` where the mask over the leading axes says so, else `other`, leaf by leaf.

    Leaves of `chosen` broadcast to those of `other`.
    """

    def where(a: Array | float, b: Array) -> Array:
        return jnp.where(mask.reshape(mask.shape + (1,) * (b.ndim - mask.ndim)), a, b)

    return jax.tree.map(where, chosen, other)


def composed(strategy: Strategy) -> Strategy:
    """A strategy for all cells from one for cells that are not made of others.

    A stack runs layer by layer, each over the whole sequence: every layer's input product is then
    one product for many steps, and each layer is run in the way that suits it.
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

    Whole chunks run in one loop; the odd steps left over are a last chunk, in time's order.

    Args:
      advance: runs one chunk, of any number of steps.
      carry: before the first chunk run.
      steps: a pytree of arrays `[T, ...]`.
      size: steps in a chunk, at least 1.
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
    """Steps in a chunk: at most `most`, or down to half as many to leave no odd steps over."""
    most = max(min(most, length), 1)
    even = max(n for n in range(1, most + 1) if length % n == 0)
    return even if 2 * even >= most else most


def checkpointed(strategy: Strategy, steps: int) -> Strategy:
    """Keeps the carry alone at every `steps` steps; the gradient computes again what lies between.

    Memory is that of T / steps carries and of one run over `steps` steps, so least at about the
    square root of T (Chen et al. 2016).
    """

    def run(cell: Cell, params: Params, sequence: Sequence) -> tuple[Carry, Array]:
        # The chunks are a loop's body or the last in line: nothing merges the two computations.
        @functools.partial(jax.checkpoint, prevent_cse=False)
        def advance(carry: Carry, chunk: tuple[Array, Array | None]) -> tuple[Carry, Array]:
            xs, reset = chunk
            return strategy(cell, params, sequence._replace(xs=xs, carry=carry, reset=reset))

        chunks = (sequence.xs, sequence.reset)
        return in_chunks(advance, sequence.carry, chunks, steps, sequence.reverse)

    return run
