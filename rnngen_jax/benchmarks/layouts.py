"""Conversion of our parameters to the concatenated arrays of other libraries, and back.

The layout of our LSTM's and GRU's parameters is known only here.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from rnngen_jax.cells.base import Params


class Wide(NamedTuple):
    """The parameters of a layer with its n gates concatenated.

    Attributes:
      input: `[I, n H]`.
      recurrent: `[H, n H]`.
      bias: added to the product with the input, `[n H]`.
      inner_bias: the GRU's bias that the reset gate multiplies, `[H]`; `None` for an LSTM.
    """

    input: np.ndarray
    recurrent: np.ndarray
    bias: np.ndarray
    inner_bias: np.ndarray | None = None


def widen(params: Params, gates: Sequence[str]) -> Wide:
    """Concatenates the gates, in the order of `gates`."""
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
    """The recurrent product's bias for libraries that have two biases, `[n H]`.

    Where two biases are simply added, ours is the first and the second is zero. The exception is
    the GRU's candidate, which must be the last gate: the reset gate multiplies its second bias.
    """
    second = np.zeros_like(wide.bias)
    if wide.inner_bias is not None:
        second[-wide.inner_bias.size :] = wide.inner_bias
    return second


def with_second_bias(
    input: np.ndarray, recurrent: np.ndarray, first: np.ndarray, second: np.ndarray, gates: int
) -> Wide:
    """Gradients from a library with two biases: that of the first, and of the GRU's inner bias."""
    hidden = len(recurrent)
    return Wide(input, recurrent, first, second[-hidden:] if gates == 3 else None)
