"""status.json: the state of a run, for tools that watch many runs.

It holds `state`, `step`, `steps` (of the whole run), `seconds` (of all training in the folder,
without pauses) and `message`, which says why a run failed. A killed process leaves "running"
behind; the folder's lock tells whether a process is still at work.
"""

import json
import time
from collections.abc import Callable
from typing import Any

from rnngen_jax import paths
from rnngen_jax.errors import UserError
from rnngen_jax.files import UPLOAD_SECONDS, read_regular, replacing
from rnngen_jax.paths import Path

NAME = "status.json"
STATES = ("running", "done", "stopped_early", "interrupted", "preempted", "failed", "diverged")
MOST_BYTES = 2**20

Report = Callable[[str, int, str], None]


def reporter(folder: Path, steps: int) -> Report:
    """Makes `report(state, step, message)`, which writes status.json; training starts now.

    Args:
      folder: the run's folder.
      steps: number of steps of the whole run.

    Returns:
      `report`, which raises an `OSError` if the file cannot be written. In a bucket, where an
      object may be written once per second, "running" is written once in `UPLOAD_SECONDS` at most.
    """
    begin, before = time.monotonic(), _seconds(folder)
    due = 0.0  # the next time that a bucket gets a mere "running"

    def report(state: str, step: int, message: str) -> None:
        if state not in STATES:
            raise ValueError(f"state must be one of {STATES}, got {state!r}")
        nonlocal due
        now = time.monotonic()
        if paths.is_remote(folder):
            if state == "running" and now < due:
                return
            due = now + UPLOAD_SECONDS
        facts = {
            "state": state,
            "step": step,
            "steps": steps,
            "seconds": round(before + now - begin, 3),
            "message": message,
        }
        with replacing(folder / NAME) as temporary:
            temporary.write_text(json.dumps(facts, indent=2) + "\n")

    return report


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


def _seconds(folder: Path) -> float:
    """The seconds of earlier training; 0 without a valid status.json."""
    try:
        seconds = (read(folder) or {}).get("seconds", 0.0)
    except (UserError, OSError):
        return 0.0
    return float(seconds) if isinstance(seconds, int | float) else 0.0
