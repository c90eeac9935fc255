"""RG-LRU in NumPy: each spec's `step(params, state, x) -> (state, y)`."""

import numpy as np
from numpy_functions import linear, sigmoid


def equations(c):
    def step(p, state, x):
        r, i, v = linear(p, x, "riv")
        a = sigmoid(p["lambda"]) ** (c * sigmoid(r))
        h = a * state[0] + np.sqrt(1 - a**2) * (sigmoid(i) * v)
        return (h,), h

    return step


EQUATIONS = {
    "rg_lru": equations(8.0),
    "rg_lru:c=2.0": equations(2.0),
}
