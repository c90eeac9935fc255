"""The Elman network in NumPy: each spec's `step(params, state, x) -> (state, y)`."""

import numpy as np


def equations(f):
    def step(p, state, x):
        h = f(x @ p["input"] + state[0] @ p["recurrent"] + p["bias"])
        return (h,), h

    return step


EQUATIONS = {
    "rnn": equations(np.tanh),
    "rnn:activation=relu": equations(lambda x: np.maximum(x, 0)),
}
