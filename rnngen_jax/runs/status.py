"""status.json: what has become of a run, for who looks at many of them.

It holds `state`, `step`, `steps` (of the whole run), `seconds` (of all trainings in the folder, the
time between them left out) and `message`, which says why a run failed. A process that is killed
leaves "running" behind; whether one is at work is what the folder's lock tells.
"""

import json
import pathlib
import time
from collections.abc import Callable
from typing import Any

from rnngen_jax.errors import UserError
from rnngen_jax.files import read_regular, replacing

NAME = "status.json"
STATES = ("running", "done", "stopped_early", "interrupted", "preempted", "failed", "diverged")
MOST_BYTES = 2**20

Report = Callable[[str, int, str], None]


def reporter(folder: pathlib.Path, steps: int) -> Report:
    """`report(state, step, message)` writes status.json, for a training that begins now.

    Args:
      folder: the run's.
      steps: of the whole run.

    Raises, when it is called:
      OSError: the file cannot be written.
    """
    begin, before = time.monotonic(), _seconds(folder)

    def report(state: str, step: int, message: str) -> None:
        if state not in STATES:
            raise ValueError(f"state must be one of {STATES}, got {state!r}")
        facts = {
            "state": state,
            "step": step,
            "steps": steps,
            "seconds": round(before + time.monotonic() - begin, 3),
            "message": message,
        }
        with replacing(folder / NAME) as temporary:
            temporary.write_text(json.dumps(facts, indent=2) + "\n")

    return report


def read(folder: pathlib.Path) -> dict[str, Any] | None:
    """What status.json says; `None` where there is none.

    Raises:
      UserError: it is not what a training writes.
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
        raise UserError(f"{path} is not valid; a training in that folder writes it anew.")
    return found


def _seconds(folder: pathlib.Path) -> float:
    """The seconds of earlier trainings; 0 where no status.json tells of them."""
    try:
        seconds = (read(folder) or {}).get("seconds", 0.0)
    except (UserError, OSError):
        return 0.0
    return float(seconds) if isinstance(seconds, int | float) else 0.0
