"""Recurrent cells, one per file. A cell, its file and its function share one name."""

import importlib
import inspect
from collections.abc import Callable

from rnngen_jax.cells.base import Cell, apart
from rnngen_jax.cells.convolved import takes_any_width
from rnngen_jax.cells.learned_carry import learned_carry
from rnngen_jax.cells.over_maps import over_maps, require_side
from rnngen_jax.cells.stack import stack
from rnngen_jax.config import options, require, require_choice
from rnngen_jax.discovery import modules
from rnngen_jax.errors import UserError

__all__ = [
    "Cell",
    "apart",
    "build",
    "build_maps",
    "from_spec",
    "learned_carry",
    "map_names",
    "names",
    "over_maps",
    "stack",
]


def names(maps: bool = False) -> list[str]:
    """Names of all cells: files that define a function of the same name, with `features` first.

    Wrappers of cells, such as `stack`, take cells as their first argument, so they are not listed.

    Args:
      maps: the cells that run over maps alone, whose function has `kernel` after `features`,
        instead of those over vectors; `map_names` has also those that run over both.
    """
    found = {name: file.get(name) or () for name, file in modules(__path__).items()}
    return sorted(
        name
        for name, arguments in found.items()
        if arguments[:1] == ("features",) and (arguments[1:2] == ("kernel",)) == maps
    )


def map_names() -> list[str]:
    """Names of the cells that run over maps, by `build_maps`, with their default options."""
    both = [name for name in names() if _runs_over_maps(from_spec(name, 1))]
    return sorted([*both, *names(maps=True)])


def _runs_over_maps(cell: Cell) -> bool:
    return (cell.gated is not None or cell.linear is not None) and takes_any_width(cell)


def from_spec(spec: str, features: int) -> Cell:
    """Builds the cell that a spec string names.

    Args:
      spec: a cell's name and, after a colon, its options: `"lstm"`, `"lstm:forget_bias=0.5"`,
        `"gru:variant=reset_before"`, `"rnn:activation=relu,input_weights=False"`.
      features: size F of the cell's outputs.

    Raises:
      UserError: an unknown cell or option, an option of the wrong type, a cell that runs over maps
        alone, or `features` < 1.
    """
    require(features >= 1, "features", features, "≥ 1")
    name, _, text = spec.partition(":")
    if name in names(maps=True):
        raise UserError(
            f"cell {name!r} runs over maps of features, and here each state is a vector; "
            f"allowed: {', '.join(names())}."
        )
    require_choice("cell", name, names())
    function = _function(name)
    return function(features, **options(function, f"cell {name!r}", text))


def _function(name: str) -> Callable[..., Cell]:
    return getattr(importlib.import_module(f"{__name__}.{name}"), name)


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


def build_maps(
    spec: str,
    features: int,
    kernel: int = 3,
    *,
    layers: int = 1,
    residual: bool = False,
    learned: bool = False,
) -> Cell:
    """Builds a stack of cells over maps, with inputs `[T, B, H, W, D]` and outputs `[..., F]`.

    Carries are those of `cell.carry((B, H, W), dtype)`; resets may be `[T, B]`.

    Args:
      spec: a cell's name and options, as in `from_spec`: "conv_lstm:peepholes=True", "conv_gru",
        "st_lstm", which is a stack of its own, or any cell whose form can be convolved
        (`over_maps`), such as "gru" or "min_gru".
      features: size F of the outputs at each place.
      kernel: side of the convolutions of inputs and states, odd.
      layers: number of cells on top of each other.
      residual: as in `stack`.
      learned: learns the initial carry, the same at all places.

    Raises:
      UserError: an unknown cell or option, a cell that cannot be convolved, a size out of range, or
        residual connections in a stack that cannot have them.
    """
    require(features >= 1, "features", features, "≥ 1")
    require(layers >= 1, "layers", layers, "≥ 1")
    require_side(kernel)
    name, _, text = spec.partition(":")
    if name in names(maps=True):
        function = _function(name)
        given = options(function, f"cell {name!r}", text)
        if "layers" in inspect.signature(function).parameters:
            if residual:
                raise UserError(f"cell {name!r} is a stack that has no residual connections.")
            cells = [function(features, kernel, layers, **given)]
        else:
            cells = [function(features, kernel, **given) for _ in range(layers)]
    else:
        require_choice("cell", name, [*names(), *names(maps=True)])
        plain = from_spec(spec, features)
        if not _runs_over_maps(plain):
            raise UserError(
                f"cell {spec!r} cannot be convolved over maps; allowed: {', '.join(map_names())}, "
                "in their default form."
            )
        cells = [over_maps(plain, kernel) for _ in range(layers)]
    cell = cells[0] if len(cells) == 1 else stack(cells, residual=residual)
    return learned_carry(cell) if learned else cell
