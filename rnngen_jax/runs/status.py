"""status.json: the state of a run, for tools that watch many runs.

It holds `state`, `step`, `steps` (of the whole run), `seconds` (of all training in the folder,
without pauses), `message`, which says why a run failed, and `goodput`: what the seconds went into,
over all restarts. These are `train`, with validation and samples, of which the newest checkpoint is
the result; `compile`; `save`, in which training waited for checkpoints; and `lost`, the training
after the checkpoint that a restart went back to. A killed process leaves "running" behind, and what
it lost since its last report is not known; the folder's lock tells whether one is still at work.
"""

import contextlib
import json
import time
from collections.abc import Iterator
from typing import Any

from rnngen_jax import paths
from rnngen_jax.errors import UserError
from rnngen_jax.files import UPLOAD_SECONDS, read_regular, replacing
from rnngen_jax.paths import Path

NAME = "status.json"
STATES = ("running", "done", "stopped_early", "interrupted", "preempted", "failed", "diverged")
MOST_BYTES = 2**20
_KINDS = ("train", "compile", "save", "lost")
_MOST_SAVED = 100  # of the newest checkpoints


class Reporter:
    """Writes status.json; training starts when it is made."""

    def __init__(self, folder: Path, steps: int) -> None:
        """Reads what earlier training in the folder has spent.

        Args:
          folder: the run's folder.
          steps: number of steps of the whole run.
        """
        self._folder, self._steps = folder, steps
        self._begin = time.monotonic()
        self._spent = {"compile": 0.0, "save": 0.0}  # since it was made
        before = _earlier(folder)
        self._before = _number(before.get("seconds"))
        goodput = _mapping(before.get("goodput"))
        self._kinds = {kind: _number(goodput.get(kind)) for kind in _KINDS}
        # Seconds of training that led to each checkpoint.
        saved = _mapping(before.get("saved"))
        self._saved = {key: _number(each) for key, each in saved.items() if key.isdecimal()}
        self._goes_on = False
        self._due = 0.0  # the next time that a bucket gets a mere "running"

    def write(self, state: str, step: int, message: str) -> None:
        """Writes the file.

        In a bucket, where an object may be written once per second, "running" is written once in
        `UPLOAD_SECONDS` at most.

        Args:
          state: one of `STATES`.
          step: how far the run is; at the first call, where it begins or goes on.
          message: why it failed, or "".

        Raises:
          OSError: it cannot be written.
        """
        if state not in STATES:
            raise ValueError(f"state must be one of {STATES}, got {state!r}")
        if not self._goes_on:
            self._goes_on = True
            self._go_on(step)
        now = time.monotonic()
        if paths.is_remote(self._folder):
            if state == "running" and now < self._due:
                return
            self._due = now + UPLOAD_SECONDS
        kinds = {**self._kinds, "train": self._training()}
        for kind, seconds in self._spent.items():
            kinds[kind] += seconds
        facts = {
            "state": state,
            "step": step,
            "steps": self._steps,
            "seconds": round(self._before + now - self._begin, 3),
            "message": message,
            "goodput": {kind: round(seconds, 3) for kind, seconds in kinds.items()},
            "saved": self._saved,
        }
        with replacing(self._folder / NAME) as temporary:
            temporary.write_text(json.dumps(facts, indent=2) + "\n")

    @contextlib.contextmanager
    def spending(self, kind: str) -> Iterator[None]:
        """The time inside the `with` block goes into `kind`, "compile" or "save"."""
        begin = time.monotonic()
        try:
            yield
        finally:
            self._spent[kind] += time.monotonic() - begin

    def saved(self, step: int) -> None:
        """Notes that all training until now has led to a checkpoint of this step."""
        self._saved.pop(str(step), None)
        self._saved[str(step)] = round(self._training(), 3)
        self._saved = dict(list(self._saved.items())[-_MOST_SAVED:])

    def _training(self) -> float:
        """The seconds of training that led to where the run is."""
        return self._kinds["train"] + time.monotonic() - self._begin - sum(self._spent.values())

    def _go_on(self, step: int) -> None:
        """Counts as lost what came after the checkpoint of this step, 0 for none."""
        done = self._kinds["train"]
        kept = self._saved.get(str(step), done) if step else 0.0
        self._kinds["lost"] += max(0.0, done - kept)
        self._kinds["train"] = min(done, kept)
        self._saved = {key: seconds for key, seconds in self._saved.items() if int(key) <= step}


def read(folder: Path) -> dict[str, Any] | None:
    """Reads status.json; `None` if there is none.

    Raises:
      UserError: its content is not valid.
      OSError: it cannot be read.
    """
    path = folder / NAME
    try:
        found = json.loads(read_regular(path, MOST_BYTES))
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or found.get("state") not in STATES:
        raise UserError(f"{path} is not valid; training in that folder replaces it.")
    return found


def _earlier(folder: Path) -> dict[str, Any]:
    """The status of earlier training; empty without a valid one."""
    try:
        return read(folder) or {}
    except (UserError, OSError):
        return {}


def _number(value: Any) -> float:
    """A number of seconds; 0 in the place of anything else."""
    return float(value) if isinstance(value, int | float) and 0 <= value < float("inf") else 0.0


def _mapping(value: Any) -> dict[str, Any]:
    """A mapping by steps or kinds; empty in the place of anything else."""
    if not isinstance(value, dict):
        return {}
    return value
