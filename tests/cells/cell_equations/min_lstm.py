"""minLSTM in NumPy: each spec's `step(params, state, x) -> (state, y)`."""

from numpy_functions import linear, positive, sigmoid


def equations(g):
    def step(p, state, x):
        f, i, n = linear(p, x, "fin")
        f, i = sigmoid(f), sigmoid(i)
        h = f / (f + i) * state[0] + i / (f + i) * g(n)
        return (h,), h

    return step


EQUATIONS = {
    "min_lstm": equations(lambda x: x),
    "min_lstm:positive=True": equations(positive),
}
