"""The default strategy, chosen by cell."""

from jax import Array

from rnngen_jax import recurrence
from rnngen_jax.cells.base import Carry, Cell, Params
from rnngen_jax.recurrence.base import Sequence, Strategy, composed


def auto(*, unroll: int = 0) -> Strategy:
    """Strategy "associative" for cells linear in the carry, "sequential" for all others.

    Args:
      unroll: as for `sequential`.
    """

    @composed
    def run(cell: Cell, params: Params, sequence: Sequence) -> tuple[Carry, Array]:
        spec = f"sequential:unroll={unroll}" if cell.linear is None else "associative"
        return recurrence.from_spec(spec)(cell, params, sequence)

    return run
