"""Stacked cells as one cell."""

from collections.abc import Sequence
from typing import Any

import jax
from jax import Array

from rnngen_jax.cells.base import Carry, Cell, Inputs, Params, initial_carry


def stack(cells: Sequence[Cell], *, residual: bool = False) -> Cell:
    """Stacks cells: each cell's outputs are the next one's inputs; y is the last cell's output.

    Parameters are `{"0": ..., "1": ...}` from the bottom up; the carry is a tuple of
    the cells' carries.

    Args:
      cells: from the bottom up, at least one.
      residual: adds each cell's inputs to its outputs, except for the first cell (He et al. 2016,
        eq. 1); all cells must have the same number of features.

    Raises:
      ValueError: no cells, or residual connections between unequal features.
    """
    cells = tuple(cells)
    if not cells:
        raise ValueError("a stack needs at least one cell")
    if residual and len({cell.features for cell in cells}) > 1:
        raise ValueError("residual connections need cells with the same number of features")
    bottom, names = cells[0], [str(n) for n in range(len(cells))]

    def init(key: Array, in_features: int) -> Params:
        widths = [in_features, *(cell.features for cell in cells[:-1])]
        keys = jax.random.split(key, len(cells))
        return {
            name: cell.init(k, width)
            for name, cell, k, width in zip(names, cells, keys, widths, strict=True)
        }

    def carry(batch_shape: tuple[int, ...], dtype: Any) -> Carry:
        return tuple(cell.carry(batch_shape, dtype) for cell in cells)

    def learned(params: Params, batch_shape: tuple[int, ...], dtype: Any) -> Carry:
        return tuple(
            initial_carry(cell, params[name], batch_shape, dtype)
            for name, cell in zip(names, cells, strict=True)
        )

    def inputs(params: Params, xs: Array) -> Inputs:
        return bottom.inputs(params["0"], xs)

    def step(params: Params, carry: Carry, z: Inputs) -> tuple[Carry, Array]:
        first, y = bottom.step(params["0"], carry[0], z)
        carries = [first]
        for name, cell, below in zip(names[1:], cells[1:], carry[1:], strict=True):
            above, out = cell.step(params[name], below, cell.inputs(params[name], y))
            carries.append(above)
            y = y + out if residual else out
        return tuple(carries), y

    def compose(
        run: Any, params: Params, xs: Array, first: Carry, carry: Carry
    ) -> tuple[Carry, Array]:
        carries, ys = [], xs
        for n, (name, cell) in enumerate(zip(names, cells, strict=True)):
            last, out = run(cell, params[name], ys, first[n], carry[n])
            carries.append(last)
            ys = ys + out if residual and n > 0 else out
        return tuple(carries), ys

    has_learned = any(cell.learned is not None for cell in cells)
    return Cell(
        cells[-1].features,
        init,
        carry,
        inputs,
        step,
        learned=learned if has_learned else None,
        compose=compose,
        maps=any(cell.maps for cell in cells),
    )
