"""The Diagonal BiLSTM's layer: two recurrences over diagonals."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from rnngen_jax import recurrence
from rnngen_jax.cells.base import Carry, Cell, Inputs, Params, gated_step, initial_carry
from rnngen_jax.cells.convolved import convolved
from rnngen_jax.cells.learned_carry import learned_carry
from rnngen_jax.modules.grid.parts import GridLayer
from rnngen_jax.modules.recurrent import Run
from rnngen_jax.ops import grids
from rnngen_jax.ops.devices import compiled_for
from rnngen_jax.ops.precision import matmul

# On the previous diagonal, the same position is the pixel to the left, the position before it the
# pixel above.
_OFFSETS = (0, -1)

# Minimum positions (rows times concatenated images) per step on a CPU: with fewer, the fixed cost
# of a step exceeds that of the positions outside the images.
_CPU_PLACES = 100


class DiagonalState(NamedTuple):
    """The sampler's state.

    Attributes:
      rows: inputs of the current row and the two above it, `[3, W + 2, B, D]`.
      begun: whether there is a row above, a bool.
      carries: of the current row from the left, `[W + 1, B, F]`: those before each pixel.
      above: states h of the row above, `[W, B, F]`.
      right: states h of the row above, from the right.
    """

    rows: Array
    begun: Array
    carries: Carry
    above: Array
    right: Array


class DiagonalBiLSTM(GridLayer):
    """Diagonal BiLSTM (van den Oord et al. 2016, section 3.2), with any convolvable cell.

    A pixel's state depends on the states to its left and above it, and on its own input; skewed, a
    whole diagonal of pixels is one step. A second recurrence runs from the right; its states are
    taken from the row above a pixel, so it sees no later pixel. Linear cells, whose gates see
    inputs only, get the inputs of the two neighbours instead of the state above.

    Attributes:
      cell: gated or linear.
      learned: learns the carries beyond the left and the right edge.
      run: how the cell is run over diagonals.
    """

    cell: Cell
    learned: bool = False
    run: Run = Run()

    def setup(self) -> None:
        """Declares the layers."""
        super().setup()
        self.taps = ((0, 0),) if self.cell.linear is None else ((0, 0), (0, -1), (-1, 0))
        shape = self.channels, self.taps, self.width, self.cell.features
        # The row above is complete: the recurrence from the right needs no mask.
        self.inner = {
            "left": convolved(self.cell, _OFFSETS, grids.tap_mask("B", *shape)),
            "right": convolved(self.cell, _OFFSETS),
        }
        self.cells = {
            side: learned_carry(cell) if self.learned else cell for side, cell in self.inner.items()
        }
        self.params = {
            side: self.param(side, cell.init, len(self.taps) * self.width)
            for side, cell in self.cells.items()
        }

    def __call__(
        self, above: Array | None, x: Array, mask: Array | None = None
    ) -> tuple[Array | None, Array]:
        """Whole maps `[H, W, B, D]`; `mask [B, F]` is the dropout mask."""
        right = self._over_diagonals("right", x[:, ::-1])[:, ::-1]
        y = self._over_diagonals("left", x) + grids.moved(right, -1, 0)
        return above, self.project(x, y if mask is None else y * mask)

    def first(self, batch: int) -> DiagonalState:
        """The state before the first row."""
        zeros = jnp.zeros((self.columns, batch, self.cell.features))
        carries = jax.tree.map(
            lambda leaf: jnp.concatenate([leaf[None], jnp.zeros_like(zeros)]),
            self._first_carry("left", batch),
        )
        rows = jnp.zeros((3, self.columns + 2, batch, self.width))
        return DiagonalState(rows, jnp.array(False), carries, zeros, zeros)

    def row(self, state: DiagonalState, above: Array | None) -> tuple[DiagonalState, Array | None]:
        """Before a row: the recurrence from the right runs over the row above, now complete."""
        seen = grids.gather(state.rows[1:, -2:0:-1], self.taps)[-1]
        _, right = recurrence.unroll(
            _along(self.inner["right"]),
            self._params("right"),
            jnp.concatenate([seen, state.right], axis=-1),
            self._first_carry("right", seen.shape[1]),
            strategy=self.run.strategy,
        )
        return DiagonalState(
            rows=grids.next_row(state.rows),
            begun=jnp.array(True),
            carries=state.carries,
            above=state.carries[0][1:],
            right=jnp.where(state.begun, right, 0.0),
        ), above

    def pixel(self, state: DiagonalState, x: Array, column: Array) -> tuple[DiagonalState, Array]:
        """One pixel `[B, D]`."""
        cell, params = _along(self.inner["left"]), self._params("left")
        rows = state.rows.at[-1, column + 1].set(x)
        last = rows.shape[0] - 1
        seen = [rows[last + row, column + 1 + aside] for row, aside in self.taps]
        carry = jax.tree.map(lambda leaf: leaf[column], state.carries)
        inputs = jnp.concatenate([*seen, state.above[column]], axis=-1)
        carry, y = cell.step(params, carry, cell.inputs(params, inputs))
        carries = jax.tree.map(lambda old, new: old.at[column + 1].set(new), state.carries, carry)
        y = y + state.right[self.columns - 1 - column]
        return state._replace(rows=rows, carries=carries), self.project(x, y)

    def _over_diagonals(self, side: str, x: Array) -> Array:
        """One direction over a whole map, `[H, W, B, D]` to `[H, W, B, F]`."""
        height, columns, batch = x.shape[:3]
        count = _images_in_line(height, batch)
        line = grids.side_by_side(grids.gather(x, self.taps), count)
        xs = _flat(grids.skew, line)
        # Each row is reset at an image's first column; earlier states in its row are outside,
        # except for the column between two images, where the row below still needs the first
        # image's last.
        column = jnp.arange(xs.shape[0])[:, None] - jnp.arange(height)
        begins = (column % (columns + 1) == 0) | (column < 0)
        reset = jnp.broadcast_to(begins[..., None], xs.shape[:3])
        cell, params = self.cells[side], self.params[side]
        _, ys = recurrence.unroll(cell, params, xs, reset=reset, **self.run.options)
        return grids.batched(_flat(lambda y: grids.unskew(y, line.shape[1]), ys), count)

    def _first_carry(self, side: str, batch: int) -> Carry:
        return initial_carry(self.cells[side], self.params[side], (batch,), jnp.float32)

    def _params(self, side: str) -> Params:
        return self.params[side]["cell"] if self.learned else self.params[side]


def _flat(move: Callable[[Array], Array], x: Array) -> Array:
    """`move(x)` for a function of the first two axes.

    On a TPU the others are one meanwhile: few features would leave most of its 128 lanes empty.
    """
    if compiled_for() != "tpu":
        return move(x)
    moved = move(x.reshape(*x.shape[:2], -1))
    return moved.reshape(*moved.shape[:2], *x.shape[2:])


def _images_in_line(height: int, batch: int) -> int:
    """How many images are concatenated along the diagonals.

    About half the positions of a single image's W + H - 1 diagonals are outside it. With the next
    image right behind it, only those before the first and after the last image remain, at the price
    of more and smaller steps, which pays on a CPU only.
    """
    if compiled_for() != "cpu":
        return 1
    most = max(height * batch // _CPU_PLACES, 1)
    return max(n for n in range(1, most + 1) if batch % n == 0)


def _along(cell: Cell) -> Cell:
    """The diagonal's cell along one row, whose inputs `[..., D + F]` include the state h above."""
    features, gated = cell.features, cell.gated

    def split(xs: Array) -> tuple[Array, Array]:
        return xs[..., :-features], xs[..., -features:]

    if gated is None:
        return cell._replace(inputs=lambda params, xs: cell.inputs(params, split(xs)[0]))

    def inputs(params: Params, xs: Array) -> Inputs:
        x, above = split(xs)
        zs = dict(cell.inputs(params, x))
        for gate, kernel in gated.kernels(params).items():
            share = matmul(above, kernel[features:])
            zs[gate] = zs[gate] + share if gate in zs else share
        return zs

    def kernels(params: Params) -> dict[str, Array]:
        return {gate: kernel[:features] for gate, kernel in gated.kernels(params).items()}

    row = gated._replace(kernels=kernels, offsets=(0,), inputs=None)
    return cell._replace(inputs=inputs, step=gated_step(row), gated=row)
