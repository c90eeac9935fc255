"""The GRU in its variants in NumPy: each spec's `step(params, state, x) -> (state, y)`."""

import numpy as np
from numpy_functions import sigmoid


def equations(variant):
    def step(p, state, x):
        (h,) = state
        w, u, b = p["input"], p["recurrent"], p["bias"]
        z = sigmoid(x @ w["z"] + h @ u["z"] + b["z"])
        r = sigmoid(x @ w["r"] + h @ u["r"] + b["r"])
        if variant == "reset_after":
            n = np.tanh(x @ w["n"] + b["n"] + r * (h @ u["n"] + b["u"]))
            h = (1 - z) * n + z * h
        elif variant == "reset_before":
            n = np.tanh(x @ w["n"] + (r * h) @ u["n"] + b["n"])
            h = (1 - z) * h + z * n
        else:
            n = np.tanh((r * h + x @ w["r"]) @ u["n"] + b["n"])
            h = (1 - z) * h + z * n
        return (h,), h

    return step


EQUATIONS = {
    "gru": equations("reset_after"),
    "gru:variant=reset_before": equations("reset_before"),
    "gru:variant=nested": equations("nested"),
}
