"""Recurrent cells, one file each. A cell's name is its file's name and its function's."""

import importlib

from rnngen_jax.cells.base import Cell
from rnngen_jax.cells.learned_carry import learned_carry
from rnngen_jax.cells.stack import stack
from rnngen_jax.config import options, require, require_choice
from rnngen_jax.discovery import modules


def names() -> list[str]:
    """Names of all cells: the files that define a function of their name, of `features`.

    What is made of other cells, such as a `stack`, takes these in their place.
    """
    found = modules(__path__).items()
    return sorted(name for name, file in found if (file.get(name) or ())[:1] == ("features",))


def from_spec(spec: str, features: int) -> Cell:
    """The cell that a flag names.

    Args:
      spec: a cell's name and, after a colon, its options: `"lstm"`, `"lstm:forget_bias=0.5"`,
        `"gru:variant=reset_before"`, `"rnn:activation=relu,input_weights=False"`.
      features: size F of the cell's outputs.

    Raises:
      UserError: an unknown cell or option, a value of the wrong type, or no features.
    """
    require(features >= 1, "features", features, "≥ 1")
    name, _, text = spec.partition(":")
    require_choice("cell", name, names())
    function = getattr(importlib.import_module(f"{__name__}.{name}"), name)
    return function(features, **options(function, f"cell {name!r}", text))


def build(
    spec: str,
    features: int,
    *,
    layers: int = 1,
    residual: bool = False,
    learned: bool = False,
) -> Cell:
    """A stack of `layers` cells as in `from_spec`, with a learned first carry on request.

    Raises:
      UserError: as `from_spec`; fewer than one layer.
    """
    require(layers >= 1, "layers", layers, "≥ 1")
    cells = [from_spec(spec, features) for _ in range(layers)]
    cell = cells[0] if layers == 1 else stack(cells, residual=residual)
    return learned_carry(cell) if learned else cell
