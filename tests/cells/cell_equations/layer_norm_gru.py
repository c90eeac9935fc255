"""The layer-normalised GRU in NumPy: each spec's `step(params, state, x) -> (state, y)`."""

import numpy as np
from numpy_functions import layer_norm, sigmoid


def step(p, state, x):
    (h,) = state

    def products(name):
        return (
            layer_norm(x @ p["input"][name], **p["input_norm"][name]) + p["bias"][name],
            layer_norm(h @ p["recurrent"][name], **p["recurrent_norm"][name]),
        )

    z, r = np.split(sigmoid(sum(products("gates"))), 2, axis=-1)
    from_input, from_state = products("candidate")
    h = (1 - z) * h + z * np.tanh(from_input + r * from_state)
    return (h,), h


EQUATIONS = {
    "layer_norm_gru": step,
}
