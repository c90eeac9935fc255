"""The layer-normalised LSTM in NumPy: each spec's `step(params, state, x) -> (state, y)`."""

import numpy as np
from numpy_functions import layer_norm, sigmoid


def step(p, state, x):
    h, c = state
    a = layer_norm(h @ p["recurrent"], **p["recurrent_norm"])
    a = a + layer_norm(x @ p["input"], **p["input_norm"]) + p["bias"]
    f, i, o, g = np.split(a, 4, axis=-1)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    h = sigmoid(o) * np.tanh(layer_norm(c, **p["memory_norm"]))
    return (h, c), h


EQUATIONS = {
    "layer_norm_lstm": step,
}
