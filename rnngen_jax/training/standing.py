"""Where a run stands besides its arrays, and how fast it is."""

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
    """What goes into each checkpoint's meta, so that a resumed run writes the same lines.

    Attributes:
      step: number of steps whose metrics are counted in.
      best: `{"step", "score"}` of the best validation, `None` before the first.
      stale: validations since then.
      count, sums: number of steps since the last full line of training metrics, and the sums of
        their metrics, of each seed where there are several: float64, added step by step, so
        that stopping in between changes no bit.
      owed: whether what is due at this step is still to be done.
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
        """As a checkpoint's meta says.

        Raises:
          UserError: it does not say all of it.
        """
        _require_complete(meta)
        standing = cls(meta["step"], saved=meta["step"])
        standing.back_to(meta)
        return standing

    def back_to(self, meta: Mapping[str, Any]) -> None:
        """Takes on what `meta` gave at this step."""
        self.best, self.stale = meta["best"], meta["stale"]
        self.count, self.sums = meta["count"], dict(meta["sums"])
        self.owed = meta.get("owed", False)

    @property
    def logged(self) -> int:
        """The step of the last full line of training metrics; 0 before the first."""
        return self.step - self.count

    def meta(self) -> dict[str, Any]:
        """JSON values that `of` reads back; a checkpoint adds the step by itself."""
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
          metrics: by name, `[K]`, or `[K, N]` of N seeds.
          sections: by player the path of its section, in the order in which they are named when
            something is wrong.

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
        """The mean of each metric since the last full line, of each seed for itself."""
        sums = sorted(self.sums.items())
        return {name: (np.asarray(total) / self.count).tolist() for name, total in sums}

    def start_line(self) -> None:
        """Starts the sums of the next line."""
        self.count, self.sums = 0, {}

    def judge(self, score: float) -> bool:
        """Takes in a validation's score; returns whether it is better than all before."""
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
          sections: by player the path of its section. Where no part of the name is a player's, all
            are named.
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
    """Raises a `UserError` unless a checkpoint's meta says where its run stands."""
    missing = [name for name in ("stale", "count", "sums") if name not in meta]
    if missing:
        raise UserError(
            f"the meta of checkpoint {meta['step']} lacks {', '.join(missing)}, so no run can go "
            "on from it; train with the version that wrote it, or in another --workdir."
        )


class Clock:
    """Images a second, without the time spent on anything but training."""

    def __init__(self) -> None:
        """Starts."""
        self.start()

    def start(self) -> None:
        """Starts anew."""
        self._begin, self._paused, self._images = time.perf_counter(), 0.0, 0

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leaves the time inside out."""
        begin = time.perf_counter()
        yield
        self._paused += time.perf_counter() - begin

    def count(self, images: int) -> None:
        """Adds images that have been trained on."""
        self._images += images

    def metrics(self) -> dict[str, float]:
        """`images_per_second` since the start; nothing where none has been trained on since."""
        if not self._images:
            return {}
        seconds = time.perf_counter() - self._begin - self._paused
        return {"images_per_second": self._images / seconds}
