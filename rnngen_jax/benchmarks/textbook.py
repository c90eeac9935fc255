"""Textbook implementations of layers over images: Flax's `ConvLSTMCell` in a plain scan.

They compute the same as our layers from the same parameters, each in its preferred axis order.
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
    """A recurrence's two convolutions along a row or a diagonal.

    `ConvLSTMCell` has kernels of the same size for inputs and states. Where a causal layer must not
    see an input, the kernel is zero.

    Attributes:
      size: the kernels' size.
      padding: before and after the row or diagonal.
      taps: the taps of our layer's input kernel, the pixel itself last.
      inputs: for each of these, its position in the input kernel.
      states: for each part of our recurrent kernel, its position in the state kernel.
    """

    size: int
    padding: tuple[int, int]
    taps: grids.Taps
    inputs: tuple[int, ...]
    states: tuple[int, ...]


ROW = Kernel(3, (1, 1), ((0, -1), (0, 0)), (0, 1), (0, 1, 2))
# On the previous diagonal, the same position is the pixel to the left, the position before it the
# pixel above.
DIAGONAL = Kernel(2, (1, 0), ((0, 0),), (1,), (1, 0))


class Textbook(NamedTuple):
    """A textbook layer.

    Attributes:
      axes: its order of the axes of our maps `[H, W, B, D]`, as for `transpose`.
      params: `params(ours) -> params`, an affine map of our layer's parameters.
      apply: `apply(params, x, channels, hoisted) -> x`, on maps in its own axis order. With
        `hoisted`, the inputs of all steps are convolved before the loop, without the parts of the
        kernel that are zero; otherwise `ConvLSTMCell` does it step by step.
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
    # The direction from the right is taken from the row above, so it has seen no later pixel.
    y = left + jnp.pad(right, [(0, 0), (1, 0), (0, 0), (0, 0)])[:, :-1]
    return x + _out(params["out"], y, channels)


def _from_left(cell: Params, x: Array, hoisted: bool) -> Array:
    """One direction over the diagonals of `[B, H, W, D]`."""
    height, width = x.shape[1:3]
    rows, step = np.arange(height), np.arange(height + width - 1)[:, None]
    columns = step - rows  # [T, H]: the column of each row on each diagonal
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
    """Replaces our layer in a `GridNetwork`; it takes parameters but does not initialise them.

    Attributes:
      kind: a key of `LAYERS`.
      channels: C.
      hoisted: as in `Textbook`.
    """

    kind: str
    channels: int
    hoisted: bool

    def __call__(
        self, above: Array | None, x: Array, mask: Array | None = None
    ) -> tuple[Array | None, Array]:
        """Applies the layer to whole maps `[H, W, B, D]`."""
        layer = LAYERS[self.kind]
        params = self.variables["params"]
        y = layer.apply(params, x.transpose(layer.axes), self.channels, self.hoisted)
        return above, y.transpose(np.argsort(layer.axes))


def _cell_params(kernel: Kernel, ours: Params) -> Params:
    """`ConvLSTMCell`'s parameters: our bias is the first of its two, minus the 1 it adds for f."""
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
    """Zeroes the input weights that a pixel's channels must not have."""
    weights = params["ih"]["kernel"]
    _, sources, targets = weights.shape
    one = grids.tap_mask("B", channels, kernel.taps, sources, targets // len(GATES))
    mask = _placed(jnp.tile(one, len(GATES)), kernel.inputs, kernel.size)
    return {**params, "ih": {**params["ih"], "kernel": weights * mask}}


def _placed(rows: Array, places: tuple[int, ...], size: int) -> Array:
    """Arranges the n parts of `[n D, G]` as a kernel `[size, D, G]`, zero elsewhere."""
    parts = rows.reshape(len(places), -1, rows.shape[-1])
    return jnp.zeros((size, *parts.shape[1:])).at[np.array(places)].set(parts)


def _convolved(kernel: Kernel, params: Params, x: Array) -> Array:
    """The convolution of inputs `[..., P, D]` with the nonzero part of the kernel."""
    count, first = len(kernel.inputs), kernel.inputs[0]
    used = params["ih"]["kernel"][first : first + count]
    conv = nn.Conv(used.shape[-1], (count,), padding=((count - 1, 0),), parent=None)
    return conv.apply({"params": {**params["ih"], "kernel": used}}, x)


def _scan(
    kernel: Kernel, params: Params, xs: Array, hoisted: bool, inside: np.ndarray | None = None
) -> Array:
    """Scans `[T, B, P, D]` to `[T, B, P, F]`, P positions in a line, from zero carries.

    Carries are zero where `inside` is false.
    """
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
    """The rest of `ConvLSTMCell`'s step, from its pre-activations."""
    i, g, f, o = jnp.split(gates, len(GATES), axis=-1)
    c = nn.sigmoid(f + 1) * c + nn.sigmoid(i) * jnp.tanh(g)
    return c, nn.sigmoid(o) * jnp.tanh(c)


def _out(params: Params, y: Array, channels: int) -> Array:
    """The 1x1 convolution to the map's number of features."""
    features = params["dense"]["bias"].size
    return MaskedDense(features, channels, parent=None).apply({"params": params}, y)
