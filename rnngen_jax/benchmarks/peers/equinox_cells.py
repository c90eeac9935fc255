"""Equinox: its LSTM and GRU cells, vmapped over the batch, in `jax.lax.scan`."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from rnngen_jax.benchmarks.contenders import Contender, Layer, contender
from rnngen_jax.benchmarks.layouts import Wide, narrow, widen
from rnngen_jax.benchmarks.peers.base import not_installed
from rnngen_jax.benchmarks.problem import Problem
from rnngen_jax.cells.base import Params

GATES = {"lstm": ("i", "f", "g", "o"), "gru": ("r", "z", "n")}


def missing() -> str | None:
    """The reason why it cannot run here: it is not installed."""
    return not_installed("equinox")


def contenders(problem: Problem) -> list[Contender]:
    """Equinox's cell of the problem's kind."""
    return [contender(layer) for layer in layers(problem)]


def layers(problem: Problem) -> list[Layer]:
    """The same, not yet compiled."""
    import equinox

    shape, gates = problem.shape, GATES[problem.cell]
    name = {"lstm": "LSTMCell", "gru": "GRUCell"}[problem.cell]
    cell = getattr(equinox.nn, name)(shape.inputs, shape.hidden, key=jax.random.key(0))
    wide = widen(problem.params, gates)
    arrays: tuple[Any, ...] = (wide.input.T, wide.recurrent.T, wide.bias)
    if problem.cell == "gru":
        arrays += (wide.inner_bias,)

    def parts(cell: Any) -> tuple[Any, ...]:
        own = (cell.weight_ih, cell.weight_hh, cell.bias)
        return (*own, cell.bias_n) if problem.cell == "gru" else own

    def apply(cell: Any, xs: Array) -> Array:
        def step(state: Any, x: Array) -> tuple[Any, Array]:
            state = jax.vmap(cell)(x, state)
            return state, state[0] if problem.cell == "lstm" else state

        zeros = jnp.zeros((shape.batch, shape.hidden))
        return jax.lax.scan(step, (zeros, zeros) if problem.cell == "lstm" else zeros, xs)[1]

    def gradients(found: Any) -> Params:
        input, recurrent, *biases = (np.asarray(array) for array in parts(found))
        return narrow(Wide(input.T, recurrent.T, *biases), gates)

    made = Layer(
        f"equinox {name}",
        apply,
        equinox.tree_at(parts, cell, arrays),
        problem.xs,
        problem.weights,
        np.asarray,
        gradients,
    )
    return [made]
