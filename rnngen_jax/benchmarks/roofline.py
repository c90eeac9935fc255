"""Roofline of an LSTM or a GRU: the shortest time that arithmetic and memory bandwidth allow.

    roofline = parallel operations / peak
        + T max(a step's operations / peak, weight bytes / bandwidth)

A step's recurrent products need the previous step, so the loop reads the recurrent weights again in
every step. Elementwise work is counted as free.
"""

from rnngen_jax.benchmarks.machine import Machine, cache_bandwidth
from rnngen_jax.benchmarks.problem import Shape

GATES = {"lstm": 4, "gru": 3}
_BYTES = 4  # of a float32


def seconds(cell: str, shape: Shape, machine: Machine, *, gradient: bool) -> float:
    """The roofline in seconds of a forward pass, or of a parameter gradient, which includes one.

    With n gates, a step takes `2 n B H` times the following: forwards, `I` operations outside the
    loop and `H` in it; for the gradient, another `I + H` outside it for the weights, and `H` in it
    for the hidden state's gradient. Inputs get no gradient.

    Args:
      cell: "lstm" or "gru".
      shape: the sizes.
      machine: gives the peak rate. On a CPU the bandwidth is that for an array of the weights'
        size; a GPU or a TPU may keep the weights in registers or local memory, so there reading
        them is not counted.
      gradient: whether to give the gradient's roofline.
    """
    steps, batch, inputs, hidden = shape
    per_feature = 2 * GATES[cell] * batch * hidden
    in_loop = per_feature * hidden
    parallel = per_feature * inputs * steps
    loops = 1
    if gradient:
        parallel += per_feature * (inputs + hidden) * steps
        loops = 2
    step = in_loop / machine.flops
    if machine.platform == "cpu":
        weights = _BYTES * GATES[cell] * hidden**2
        step = max(step, weights / cache_bandwidth(weights))
    return parallel / machine.flops + loops * steps * step
