"""A cell with a learned initial carry instead of zeros."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from rnngen_jax.cells.base import Carry, Cell, Inputs, Params


def learned_carry(cell: Cell) -> Cell:
    """Gives `cell` a learned initial carry, shared by all sequences and initialised to zero.

    Parameters are `{"cell": ..., "carry": {"0": ..., ...}}`, the carry's leaves in order.
    """

    def init(key: Array, in_features: int) -> Params:
        leaves = jax.tree.leaves(cell.carry((), jnp.float32))
        return {
            "cell": cell.init(key, in_features),
            "carry": {str(n): leaf for n, leaf in enumerate(leaves)},
        }

    def learned(params: Params, batch_shape: tuple[int, ...], dtype: Any) -> Carry:
        zeros, tree = jax.tree.flatten(cell.carry(batch_shape, dtype))
        values = [
            jnp.broadcast_to(params["carry"][str(n)].astype(zero.dtype), zero.shape)
            for n, zero in enumerate(zeros)
        ]
        return jax.tree.unflatten(tree, values)

    def inputs(params: Params, xs: Array) -> Inputs:
        return cell.inputs(params["cell"], xs)

    def step(params: Params, carry: Carry, z: Inputs) -> tuple[Carry, Array]:
        return cell.step(params["cell"], carry, z)

    def compose(
        run: Any, params: Params, xs: Array, first: Carry, carry: Carry
    ) -> tuple[Carry, Array]:
        return run(cell, params["cell"], xs, first, carry)

    def of_cell(f: Callable[[Params], Any] | None) -> Callable[[Params], Any] | None:
        return f and (lambda params: f(params["cell"]))

    gated = cell.gated and cell.gated._replace(
        kernels=of_cell(cell.gated.kernels),
        biases=of_cell(cell.gated.biases),
        inputs=of_cell(cell.gated.inputs),
    )
    return Cell(
        cell.features,
        init,
        cell.carry,
        inputs,
        step,
        learned=learned,
        gated=gated,
        compose=compose,
        maps=cell.maps,
        terms=cell.terms,
    )
