"""The problem that all contenders solve: a recurrent layer over a random sequence."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from jax import Array

from rnngen_jax import cells
from rnngen_jax.cells.base import Cell, Params
from rnngen_jax.config import require

# torch, cuDNN, Keras (by default), Flax and Equinox apply the reset gate after the product.
SPECS = {"lstm": "lstm", "gru": "gru:variant=reset_after"}


class Shape(NamedTuple):
    """T steps of B sequences with I input and H hidden features; a suite may reinterpret them."""

    steps: int
    batch: int
    inputs: int
    hidden: int

    def __str__(self) -> str:
        return ",".join(map(str, self))


class Settings(NamedTuple):
    """The options from the command line.

    Attributes:
      rounds: timed calls per contender.
      shapes: replace a suite's own shapes; `None` keeps those.
    """

    rounds: int
    shapes: tuple[Shape, ...] | None

    def shapes_or(self, own: tuple[Shape, ...]) -> tuple[Shape, ...]:
        """The requested shapes, or else a suite's own."""
        return own if self.shapes is None else self.shapes


class Problem(NamedTuple):
    """A recurrent layer, its inputs, and the weights of its loss.

    Attributes:
      cell: the cell's name.
      shape: the sizes.
      params: float32 NumPy arrays in our layout.
      xs: inputs, `[T, B, I]`.
      weights: `[T, B, H]`; the loss is the sum of the outputs times these.
    """

    cell: str
    shape: Shape
    params: Params
    xs: np.ndarray
    weights: np.ndarray

    def __str__(self) -> str:
        return f"{self.cell} {self.shape}"


def parse_shapes(text: str) -> tuple[Shape, ...]:
    """Parses `"T,B,I,H;T,B,I,H"`.

    Raises:
      UserError: a shape is not four integers ≥ 1.
    """
    shapes = []
    for item in text.split(";"):
        sizes = [int(size) if size.strip().isdecimal() else 0 for size in item.split(",")]
        fits = len(sizes) == 4 and min(sizes) > 0
        require(fits, "--shapes", text, "T,B,I,H;T,B,I,H;... with integers ≥ 1")
        shapes.append(Shape(*sizes))
    return tuple(shapes)


def build(cell: str, features: int) -> Cell:
    """Our cell with that name."""
    return cells.from_spec(SPECS.get(cell, cell), features)


def draw(cell: str, shape: Shape, seed: int = 0) -> Problem:
    """Draws a random problem. Biases are random too, since an error may not show at zero."""
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


def draw_parameters(
    init: Callable[[Array], Params], rng: np.random.Generator, offset: float
) -> Params:
    """Draws normal parameters in the shapes that `init` makes, without compiling `init`.

    Args:
      init: `init(key) -> params`.
      rng: the source of randomness.
      offset: standard deviation of biases and other arrays of one axis. They are random too, since
        an error may not show at zero. Kernels have `fan_in ** -0.5`.

    Returns:
      float32 NumPy arrays.
    """

    def one(leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        scale = offset if leaf.ndim < 2 else math.prod(leaf.shape[:-1]) ** -0.5
        return np.float32(scale) * rng.standard_normal(leaf.shape, np.float32)

    return jax.tree.map(one, jax.eval_shape(init, jax.random.key(0)))
