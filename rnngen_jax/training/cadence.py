"""Which calls a run makes to the device, and at which steps something else is due."""

from rnngen_jax.training.config import TrainingConfig


def calls(start: int, config: TrainingConfig) -> list[tuple[int, int]]:
    """The calls `(start, stop)` that are left.

    They end at multiples of `steps_per_call`, so that a run that was stopped elsewhere comes back
    to the steps at which something is due.
    """
    if start >= config.steps:
        return []
    unit = config.steps_per_call
    stops = [*range((start // unit + 1) * unit, config.steps, unit), config.steps]
    return list(zip([start, *stops], stops, strict=False))


def due(step: int, config: TrainingConfig) -> bool:
    """Whether anything is to be done at `step` besides training."""
    cadences = (
        config.log_every,
        config.validate_every,
        config.sample_every,
        config.checkpoint_every,
    )
    return step == config.steps or any(every and step % every == 0 for every in cadences)
