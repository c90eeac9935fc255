"""One step after another in one compiled loop."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from rnngen_jax.cells.base import Carry, Cell, Params
from rnngen_jax.recurrence.base import Sequence, Strategy, pick


def sequential(*, remat: int = 0, unroll: int = 1) -> Strategy:
    """One `jax.lax.scan`.

    Args:
      remat: number of steps after which the carry is kept for the gradient; what lies between is
        computed again. About the square root of T needs the least memory. 0 keeps all.
      unroll: steps in one iteration of the compiled loop.
    """

    def run(cell: Cell, params: Params, sequence: Sequence) -> tuple[Carry, Array]:
        def body(carry: Carry, step: tuple[Any, Array | None]) -> tuple[Carry, Array]:
            z, begins = step
            if begins is not None:
                carry = pick(begins, sequence.first, carry)
            return cell.step(params, carry, z)

        def scan(carry: Carry, steps: Any) -> tuple[Carry, Array]:
            return jax.lax.scan(body, carry, steps, reverse=reverse, unroll=unroll)

        reverse, carry = sequence.reverse, sequence.carry
        steps = (cell.inputs(params, sequence.xs), sequence.reset)
        if not remat:
            return scan(carry, steps)

        # Whole chunks run in an outer scan; the odd steps left over are run last, in time's order.
        length = sequence.xs.shape[0]
        chunks = length // remat
        cut = (length - chunks * remat) if reverse else chunks * remat
        head = jax.tree.map(lambda a: a[:cut], steps)
        tail = jax.tree.map(lambda a: a[cut:], steps)
        whole, rest = (tail, head) if reverse else (head, tail)
        whole = jax.tree.map(lambda a: a.reshape(chunks, remat, *a.shape[1:]), whole)
        chunk = jax.checkpoint(scan, prevent_cse=False)
        carry, ys = jax.lax.scan(chunk, carry, whole, reverse=reverse)
        ys = ys.reshape(chunks * remat, *ys.shape[2:])
        carry, ys_rest = jax.checkpoint(scan)(carry, rest)
        return carry, jnp.concatenate([ys_rest, ys] if reverse else [ys, ys_rest])

    return run
