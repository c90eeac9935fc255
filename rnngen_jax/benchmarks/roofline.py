"""The least time that an LSTM or a GRU can take: what the machine's arithmetic and memory allow.

    roofline = parallel operations / peak
        + T max(a step's operations / peak, weight bytes / bandwidth)

A step's products wait for the step before, so what cannot leave the time loop reads the recurrent
weights anew in each step. Elementwise work counts as free.
"""

from rnngen_jax.benchmarks.machine import Machine, cache_bandwidth
from rnngen_jax.benchmarks.problem import Shape

GATES = {"lstm": 4, "gru": 3}
_BYTES = 4  # of a float32


def seconds(cell: str, shape: Shape, machine: Machine, *, gradient: bool) -> float:
    """The roofline of a forward pass, or of a parameter gradient, which includes one.

    The operations are, for n gates, `2 n B H` times: forwards `I` a step that needs no loop and `H`
    in the loop; for the gradient the same again for the weights, none of it in the loop, and `H` in
    the loop for the hidden state's gradient. Inputs get no gradient.

    Args:
      cell: "lstm" or "gru".
      shape: the sizes.
      machine: its peak; the bandwidth is that of an array of the weights' size. Only on a CPU: a
        GPU or a TPU may keep the weights in registers or local memory, so no read is counted.
      gradient: whether it is the gradient's roofline.
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
