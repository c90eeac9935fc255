"""Row LSTM: a convolutional recurrence over the rows of an image (van den Oord et al. 2016, 3.1).

A pixel sees the triangle above it and its row to the left: with kernels 2r + 1 wide, the
receptive field widens by r pixels to each side per row.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass

from rnngen_jax.models.base import Model
from rnngen_jax.models.grid import GridConfig, convolvable, grid_level, require_kernel
from rnngen_jax.models.levels import Coarser
from rnngen_jax.models.recurrent import UnrolledConfig, run_of
from rnngen_jax.modules.grid.row_lstm import RowLSTM
from rnngen_jax.shapes import ImageSpec


@dataclass(frozen=True)
class Config(GridConfig, UnrolledConfig):
    """Choices of the Row LSTM; see `GridConfig` and `UnrolledConfig` for the others.

    Attributes:
      cell: "lstm", or another convolvable cell: "gru", "rnn", "min_gru", ...
      kernel: width of the kernels along the row, odd.
      learned_carry: learns the carry above the first row instead of zeros.
    """

    cell: str = "lstm"
    kernel: int = 3
    learned_carry: bool = True

    def __post_init__(self) -> None:
        GridConfig.__post_init__(self)
        UnrolledConfig.__post_init__(self)
        require_kernel("kernel", self.kernel)


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
        RowLSTM,
        cell=cell,
        radius=config.kernel // 2,
        learned=config.learned_carry,
        run=run_of(config),
    )
    return grid_level("row_lstm", config, spec, layer, coarser=coarser)
