"""The Elman network in NumPy: each spec's `step(params, state, x) -> (state, y)`."""

import numpy as np


def equations(f):
    def step(p, state, x):
        h = f(x @ p["input"] + state[0] @ p["recurrent"] + p["bias"])
        return (h,), h

    return step


def without_memory(p, state, x):
    h = np.tanh(x @ p["input"] + p["bias"])
    return (h,), h


EQUATIONS = {
    "rnn": equations(np.tanh),
    "rnn:activation=relu": equations(lambda x: np.maximum(x, 0)),
    "rnn:recurrent=False": without_memory,
}
