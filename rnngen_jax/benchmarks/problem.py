"""The problem that all contenders solve: a recurrent layer over one sequence, drawn from a seed."""

from typing import NamedTuple

import jax
import numpy as np

from rnngen_jax import cells
from rnngen_jax.cells.base import Cell, Params
from rnngen_jax.config import require

# The reset gate after the recurrent product is the form that torch, cuDNN, Keras (its default),
# Flax and Equinox have.
SPECS = {"lstm": "lstm", "gru": "gru:variant=reset_after"}


class Shape(NamedTuple):
    """T steps of B sequences, I input features and H hidden ones."""

    steps: int
    batch: int
    inputs: int
    hidden: int

    def __str__(self) -> str:
        return ",".join(map(str, self))


class Settings(NamedTuple):
    """What the command line chooses.

    Attributes:
      rounds: timed calls of each contender.
      shapes: instead of a suite's own; `None` for those.
    """

    rounds: int
    shapes: tuple[Shape, ...] | None

    def shapes_or(self, own: tuple[Shape, ...]) -> tuple[Shape, ...]:
        """The shapes that were asked for, or a suite's own."""
        return own if self.shapes is None else self.shapes


class Problem(NamedTuple):
    """A recurrent layer, its input, and the weights of the sum that is differentiated.

    Attributes:
      cell: a cell's name.
      shape: its sizes.
      params: float32 NumPy arrays in our layout.
      xs: inputs, `[T, B, I]`.
      weights: the loss is the sum of outputs times these, `[T, B, H]`.
    """

    cell: str
    shape: Shape
    params: Params
    xs: np.ndarray
    weights: np.ndarray

    def __str__(self) -> str:
        return f"{self.cell} {self.shape}"


def parse_shapes(text: str) -> tuple[Shape, ...]:
    """Reads `"T,B,I,H;T,B,I,H"`.

    Raises:
      UserError: not four whole numbers above 0, each.
    """
    shapes = []
    for item in text.split(";"):
        sizes = [int(size) if size.strip().isdecimal() else 0 for size in item.split(",")]
        fits = len(sizes) == 4 and min(sizes) > 0
        require(fits, "--shapes", text, "T,B,I,H;T,B,I,H;... with integers ≥ 1")
        shapes.append(Shape(*sizes))
    return tuple(shapes)


def build(cell: str, features: int) -> Cell:
    """Our cell of that name."""
    return cells.from_spec(SPECS.get(cell, cell), features)


def draw(cell: str, shape: Shape, seed: int = 0) -> Problem:
    """Draws a problem; biases are random, too, so that none hides behind a zero."""
    rng = np.random.default_rng(seed)

    def normal(*size: int) -> np.ndarray:
        return rng.standard_normal(size, np.float32)

    params = jax.jit(build(cell, shape.hidden).init, static_argnums=1)(
        jax.random.key(seed), shape.inputs
    )
    params = jax.tree.map(np.asarray, params)
    params["bias"] = jax.tree.map(lambda b: b + 0.1 * normal(*b.shape), params["bias"])
    xs = normal(shape.steps, shape.batch, shape.inputs)
    return Problem(cell, shape, params, xs, normal(shape.steps, shape.batch, shape.hidden))
