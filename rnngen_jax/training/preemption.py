"""How a run is asked to stop: between two calls, all processes at the same one."""

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import NamedTuple

import jax
from jax.experimental import multihost_utils


class Stopped(Exception):
    """A validation or a grid of samples that was left before its end, since the run is to stop."""


class Interruption(NamedTuple):
    """Who may ask a run of one process to stop, such as a signal's handler.

    Attributes:
      asked: what asks it to, such as "SIGTERM"; `None` as long as nothing does.
      deferred: a context in which there is something to save before the process ends.
    """

    asked: Callable[[], str | None] = lambda: None
    deferred: Callable[[], AbstractContextManager[object]] = contextlib.nullcontext


NEVER = Interruption()


def agreed(interruption: Interruption) -> Callable[[], str | None]:
    """What asks the run to stop after the call under way, to be asked once per call.

    Several processes have to stop at the same call: they ask JAX's preemption service, whose
    handler of SIGTERM is there since `jax.distributed.initialize`. It is asked with the ordinal of
    the call, as it answers only to a number that rises by one.
    """
    if jax.process_count() == 1:
        return interruption.asked
    ordinals = itertools.count()
    reached = multihost_utils.reached_preemption_sync_point
    return lambda: "SIGTERM" if reached(next(ordinals)) else None


def stoppable(interruption: Interruption) -> Callable[[range], Iterable[int]]:
    """`track(batches)` gives the batches, and raises `Stopped` between two once the run is to stop.

    Several processes go through to the end, since each of them may be asked at another batch.
    """

    def track(batches: range) -> Iterator[int]:
        for batch in batches:
            if jax.process_count() == 1 and interruption.asked() is not None:
                raise Stopped
            yield batch

    return track
