"""minGRU in NumPy: each spec's `step(params, state, x) -> (state, y)`."""

from numpy_functions import linear, positive, sigmoid


def equations(g):
    def step(p, state, x):
        z, n = linear(p, x, "zn")
        z = sigmoid(z)
        h = (1 - z) * state[0] + z * g(n)
        return (h,), h

    return step


EQUATIONS = {
    "min_gru": equations(lambda x: x),
    "min_gru:positive=True": equations(positive),
}
