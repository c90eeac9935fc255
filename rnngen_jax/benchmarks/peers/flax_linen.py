"""Flax Linen: `nn.RNN` with each of its LSTM and GRU cells."""

from typing import Any

import jax
import numpy as np
from flax import linen as nn
from jax import Array

from rnngen_jax.benchmarks.contenders import Contender, Layer, contender
from rnngen_jax.benchmarks.problem import Problem
from rnngen_jax.cells.base import Params

CELLS = {"lstm": ("LSTMCell", "OptimizedLSTMCell"), "gru": ("GRUCell",)}
GATES = {"lstm": ("i", "f", "g", "o"), "gru": ("r", "z", "n")}


def missing() -> None:
    """`None`: Flax is always installed."""
    return None


def contenders(problem: Problem) -> list[Contender]:
    """Flax's cells of the problem's kind."""
    return [contender(layer) for layer in layers(problem)]


def layers(problem: Problem) -> list[Layer]:
    """The same, not yet compiled."""
    return [_layer(problem, name) for name in CELLS[problem.cell]]


def _layer(problem: Problem, name: str) -> Layer:
    rnn = nn.RNN(getattr(nn, name)(problem.shape.hidden), time_major=True)

    def apply(params: Any, xs: Array) -> Array:
        return rnn.apply({"params": {"cell": params}}, xs)

    return Layer(
        f"flax {name}",
        apply,
        _to_flax(problem),
        problem.xs,
        problem.weights,
        np.asarray,
        lambda gradient: _from_flax(problem.cell, gradient),
    )


def _to_flax(problem: Problem) -> dict[str, dict[str, np.ndarray]]:
    """Our parameters in Flax's layout: kernels `i*` for the input and `h*` for the hidden state.

    The LSTM has its biases beside the kernels `h*`, the GRU beside `i*`, except for the candidate's
    inner bias.
    """
    params, gates = problem.params, GATES[problem.cell]
    flax: dict[str, dict[str, np.ndarray]] = {}
    for gate in gates:
        flax[f"i{gate}"] = {"kernel": params["input"][gate]}
        flax[f"h{gate}"] = {"kernel": params["recurrent"][gate]}
        side = "h" if problem.cell == "lstm" else "i"
        flax[f"{side}{gate}"]["bias"] = params["bias"][gate]
    if problem.cell == "gru":
        flax["hn"]["bias"] = params["bias"]["u"]
    return flax


def _from_flax(cell: str, flax: Any) -> Params:
    flax = jax.tree.map(np.asarray, flax)
    side = "h" if cell == "lstm" else "i"
    params = {
        "input": {gate: flax[f"i{gate}"]["kernel"] for gate in GATES[cell]},
        "recurrent": {gate: flax[f"h{gate}"]["kernel"] for gate in GATES[cell]},
        "bias": {gate: flax[f"{side}{gate}"]["bias"] for gate in GATES[cell]},
    }
    if cell == "gru":
        params["bias"]["u"] = flax["hn"]["bias"]
    return params
