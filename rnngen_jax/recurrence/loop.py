"""The plain Python loop that every other strategy is tested against."""

import jax.numpy as jnp
from jax import Array

from rnngen_jax.cells.base import Carry, Cell, Params
from rnngen_jax.recurrence.base import Sequence, Strategy, pick


def loop() -> Strategy:
    """Runs the steps one by one in Python, with nothing hoisted."""

    def run(cell: Cell, params: Params, sequence: Sequence) -> tuple[Carry, Array]:
        carry, length = sequence.carry, sequence.xs.shape[0]
        ys: list[Array | None] = [None] * length
        for t in reversed(range(length)) if sequence.reverse else range(length):
            if sequence.reset is not None:
                carry = pick(sequence.reset[t], sequence.first, carry)
            carry, ys[t] = cell.step(params, carry, cell.inputs(params, sequence.xs[t]))
        return carry, jnp.stack(ys)

    return run
