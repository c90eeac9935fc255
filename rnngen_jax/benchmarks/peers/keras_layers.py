"""Keras 3 on its JAX backend: `layers.LSTM` and `layers.GRU`, through `stateless_call`."""

import contextlib
import importlib
import os
import sys
import tempfile
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
from jax import Array

from rnngen_jax.benchmarks.contenders import Contender, Layer, contender
from rnngen_jax.benchmarks.layouts import narrow, second_bias, widen, with_second_bias
from rnngen_jax.benchmarks.peers.base import batch_major, not_installed
from rnngen_jax.benchmarks.problem import Problem
from rnngen_jax.cells.base import Params
from rnngen_jax.errors import UserError

GATES = {"lstm": ("i", "f", "g", "o"), "gru": ("z", "r", "n")}


def missing() -> str | None:
    """The reason why it cannot run here: it is not installed."""
    return not_installed("keras")


def contenders(problem: Problem) -> list[Contender]:
    """Keras's layer of the problem's kind, which is batch-major, as are its inputs."""
    keras, shape, gates = _keras(), problem.shape, GATES[problem.cell]
    name = {"lstm": "LSTM", "gru": "GRU"}[problem.cell]
    layer = getattr(keras.layers, name)(shape.hidden, return_sequences=True, unroll=False)
    layer.build((shape.batch, shape.steps, shape.inputs))
    others = [variable.value for variable in layer.non_trainable_variables]

    def apply(params: Any, xs: Array) -> Array:
        return layer.stateless_call(params, others, xs)[0]

    wide = widen(problem.params, gates)
    # The GRU's two biases are rows of one array.
    bias = wide.bias if problem.cell == "lstm" else np.stack([wide.bias, second_bias(wide)])

    def gradients(found: Any) -> Params:
        input, recurrent, bias = found
        first, second = (bias, bias) if problem.cell == "lstm" else bias
        return narrow(with_second_bias(input, recurrent, first, second, len(gates)), gates)

    made = Layer(
        f"keras {name}",
        apply,
        [wide.input, wide.recurrent, bias],
        batch_major(problem.xs),
        batch_major(problem.weights),
        batch_major,
        gradients,
    )
    return [contender(made)]


def _keras() -> ModuleType:
    """Keras on its JAX backend, imported without reading or writing ~/.keras."""
    if "keras" not in sys.modules:
        with (
            tempfile.TemporaryDirectory() as folder,
            _environment(KERAS_HOME=folder, KERAS_BACKEND="jax"),
        ):
            importlib.import_module("keras")
    keras = sys.modules["keras"]
    backend = keras.backend.backend()
    if backend != "jax":
        raise UserError(f"keras's backend must be jax, got {backend}. Set KERAS_BACKEND=jax.")
    return keras


@contextlib.contextmanager
def _environment(**variables: str) -> Iterator[None]:
    """Sets environment variables temporarily."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
