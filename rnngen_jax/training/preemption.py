"""How a run is asked to stop: between two calls, all processes at the same one."""

import contextlib
import itertools
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import NamedTuple

import jax
from jax.experimental import multihost_utils


class Stopped(Exception):
    """A validation or a grid of samples that was left before its end, since the run is to stop."""


class Interruption(NamedTuple):
    """Who may ask a run to stop, such as a signal's handler.

    Attributes:
      asked: what asks it to, such as "SIGTERM"; `None` as long as nothing does.
      deferred: a context in which there is something to save before the process ends.
    """

    asked: Callable[[], str | None] = lambda: None
    deferred: Callable[[], AbstractContextManager[object]] = contextlib.nullcontext


NEVER = Interruption()


def agreed(interruption: Interruption) -> Interruption:
    """`interruption`, whose `asked` gives all processes of a run the same answer.

    Several processes have to stop at the same call, or batch of a validation: they ask JAX's
    preemption service, whose handler of SIGTERM is there since `jax.distributed.initialize`. It is
    asked with the ordinal of the question, as it answers only to a number that rises by one; so all
    processes have to ask equally often. What one process alone has noted, such as Ctrl-C, is passed
    on to the service as a SIGTERM. To be made once per run.
    """
    if jax.process_count() == 1:
        return interruption
    ordinals = itertools.count()
    reached = multihost_utils.reached_preemption_sync_point
    found, passed_on = None, False

    def asked() -> str | None:
        nonlocal found, passed_on
        if not passed_on and interruption.asked() is not None:
            passed_on = True
            signal.raise_signal(signal.SIGTERM)
        if found is None and reached(next(ordinals)):
            found = "SIGTERM"
        return found

    return interruption._replace(asked=asked)


def stoppable(interruption: Interruption) -> Callable[[range], Iterable[int]]:
    """`track(batches)` gives the batches, and raises `Stopped` between two once the run is to stop.

    In a run of several processes, `interruption` has to be what `agreed` returns.
    """

    def track(batches: range) -> Iterator[int]:
        for batch in batches:
            if interruption.asked() is not None:
                raise Stopped
            yield batch

    return track
