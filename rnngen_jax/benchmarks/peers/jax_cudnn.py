"""cuDNN's LSTM through `jax.experimental.rnn`, on an NVIDIA GPU."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from rnngen_jax.benchmarks.contenders import Contender, Layer, contender
from rnngen_jax.benchmarks.layouts import Wide, narrow, second_bias, widen
from rnngen_jax.benchmarks.peers.base import batch_major
from rnngen_jax.benchmarks.problem import Problem, Shape
from rnngen_jax.cells.base import Params

GATES = ("i", "f", "g", "o")


def missing() -> str | None:
    """The reason why it cannot run here: there is no NVIDIA GPU."""
    device = jax.devices()[0]
    if device.platform == "gpu" and "NVIDIA" in device.device_kind:
        return None
    return "jax.experimental.rnn needs an NVIDIA GPU"


def contenders(problem: Problem) -> list[Contender]:
    """The LSTM, which is batch-major; cuDNN's GRU is not available from JAX."""
    if problem.cell != "lstm":
        return []
    from jax.experimental import rnn

    shape = problem.shape

    def apply(weights: Array, xs: Array) -> Array:
        zeros = jnp.zeros((1, shape.batch, shape.hidden))
        return rnn.lstm(
            xs,
            zeros,
            zeros,
            weights,
            jnp.full((shape.batch,), shape.steps, jnp.int32),
            shape.inputs,
            shape.hidden,
            1,  # layers
            0.0,  # dropout
            False,  # bidirectional
            jax.lax.Precision.HIGHEST,  # float32, not TF32
        )[0]

    made = Layer(
        "cudnn LSTM",
        apply,
        flatten(problem.params),
        batch_major(problem.xs),
        batch_major(problem.weights),
        batch_major,
        lambda gradient: unflatten(gradient, shape),
    )
    return [contender(made)]


def flatten(params: Params) -> np.ndarray:
    """Our parameters as cuDNN's flat array: input and recurrent weights, first and second bias."""
    wide = widen(params, GATES)
    arrays = (wide.input.T, wide.recurrent.T, wide.bias, second_bias(wide))
    return np.concatenate([array.ravel() for array in arrays])


def unflatten(flat: np.ndarray, shape: Shape) -> Params:
    """Converts a gradient with respect to `flatten`'s array to our layout, with the first bias."""
    _, _, inputs, hidden = shape
    wide = 4 * hidden
    sizes = np.cumsum([wide * inputs, wide * hidden, wide])
    input, recurrent, bias, _ = np.split(np.asarray(flat), sizes)
    return narrow(
        Wide(input.reshape(wide, inputs).T, recurrent.reshape(wide, hidden).T, bias), GATES
    )
