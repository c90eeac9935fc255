"""What a run tells of itself while it goes on: how far it is, and what its time goes into."""

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import NamedTuple


class Ledger(NamedTuple):
    """Who is told.

    Attributes:
      report: `report(step)` is called once nothing more is refused, and with each line of metrics.
      spending: `with spending("compile")` or `"save"`: the time inside goes into that, and not
        into training.
      saved: `saved(step)` is called once a checkpoint of this step has been handed over.
    """

    report: Callable[[int], None] = lambda step: None
    spending: Callable[[str], AbstractContextManager[None]] = lambda kind: contextlib.nullcontext()
    saved: Callable[[int], None] = lambda step: None


SILENT = Ledger()
