"""Layers over images as a textbook writes them: Flax's `ConvLSTMCell` and a plain scan.

They compute what our layers do, from the same parameters, each in the order of axes that suits it.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array

from rnngen_jax.cells.base import Params
from rnngen_jax.modules.grid.parts import MaskedDense
from rnngen_jax.ops import grids

GATES = ("i", "g", "f", "o")  # the order in ConvLSTMCell

Carry = tuple[Array, Array]  # of ConvLSTMCell: c, h


class Kernel(NamedTuple):
    """A recurrence's two convolutions along the places of a row or of a diagonal.

    `ConvLSTMCell` has kernels of one size for inputs and for states. Of the inputs' some places are
    not for a causal layer to see; there the kernel is zero.

    Attributes:
      size: places of a kernel.
      padding: before and after the line of places.
      taps: what our layer's kernels of the inputs are of, the pixel itself last.
      inputs: for each of these, its place in the inputs' kernel.
      states: for each part of our recurrent kernel, its place in the states'.
    """

    size: int
    padding: tuple[int, int]
    taps: grids.Taps
    inputs: tuple[int, ...]
    states: tuple[int, ...]


ROW = Kernel(3, (1, 1), ((0, -1), (0, 0)), (0, 1), (0, 1, 2))
# On the diagonal before, a place itself is the pixel to the left, the one before it that above.
DIAGONAL = Kernel(2, (1, 0), ((0, 0),), (1,), (1, 0))


class Textbook(NamedTuple):
    """A layer.

    Attributes:
      axes: its order of the axes of our maps `[H, W, B, D]`, as for `transpose`.
      params: `params(ours) -> params`, from our layer's parameters, linear but for a constant.
      apply: `apply(params, x, channels, hoisted) -> x`, on maps in its own order. With `hoisted`
        the convolution of the inputs is done before the loop, of all steps at once and without the
        places that are zero; else `ConvLSTMCell` does it, step by step.
    """

    axes: tuple[int, int, int, int]
    params: Callable[[Params], Params]
    apply: Callable[[Params, Array, int, bool], Array]


def _row_params(ours: Params) -> Params:
    return {"cell": _cell_params(ROW, ours["recurrent"]["cell"]), "out": ours["out"]}


def _rows(params: Params, x: Array, channels: int, hoisted: bool) -> Array:
    """The Row LSTM's layer, `[H, B, W, D]`."""
    cell = _masked(ROW, params["cell"], channels)
    y = _scan(ROW, cell, _convolved(ROW, cell, x) if hoisted else x, hoisted)
    return x + _out(params["out"], y, channels)


def _diagonal_params(ours: Params) -> Params:
    sides = {side: _cell_params(DIAGONAL, ours[side]) for side in ("left", "right")}
    return {**sides, "out": ours["out"]}


def _diagonals(params: Params, x: Array, channels: int, hoisted: bool) -> Array:
    """The Diagonal BiLSTM's layer, `[B, H, W, D]`."""
    left = _from_left(_masked(DIAGONAL, params["left"], channels), x, hoisted)
    right = _from_left(params["right"], x[:, :, ::-1], hoisted)[:, :, ::-1]
    # What comes from the right is taken from the row above, so that it has seen no later pixel.
    y = left + jnp.pad(right, [(0, 0), (1, 0), (0, 0), (0, 0)])[:, :-1]
    return x + _out(params["out"], y, channels)


def _from_left(cell: Params, x: Array, hoisted: bool) -> Array:
    """One direction over the diagonals of `[B, H, W, D]`."""
    height, width = x.shape[1:3]
    rows, step = np.arange(height), np.arange(height + width - 1)[:, None]
    columns = step - rows  # [T, H]: of each place on each diagonal
    inside = (columns >= 0) & (columns < width)
    x = _convolved(DIAGONAL, cell, x) if hoisted else x
    xs = jnp.moveaxis(x[:, rows, np.clip(columns, 0, width - 1)], 0, 1)  # [T, B, H, D]
    ys = _scan(DIAGONAL, cell, xs, hoisted, inside[..., None])
    rows = rows[:, None]
    return jnp.moveaxis(ys, 1, 0)[:, rows + np.arange(width), rows]


LAYERS = {
    "row_lstm": Textbook((0, 2, 1, 3), _row_params, _rows),
    "diagonal_bilstm": Textbook((2, 0, 1, 3), _diagonal_params, _diagonals),
}


