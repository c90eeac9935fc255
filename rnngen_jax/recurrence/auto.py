"""Each cell in the way that it asks for, or that suits it."""

from jax import Array

from rnngen_jax import recurrence
from rnngen_jax.cells.base import Carry, Cell, Params
from rnngen_jax.recurrence.base import Sequence, Strategy, composed


def auto(*, unroll: int = 1) -> Strategy:
    """The cell's own strategy; for others, "associative" if linear in the carry, or "sequential".

    Args:
      unroll: for cells that are run sequentially, as there.
    """

    @composed
    def run(cell: Cell, params: Params, sequence: Sequence) -> tuple[Carry, Array]:
        if cell.strategy is not None:
            spec = cell.strategy
        elif cell.linear is not None:
            spec = "associative"
        else:
            spec = f"sequential:unroll={unroll}"
        return recurrence.from_spec(spec)(cell, params, sequence)

    return run
