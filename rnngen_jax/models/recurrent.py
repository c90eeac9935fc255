"""What models with a recurrent cell share: the choices that make the cell, and how it is run."""

from dataclasses import dataclass

from rnngen_jax import cells, recurrence
from rnngen_jax.cells.base import Cell
from rnngen_jax.config import require


@dataclass(frozen=True)
class RecurrentConfig:
    """Choices of all models with a recurrent cell.

    Attributes:
      cell: a cell and its options, such as "gru" or "lstm:forget_bias=0".
      features: size F of the cell.
      layers: cells on top of one another.
      residual: adds each layer's inputs to its outputs, from the second layer on.
      learned_carry: trains the first carry instead of starting from zeros.
      remat: steps between kept carries in training, to save memory; 0 keeps all.
    """

    cell: str = "gru"
    features: int = 128
    layers: int = 1
    residual: bool = False
    learned_carry: bool = False
    remat: int = 0

    def __post_init__(self) -> None:
        recurrence.refuse_suffix(self.cell, "config.model", hasattr(self, "strategy"))
        for name in ("features", "layers"):
            value = getattr(self, name)
            require(value >= 1, f"config.model.{name}", value, "≥ 1")
        require(self.remat >= 0, "config.model.remat", self.remat, "≥ 0")


@dataclass(frozen=True)
class UnrolledConfig(RecurrentConfig):
    """Choices of models that give `recurrence.unroll` the cell itself, to run over all steps.

    Attributes:
      strategy: how the cell is run over time, by name with options: "sequential:gates=recompute",
        "associative", "newton"; "auto" is what suits the cell. All give the same numbers.
    """

    strategy: str = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        recurrence.from_spec(self.strategy)


def cell_of(config: RecurrentConfig) -> Cell:
    """The cell that a config describes, a stack for more than one layer.

    Raises:
      UserError: an unknown cell, or options that do not fit it.
    """
    return cells.build(
        config.cell,
        config.features,
        layers=config.layers,
        residual=config.residual,
        learned=config.learned_carry,
    )
