"""SIGTERM: noticed between two calls, so that a run can save itself before it leaves."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

import jax
from jax.experimental import multihost_utils


@contextlib.contextmanager
def watching() -> Iterator[Callable[[int], bool]]:
    """Watches for SIGTERM inside the `with` block.

    One process has a handler of its own, in the main thread only, since Python allows no other;
    the one before comes back afterwards. Several processes have to stop at the same step: they
    ask JAX's preemption service, whose handler is there since `jax.distributed.initialize`.

    Yields:
      `asked(step)`: whether to stop after `step`; all processes get the same answer.
    """
    if jax.process_count() > 1:
        yield multihost_utils.reached_preemption_sync_point
        return
    if threading.current_thread() is not threading.main_thread():
        yield lambda step: False
        return
    received = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda number, frame: received.set())
    try:
        yield lambda step: received.is_set()
    finally:
        signal.signal(signal.SIGTERM, before)
