"""The lines that training prints before its first step."""

from collections import Counter
from collections.abc import Mapping, Sequence

import jax

from rnngen_jax.data.base import Dataset
from rnngen_jax.models.base import Params
from rnngen_jax.training.config import OptimizerConfig
from rnngen_jax.training.parallel import Parallel
from rnngen_jax.training.progress import Progress
from rnngen_jax.training.step import Call


def data(dataset: Dataset) -> str:
    """The data set's name, the sizes of its splits, and an image's shape and levels."""
    sizes = ", ".join(f"{split.num:,} {name}" for name, split in dataset.splits.items())
    shape = "x".join(map(str, dataset.spec.shape))
    return f"data {dataset.name}: {sizes} images, {shape}, {dataset.spec.levels} levels"


def model(name: str, params: Params, seeds: int) -> str:
    """The number of parameters, per player if there are several.

    Args:
      name: the model's.
      params: arrays or their shapes; with several seeds they have a leading axis over seeds.
      seeds: number of seeds.
    """
    counts = {
        player: sum(leaf.size for leaf in jax.tree.leaves(own)) // seeds
        for player, own in params.items()
    }
    if len(counts) == 1:
        said = "".join(f"{count:,}" for count in counts.values())
    else:
        said = ", ".join(f"{player} {count:,}" for player, count in counts.items())
    each = "" if seeds == 1 else f" in each of {seeds} seeds"
    return f"model {name}: {said} parameters{each}"


def devices(used: Sequence[jax.Device]) -> str:
    """The devices by kind, and the number of processes if there are several."""
    kinds = Counter(device.device_kind for device in used)
    processes = len({device.process_index for device in used})
    where = "" if processes == 1 else f" in {processes} processes"
    return f"devices: {', '.join(f'{count} x {kind}' for kind, count in kinds.items())}{where}"


def warmups(
    given: Mapping[str, OptimizerConfig], resolved: Mapping[str, OptimizerConfig]
) -> list[str]:
    """The lengths of warm-ups given as a fraction, for a new run."""
    return [
        f"{section.SECTION}.warmup_steps: {section.warmup_steps}, the config's "
        f"{given[player].warmup_fraction:.3g} of its steps"
        for player, section in resolved.items()
        if given[player].warmup_fraction
    ]


def ended_schedules(sections: Mapping[str, OptimizerConfig], steps: int) -> list[str]:
    """The schedules that end before training does, and their last learning rates."""
    return [
        f"{section.SECTION}: the {section.schedule} schedule ends at step {section.decay_steps}; "
        f"up to step {steps} the learning rate stays at its last value, "
        f"{section.learning_rate * section.final_fraction:.4g}."
        for section in sections.values()
        if 0 < section.decay_steps < steps
    ]


def compiling(parallel: Parallel, progress: Progress) -> Parallel:
    """`parallel`, showing progress while its first call compiles."""
    first = True

    def compiled(*arguments: object) -> Call:
        nonlocal first
        if not first:
            return parallel.compiled(*arguments)
        first = False
        with progress.compiling():
            return parallel.compiled(*arguments)

    return parallel._replace(compiled=compiled)
