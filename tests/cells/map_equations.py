"""Cells over maps in NumPy, place by place: each spec's `step(params, state, x) -> (state, y)`.

States are tuples of the carry's leaves in order, x is `[B, H, W, D]`.
"""

import numpy as np
from numpy_functions import sigmoid

LAYERS = 3  # of ST-LSTM


def convolution(maps, kernel):
    """`[B, H, W, D]` with `[K² D, F]`, a sum over the places around each one that are inside."""
    batch, height, width, depth = maps.shape
    side = round((len(kernel) / depth) ** 0.5)
    taps, reach = kernel.reshape(side, side, depth, -1), side // 2
    out = np.zeros((batch, height, width, kernel.shape[-1]))
    for row, column in np.ndindex(height, width):
        for i, j in np.ndindex(side, side):
            r, c = row + i - reach, column + j - reach
            if 0 <= r < height and 0 <= c < width:
                out[:, row, column] += maps[:, r, c] @ taps[i, j]
    return out


def of_input(p, x):
    return {g: convolution(x, w) + p["bias"][g] for g, w in p["input"].items()}


def conv_lstm(p, state, x):
    """Shi et al. 2015, eq. 3."""
    h, c = state
    peephole = p.get("peephole", dict.fromkeys("ifo", 0.0))
    a = of_input(p, x)
    a = {g: a[g] + convolution(h, p["recurrent"][g]) for g in a}
    i = sigmoid(a["i"] + peephole["i"] * c)
    f = sigmoid(a["f"] + peephole["f"] * c)
    c = f * c + i * np.tanh(a["g"])
    h = sigmoid(a["o"] + peephole["o"] * c) * np.tanh(c)
    return (h, c), h


def conv_gru(p, state, x):
    """Ballas et al. 2016, eqs. 7-10."""
    (h,) = state
    a, u = of_input(p, x), p["recurrent"]
    z = sigmoid(a["z"] + convolution(h, u["z"]))
    r = sigmoid(a["r"] + convolution(h, u["r"]))
    n = np.tanh(a["n"] + convolution(r * h, u["n"]))
    h = (1 - z) * h + z * n
    return (h,), h


def st_lstm(p, state, x):
    """Wang et al. 2017, eq. 4, with the order in which its memory M passes through the layers."""
    hs, cs, m = state[:LAYERS], state[LAYERS:-1], state[-1]
    new_hs, new_cs, cosines = [], [], []
    for layer in range(LAYERS):
        q, c = p[str(layer)], cs[layer]
        a, v = of_input(q, x), q["memory"]
        of_h = {g: convolution(hs[layer], u) for g, u in q["recurrent"].items()}
        i, f = (sigmoid(a[g] + of_h[g]) for g in "if")
        g = np.tanh(a["g"] + of_h["g"])
        i_m, f_m = (sigmoid(a[k] + convolution(m, v[k])) for k in ("i_m", "f_m"))
        g_m = np.tanh(a["g_m"] + convolution(m, v["g_m"]))
        c, m = f * c + i * g, f_m * m + i_m * g_m
        both = np.concatenate([c, m], axis=-1)
        o = sigmoid(a["o"] + of_h["o"] + convolution(both, q["output"]))
        x = o * np.tanh(both @ q["last"])
        new_hs.append(x)
        new_cs.append(c)
        if "adapter" in p:
            cosines.append(cosine(i * g @ p["adapter"], i_m * g_m @ p["adapter"]))
    y = x
    if cosines:
        term = np.broadcast_to(np.mean(cosines, axis=0)[:, None, None, None], (*x.shape[:-1], 1))
        y = np.concatenate([x, term], axis=-1)
    return (*new_hs, *new_cs, m), y


def cosine(a, b):
    """|cos| of each feature's map, mean over features, `[B]`."""
    a, b = (np.moveaxis(x, -1, 1).reshape(len(x), x.shape[-1], -1) for x in (a, b))
    norms = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return np.abs((a * b).sum(-1) / norms).mean(-1)


def gru(p, state, x):
    """The GRU with the reset gate after the product, all products convolved."""
    (h,) = state
    a, u = of_input(p, x), p["recurrent"]
    z, r = (sigmoid(a[g] + convolution(h, u[g])) for g in "zr")
    n = np.tanh(a["n"] + r * (convolution(h, u["n"]) + p["bias"]["u"]))
    h = (1 - z) * n + z * h
    return (h,), h


def rnn(p, state, x):
    h = np.tanh(convolution(x, p["input"]) + convolution(state[0], p["recurrent"]) + p["bias"])
    return (h,), h


def min_gru(p, state, x):
    a = of_input(p, x)
    z = sigmoid(a["z"])
    h = (1 - z) * state[0] + z * a["n"]
    return (h,), h


EQUATIONS = {
    "conv_lstm": conv_lstm,
    "conv_lstm:peepholes=True": conv_lstm,
    "lstm": conv_lstm,
    "conv_gru": conv_gru,
    "st_lstm": st_lstm,
    "st_lstm:decoupling=True": st_lstm,
    "gru": gru,
    "rnn": rnn,
    "min_gru": min_gru,
}
