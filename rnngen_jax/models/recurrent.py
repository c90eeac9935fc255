"""Config fields of models with a recurrent cell, and the cell that they describe."""

from dataclasses import dataclass

from rnngen_jax import cells, recurrence
from rnngen_jax.cells.base import Cell
from rnngen_jax.config import refuse_unread, require, require_at_least
from rnngen_jax.modules.recurrent import Run


@dataclass(frozen=True)
class RecurrentConfig:
    """Choices of all models with a recurrent cell.

    Attributes:
      cell: a cell and its options, such as "gru" or "lstm:forget_bias=0".
      features: size F of the cell.
      layers: number of stacked cells.
      residual: adds each layer's inputs to its outputs, from the second layer on.
      learned_carry: learns the initial carry instead of zeros.
      remat: keeps every `remat`-th carry in training and rematerialises the rest; 0 keeps all.
    """

    cell: str = "gru"
    features: int = 128
    layers: int = 1
    residual: bool = False
    learned_carry: bool = False
    remat: int = 0

    def __post_init__(self) -> None:
        recurrence.refuse_suffix(self.cell, "config.model", hasattr(self, "strategy"))
        require_at_least(self, "config.model", 1, "features", "layers")
        require(self.remat >= 0, "config.model.remat", self.remat, "≥ 0")
        self.check_cell()

    def check_cell(self) -> None:
        """Raises a `UserError` for a cell that there is not, or an option that it lacks."""
        if self.cell != "none":  # the GRU-GAN's choice of no cell
            cells.from_spec(self.cell, self.features)


@dataclass(frozen=True)
class UnrolledConfig(RecurrentConfig):
    """Choices of models that run their cell with `recurrence.unroll`.

    Attributes:
      strategy: how the cell is run over time, by name with options: "sequential:gates=recompute",
        "associative", "newton"; "auto" chooses by cell. All give the same results.
    """

    strategy: str = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        recurrence.from_spec(self.strategy)


def run_of(config: UnrolledConfig) -> Run:
    """How a config's cells are run over time."""
    return Run(recurrence.by_layer(config.strategy), config.remat)


def cell_of(config: RecurrentConfig) -> Cell:
    """The cell that a config describes; a stack if it has several layers.

    Raises:
      UserError: an unknown cell or option, or residual connections around no layer.
    """
    refuse_lone_residual(config)
    return cells.build(
        config.cell,
        config.features,
        layers=config.layers,
        residual=config.residual,
        learned=config.learned_carry,
    )


def refuse_lone_residual(config: RecurrentConfig) -> None:
    """Raises an `UnreadError` for residual connections around no layer."""
    if config.layers == 1:
        remedy = ", or set config.model.layers above 1"
        refuse_unread(config, "config.model", "residual", ("layers",), remedy=remedy)
