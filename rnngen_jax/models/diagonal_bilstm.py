"""Diagonal BiLSTM: two recurrences over an image's diagonals (van den Oord et al. 2016, 3.2).

A pixel sees all earlier pixels, in W + H - 1 steps, except the last one of the row above if the
first convolution does not reach it: no later state of that row exists.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass

from rnngen_jax.models.base import Model
from rnngen_jax.models.grid import GridConfig, convolvable, grid_level
from rnngen_jax.models.levels import Coarser
from rnngen_jax.models.recurrent import UnrolledConfig, run_of
from rnngen_jax.modules.grid.diagonal_bilstm import DiagonalBiLSTM
from rnngen_jax.shapes import ImageSpec


@dataclass(frozen=True)
class Config(GridConfig, UnrolledConfig):
    """Choices of the Diagonal BiLSTM; see `GridConfig` and `UnrolledConfig` for the others.

    Attributes:
      cell: "lstm", or another convolvable cell: "gru", "rnn", "min_gru", ...
      learned_carry: learns the carries beyond the edges instead of zeros.
    """

    cell: str = "lstm"
    learned_carry: bool = True

    def __post_init__(self) -> None:
        GridConfig.__post_init__(self)
        UnrolledConfig.__post_init__(self)


def build(config: Config, spec: ImageSpec) -> Model:
    """Builds the model for images like `spec`.

    Raises:
      UserError: an unknown or unsuitable cell, strategy or readout.
    """
    return build_level(config, spec)()


def build_level(
    config: Config, spec: ImageSpec, coarser: Coarser | None = None
) -> Callable[..., Model]:
    """Builds a level of `models.levels.over_levels`, given the codes of a coarser level, if any.

    Raises:
      UserError: as `build`.
    """
    cell = convolvable(config.cell, config.features, config.strategy)
    layer = functools.partial(
        DiagonalBiLSTM, cell=cell, learned=config.learned_carry, run=run_of(config)
    )
    return grid_level("diagonal_bilstm", config, spec, layer, coarser=coarser)
