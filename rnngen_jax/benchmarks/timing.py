"""Interleaved timing: contenders run one after another, round by round.

What slows a shared machine down for a while then slows all of them, and ratios hold.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax


class Timing(NamedTuple):
    """Seconds of one call over all rounds."""

    median: float
    least: float
    most: float

    def milliseconds(self) -> dict[str, float]:
        """The columns of a table."""
        return {"ms": 1e3 * self.median, "least": 1e3 * self.least, "most": 1e3 * self.most}


def interleaved(calls: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, Timing]:
    """Times each call once a round, after one call of each that is not timed.

    The order turns by one place each round, so that nobody always runs after the same neighbour.

    Args:
      calls: each returns JAX arrays, which are waited for, or something that is already computed.
      rounds: number of rounds, 1 or more.
    """
    names = list(calls)
    for name in names:
        jax.block_until_ready(calls[name]())
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            seconds[name].append(once(calls[name]))
    return {
        name: Timing(statistics.median(taken), min(taken), max(taken))
        for name, taken in seconds.items()
    }


def once(call: Callable[[], Any]) -> float:
    """Seconds of one call, until its arrays are there."""
    start = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - start
