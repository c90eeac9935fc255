"""Interleaved timing: contenders run one after another, round by round.

A temporary slowdown of a shared machine then affects all of them, and ratios remain valid.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax


class Timing(NamedTuple):
    """Seconds per call, over all rounds.

    Attributes:
      median, least, most: by the clock.
      cores: the least of this process's cores together. It hardly depends on what else runs on the
        machine; a core that waits by spinning counts, too.
    """

    median: float
    least: float
    most: float
    cores: float = 0.0

    def milliseconds(self) -> dict[str, float]:
        """The columns `ms`, `least`, `most` and `core ms` of a table."""
        found = {"ms": self.median, "least": self.least, "most": self.most, "core ms": self.cores}
        return {name: 1e3 * seconds for name, seconds in found.items()}


def times_and_ratios(timings: Mapping[str, Timing]) -> dict[str, dict[str, float]]:
    """Each contender's columns: its milliseconds, and `ratio`, its median over the first one's."""
    first = next(iter(timings.values())).median
    return {
        name: {**timing.milliseconds(), "ratio": timing.median / first}
        for name, timing in timings.items()
    }


def interleaved(calls: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, Timing]:
    """Times each call once per round, after one untimed call of each.

    The order rotates by one place per round, so that no call always follows the same one.

    Args:
      calls: each returns JAX arrays, which are waited for, or a result that is already computed.
      rounds: number of rounds, ≥ 1.

    Returns:
      The timings, in the order of `calls`.
    """
    names = list(calls)
    for name in names:
        jax.block_until_ready(calls[name]())
    seconds: dict[str, list[float]] = {name: [] for name in names}
    spent: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            before = time.process_time()
            seconds[name].append(once(calls[name]))
            spent[name].append(time.process_time() - before)
    return {
        name: Timing(statistics.median(taken), min(taken), max(taken), min(spent[name]))
        for name, taken in seconds.items()
    }


def once(call: Callable[[], Any]) -> float:
    """Seconds until the arrays of one call are ready."""
    start = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - start
