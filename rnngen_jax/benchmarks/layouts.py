"""Our parameters as the wide arrays that other libraries have, and back.

This is the one place that knows how our LSTM and GRU lay out their parameters.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from rnngen_jax.cells.base import Params


class Wide(NamedTuple):
    """A layer with n gates side by side.

    Attributes:
      input: `[I, n H]`.
      recurrent: `[H, n H]`.
      bias: added to the input's product, `[n H]`.
      inner_bias: the GRU's bias inside the reset gate's product, `[H]`; `None` for an LSTM.
    """

    input: np.ndarray
    recurrent: np.ndarray
    bias: np.ndarray
    inner_bias: np.ndarray | None = None


def widen(params: Params, gates: Sequence[str]) -> Wide:
    """Puts the gates side by side, in the order of `gates`."""
    input, recurrent, bias = (
        np.concatenate([np.asarray(params[part][gate]) for gate in gates], axis=-1)
        for part in ("input", "recurrent", "bias")
    )
    inner = params["bias"].get("u")
    return Wide(input, recurrent, bias, None if inner is None else np.asarray(inner))


def narrow(wide: Wide, gates: Sequence[str]) -> Params:
    """Undoes `widen`."""

    def split(array: Any) -> dict[str, np.ndarray]:
        parts = np.split(np.asarray(array), len(gates), axis=-1)
        return dict(zip(gates, parts, strict=True))

    params = {
        "input": split(wide.input),
        "recurrent": split(wide.recurrent),
        "bias": split(wide.bias),
    }
    if wide.inner_bias is not None:
        params["bias"]["u"] = np.asarray(wide.inner_bias)
    return params


def second_bias(wide: Wide) -> np.ndarray:
    """The bias of the recurrent product for libraries that have two, `[n H]`.

    Two biases that are only added are one: ours stands in the first, the second is zero, but for
    the GRU's candidate, whose second bias is inside the reset gate's product. The candidate must
    be the last gate.
    """
    second = np.zeros_like(wide.bias)
    if wide.inner_bias is not None:
        second[-wide.inner_bias.size :] = wide.inner_bias
    return second


def with_second_bias(
    input: np.ndarray, recurrent: np.ndarray, first: np.ndarray, second: np.ndarray, gates: int
) -> Wide:
    """Gradients of a library with two biases: ours is the first one's, and the GRU's inner one."""
    hidden = len(recurrent)
    return Wide(input, recurrent, first, second[-hidden:] if gates == 3 else None)
