"""A run's progress beside its arrays, and its speed."""

import contextlib
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from rnngen_jax.errors import DivergedError, UserError
from rnngen_jax.training.seeds import Values, first_not_finite


@dataclass
class Standing:
    """Progress that each checkpoint's meta stores, so that a resumed run writes the same lines.

    Attributes:
      step: number of steps whose metrics have been accounted for.
      best: `{"step", "score"}` of the best validation, `None` before the first.
      stale: validations since then.
      count, sums: number of steps since the last full line of training metrics, and the sums of
        their metrics, per seed if there are several. Sums are float64 and added step by step, so
        that resuming in between is exact to the bit.
      owed: whether the work due at this step is still to be done.
      saved: step of the newest checkpoint.
    """

    step: int = 0
    best: dict[str, Any] | None = None
    stale: int = 0
    count: int = 0
    sums: dict[str, Values] = field(default_factory=dict)
    owed: bool = False
    saved: int | None = None

    @classmethod
    def of(cls, meta: Mapping[str, Any]) -> Self:
        """The progress that a checkpoint's meta stores.

        Raises:
          UserError: a field is missing.
        """
        _require_complete(meta)
        standing = cls(meta["step"], saved=meta["step"])
        standing.back_to(meta)
        return standing

    def back_to(self, meta: Mapping[str, Any]) -> None:
        """Restores what `meta` returned at this step."""
        self.best, self.stale = meta["best"], meta["stale"]
        self.count, self.sums = meta["count"], dict(meta["sums"])
        self.owed = meta.get("owed", False)

    @property
    def logged(self) -> int:
        """The step of the last full line of training metrics; 0 before the first."""
        return self.step - self.count

    def meta(self) -> dict[str, Any]:
        """JSON values that `of` reads; a checkpoint adds the step."""
        return {
            "best": self.best and dict(self.best),
            "stale": self.stale,
            "count": self.count,
            "sums": dict(self.sums),
            "owed": self.owed,
        }

    def account(self, metrics: Mapping[str, np.ndarray], sections: Mapping[str, str]) -> None:
        """Adds the metrics of the steps of one call.

        Args:
          metrics: by name, `[K]`, or `[K, N]` for N seeds.
          sections: the config section of each player, in the order in which errors name them.

        Raises:
          DivergedError: a metric is not finite.
        """
        of_players = [f"{kind}/{player}" for player in sections for kind in ("loss", "grad_norm")]
        names = of_players + sorted(metrics.keys() - set(of_players))
        for k in range(len(metrics[names[0]])):
            self.step += 1
            for name in names:
                value = np.asarray(metrics[name][k], np.float64)
                if not np.isfinite(value).all():
                    raise self.not_finite(name, value, value.size, sections)
                self.sums[name] = (self.sums.get(name, 0.0) + value).tolist()
            self.count += 1

    def means(self) -> dict[str, Values]:
        """The mean of each metric since the last full line, per seed."""
        sums = sorted(self.sums.items())
        return {name: (np.asarray(total) / self.count).tolist() for name, total in sums}

    def start_line(self) -> None:
        """Starts the sums of the next line."""
        self.count, self.sums = 0, {}

    def judge(self, score: float) -> bool:
        """Records a validation's score; returns whether it is the best so far."""
        improved = self.best is None or score < self.best["score"]
        if improved:
            self.best, self.stale = {"step": self.step, "score": score}, 0
        else:
            self.stale += 1
        return improved

    def not_finite(
        self, name: str, values: np.ndarray, seeds: int, sections: Mapping[str, str]
    ) -> DivergedError:
        """The error for a number of this step that is not finite.

        Args:
          name, values, seeds: as in `first_not_finite`.
          sections: the config section of each player. All are named if `name` names no player.
        """
        found = [sections[part] for part in re.split(r"[/. ]", name) if part in sections]
        named = list(dict.fromkeys(found[:1] or sections.values()))
        rates, clips = (
            " and ".join(f"{section}.{field}" for section in named)
            for field in ("learning_rate", "clip_norm")
        )
        name, value = first_not_finite(name, values, seeds)
        good = "none yet" if self.saved is None else f"step {self.saved}"
        return DivergedError(
            f"step {self.step}: {name} is {value}. Last good checkpoint: {good}.\n"
            f"Lower {rates} or set {clips}, and train in another --workdir."
        )


def _require_complete(meta: Mapping[str, Any]) -> None:
    """Raises a `UserError` unless a checkpoint's meta has the run's progress."""
    missing = [name for name in ("stale", "count", "sums") if name not in meta]
    if missing:
        raise UserError(
            f"the meta of checkpoint {meta['step']} lacks {', '.join(missing)}, so no run can "
            "resume from it; train with the version that wrote it, or in another --workdir."
        )


class Clock:
    """Measures images per second, excluding time not spent on training."""

    def __init__(self) -> None:
        """Starts the clock."""
        self.start()

    def start(self) -> None:
        """Restarts the clock."""
        self._begin, self._paused, self._images = time.perf_counter(), 0.0, 0

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Excludes the time inside the `with` block."""
        begin = time.perf_counter()
        yield
        self._paused += time.perf_counter() - begin

    def count(self, images: int) -> None:
        """Adds images trained on."""
        self._images += images

    def metrics(self) -> dict[str, float]:
        """`images_per_second` since the start; empty if there were no images."""
        if not self._images:
            return {}
        seconds = time.perf_counter() - self._begin - self._paused
        return {"images_per_second": self._images / seconds}
