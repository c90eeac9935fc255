"""How a training ended, as a value and in words."""

from collections.abc import Callable
from typing import NamedTuple

from rnngen_jax.training.config import TrainingConfig
from rnngen_jax.training.standing import Standing


class Outcome(NamedTuple):
    """How a call of `train` ended.

    Attributes:
      step: number of steps done.
      state: "done"; "stopped_early", since the validation did not get better for as long as
        `patience` allows; or "interrupted" or, by SIGTERM, "preempted", since the run was asked to
        stop before its end, and is saved.
      best_step: step of the best validation, `None` without one.
      best_score: its score.
    """

    step: int
    state: str = "done"
    best_step: int | None = None
    best_score: float | None = None

    @property
    def ended(self) -> bool:
        """Whether the run has come to its end, so that the same settings would train no more."""
        return self.state in ("done", "stopped_early")


def nothing_to_do(
    standing: Standing, config: TrainingConfig, say: Callable[[str], None]
) -> Outcome:
    """Says why a run is at its end before it starts."""
    if standing.step >= config.steps:
        say(
            f"step {standing.step} is done already and config.training.steps={config.steps}; "
            "raise it to train on."
        )
        return outcome(standing)
    say(f"{stopped_early(standing)} Raise config.training.patience to train on.")
    return outcome(standing, "stopped_early")


def stopped_early(standing: Standing) -> str:
    """The line about early stopping."""
    best = standing.best or {}
    return (
        f"stopped early at step {standing.step}: {standing.stale} validations in a row were no "
        f"better than {best['score']:.6g} at step {best['step']}."
    )


def outcome(standing: Standing, state: str = "done") -> Outcome:
    """The outcome of a run that stands there."""
    best = standing.best or {"step": None, "score": None}
    return Outcome(standing.step, state, best["step"], best["score"])
