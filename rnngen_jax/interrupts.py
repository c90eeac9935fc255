"""Handling of Ctrl-C and SIGTERM by the command line, at any time and without losing a signal.

An exception raised by a signal handler can be swallowed: in a callback of the garbage collector it
is printed and dropped, and a caller may catch it as an error of its own. So nothing is raised here.
A thread reads the signals' numbers from the pipe that the interpreter writes them to, even while
the main thread is inside a compiler, and ends the process; inside `deferred` the first signal is
only noted, so that current work can be saved, and the second ends the process.

The command line installs this before anything else. The library installs no signal handlers.
"""

import atexit
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType

from rnngen_jax.files import discard_unfinished

INTERRUPTED = 130  # a shell's exit code for a command that SIGINT ended
PREEMPTED = 42  # not 0, which would tell a cluster that the job is done

_NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}
_LINES = {signal.SIGINT: "interrupted (Ctrl-C)", signal.SIGTERM: "terminated (SIGTERM)"}


@dataclass
class _Noted:
    """The signals so far, and how to handle them.

    Attributes:
      first: the first signal, or `None` before any.
      deferring: whether the first signal is only noted.
      told: whether a line about it has been printed.
      preempted_exit_code: exit code after SIGTERM.
    """

    first: int | None = None
    deferring: bool = False
    told: bool = False
    preempted_exit_code: int = PREEMPTED


_noted = _Noted()


def install() -> None:
    """Handles SIGINT and SIGTERM from now on; called once, by the main thread.

    A signal that the process was started to ignore, as `nohup` does, stays ignored.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    threading.Thread(target=_answer, args=(reading,), name="interrupts", daemon=True).start()
    for number in _NAMES:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _nothing)
    atexit.register(_ignore)  # registered first, so called last


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Inside the `with` block, the first signal is only noted; `asked` returns it."""
    _noted.deferring = True
    try:
        yield
    finally:
        _noted.deferring = False


def asked() -> str | None:
    """The name of the first signal, "Ctrl-C" or "SIGTERM"; `None` before any."""
    return None if _noted.first is None else _NAMES[_noted.first]


def told() -> None:
    """Notes that the caller has printed a line about the signal."""
    _noted.told = True


def set_preempted_exit_code(code: int) -> None:
    """Sets the exit code after SIGTERM, in [0, 255]."""
    _noted.preempted_exit_code = code


def exit_code(code: int) -> int:
    """`code`, or the exit code for a signal that was noted.

    Prints a line about the signal to stderr, unless one has been printed.
    """
    if _noted.first is None:
        return code
    if not _noted.told:
        _print(f"error: {_LINES[_noted.first]}.")
    return _code(_noted.first)


def _nothing(number: int, frame: FrameType | None) -> None:
    """A signal handler; without one the interpreter would not write the number to the pipe."""


def _ignore() -> None:
    """Ignores signals from now on, while the interpreter shuts down.

    It would restore their default handlers first, which end the process with another exit code.
    """
    for number in _NAMES:
        signal.signal(number, signal.SIG_IGN)


def _answer(reading: int) -> None:
    """Handles each signal, for the life of the process."""
    while True:
        for number in os.read(reading, 64):
            if number not in _NAMES:
                continue
            if _noted.deferring and _noted.first is None:
                _noted.first = number
                if sys.stderr.isatty():
                    _print("finishing the current steps, then saving; a second one ends at once.")
            else:
                _end(number)


def _end(number: int) -> None:
    """Ends the process at once, which no exception is certain to do."""
    discard_unfinished()
    lost = " before the run was saved" if _noted.deferring else ""
    _print(f"error: {_LINES[number]}{lost}.")
    os._exit(_code(number))


def _code(number: int) -> int:
    """The exit code after a signal."""
    return INTERRUPTED if number == signal.SIGINT else _noted.preempted_exit_code


def _print(line: str) -> None:
    """Writes a line to stderr, bypassing buffers whose lock the main thread may hold."""
    bar = "\n" if sys.stderr.isatty() else ""
    with contextlib.suppress(OSError):
        os.write(2, f"{bar}{line}\n".encode())
