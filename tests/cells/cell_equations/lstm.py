"""The LSTM in NumPy: each spec's `step(params, state, x) -> (state, y)`."""

import numpy as np
from numpy_functions import sigmoid


def step(p, state, x):
    h, c = state
    a = {g: x @ p["input"][g] + h @ p["recurrent"][g] + p["bias"][g] for g in "ifgo"}
    c = sigmoid(a["f"]) * c + sigmoid(a["i"]) * np.tanh(a["g"])
    h = sigmoid(a["o"]) * np.tanh(c)
    return (h, c), h


EQUATIONS = {
    "lstm": step,
    "lstm:forget_bias=-0.5": step,
}