class TextbookLayer(nn.Module):
    """A layer in the place of ours in a `GridNetwork`; its parameters are given, not drawn.

    Attributes:
      kind: of `LAYERS`.
      channels: C.
      hoisted: as in `Textbook`.
    """

    kind: str
    channels: int
    hoisted: bool

    def __call__(
        self, above: Array | None, x: Array, mask: Array | None = None
    ) -> tuple[Array | None, Array]:
        """Whole maps `[H, W, B, D]`."""
        layer = LAYERS[self.kind]
        params = self.variables["params"]
        y = layer.apply(params, x.transpose(layer.axes), self.channels, self.hoisted)
        return above, y.transpose(np.argsort(layer.axes))


def _cell_params(kernel: Kernel, ours: Params) -> Params:
    """`ConvLSTMCell`'s parameters: of its two biases ours is the first, less its 1 for gate f."""
    input, recurrent, bias = (
        jnp.concatenate([ours[part][gate] for gate in GATES], axis=-1)
        for part in ("input", "recurrent", "bias")
    )
    one = np.repeat([gate == "f" for gate in GATES], len(bias) // len(GATES)).astype(np.float32)
    return {
        "ih": {"kernel": _placed(input, kernel.inputs, kernel.size), "bias": bias - one},
        "hh": {
            "kernel": _placed(recurrent, kernel.states, kernel.size),
            "bias": jnp.zeros_like(bias),
        },
    }


def _masked(kernel: Kernel, params: Params, channels: int) -> Params:
    """Zeros for what a pixel's channels must not see: places, and channels of the pixel itself."""
    weights = params["ih"]["kernel"]
    _, sources, targets = weights.shape
    one = grids.tap_mask("B", channels, kernel.taps, sources, targets // len(GATES))
    mask = _placed(jnp.tile(one, len(GATES)), kernel.inputs, kernel.size)
    return {**params, "ih": {**params["ih"], "kernel": weights * mask}}


def _placed(rows: Array, places: tuple[int, ...], size: int) -> Array:
    """`[n D, G]` to a kernel `[size, D, G]`."""
    parts = rows.reshape(len(places), -1, rows.shape[-1])
    return jnp.zeros((size, *parts.shape[1:])).at[np.array(places)].set(parts)


def _convolved(kernel: Kernel, params: Params, x: Array) -> Array:
    """The inputs' convolution of all places, `[..., P, D]`, by the part of its kernel in use."""
    count, first = len(kernel.inputs), kernel.inputs[0]
    used = params["ih"]["kernel"][first : first + count]
    conv = nn.Conv(used.shape[-1], (count,), padding=((count - 1, 0),), parent=None)
    return conv.apply({"params": {**params["ih"], "kernel": used}}, x)


def _scan(
    kernel: Kernel, params: Params, xs: Array, hoisted: bool, inside: np.ndarray | None = None
) -> Array:
    """`[T, B, P, D]` to `[T, B, P, F]` for P places, from zeros; carries are zero where outside."""
    features = params["hh"]["kernel"].shape[1]
    zeros = jnp.zeros((*xs.shape[1:-1], features))
    line = {"kernel_size": (kernel.size,), "padding": (kernel.padding,), "parent": None}
    cell, conv = nn.ConvLSTMCell(features, **line), nn.Conv(4 * features, **line)

    def body(carry: Carry, step: tuple[Array, Array | None]) -> tuple[Carry, Array]:
        x, here = step
        if hoisted:
            carry = _combined(carry[0], x + conv.apply({"params": params["hh"]}, carry[1]))
        else:
            carry, _ = cell.apply({"params": params}, carry, x)
        if here is not None:
            carry = jax.tree.map(lambda leaf: jnp.where(here, leaf, 0.0), carry)
        return carry, carry[1]

    return jax.lax.scan(body, (zeros, zeros), (xs, inside))[1]


def _combined(c: Array, gates: Array) -> Carry:
    """The rest of `ConvLSTMCell`'s step."""
    i, g, f, o = jnp.split(gates, len(GATES), axis=-1)
    c = nn.sigmoid(f + 1) * c + nn.sigmoid(i) * jnp.tanh(g)
    return c, nn.sigmoid(o) * jnp.tanh(c)


def _out(params: Params, y: Array, channels: int) -> Array:
    """The 1x1 convolution to the map's width."""
    features = params["dense"]["bias"].size
    return MaskedDense(features, channels, parent=None).apply({"params": params}, y)
