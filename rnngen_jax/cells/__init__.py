"""Recurrent cells, one per file. A cell, its file and its function share one name."""

import importlib

from rnngen_jax.cells.base import Cell
from rnngen_jax.cells.learned_carry import learned_carry
from rnngen_jax.cells.stack import stack
from rnngen_jax.config import options, require, require_choice
from rnngen_jax.discovery import modules


def names() -> list[str]:
    """Names of all cells: files that define a function of the same name, with `features` first.

    Wrappers of cells, such as `stack`, take cells as their first argument, so they are not listed.
    """
    found = modules(__path__).items()
    return sorted(name for name, file in found if (file.get(name) or ())[:1] == ("features",))


def from_spec(spec: str, features: int) -> Cell:
    """Builds the cell that a spec string names.

    Args:
      spec: a cell's name and, after a colon, its options: `"lstm"`, `"lstm:forget_bias=0.5"`,
        `"gru:variant=reset_before"`, `"rnn:activation=relu,input_weights=False"`.
      features: size F of the cell's outputs.

    Raises:
      UserError: an unknown cell or option, an option of the wrong type, or `features` < 1.
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
    """Builds a stack of `layers` cells from a spec, optionally with a learned initial carry.

    Raises:
      UserError: as for `from_spec`; `layers` < 1.
    """
    require(layers >= 1, "layers", layers, "≥ 1")
    cells = [from_spec(spec, features) for _ in range(layers)]
    cell = cells[0] if layers == 1 else stack(cells, residual=residual)
    return learned_carry(cell) if learned else cell
