"""The other processes of a run, as those see them who train: one value, whatever is behind it."""

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple


class Peers(NamedTuple):
    """The other processes.

    Attributes:
      mark: called at the same places in all processes, so that one that stays behind is seen.
      agree: `agree(name, value)` waits until all have said the same JSON value under this name,
        and raises a `RunError` if one has another.
      explained: a context in which an error that comes from the loss of another process ends this
        one with a line about that.
      when_over: `when_over(call)`: what is called with that line before the process ends.
    """

    mark: Callable[[], None] = lambda: None
    agree: Callable[[str, Any], None] = lambda name, value: None
    explained: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext
    when_over: Callable[[Callable[[str], None]], None] = lambda call: None


ALONE = Peers()
