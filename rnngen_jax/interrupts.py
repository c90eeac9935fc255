"""Ctrl-C and SIGTERM, for the command line: noticed whatever the program is at, never lost.

An exception raised by a signal handler can be swallowed: inside a callback of the garbage
collector it is printed and dropped, and a caller may take it for an error of its own. So nothing is
raised here. A thread reads the signals' numbers from the pipe that the interpreter writes them to,
also while the main thread is inside a compiler, and ends the process; inside `deferred` the first
signal is only noted, for the work under way to be saved, and the second ends the process.

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

INTERRUPTED = 130  # what a shell gives for a command that SIGINT has ended
PREEMPTED = 42  # not 0, which would tell a cluster that the job is done

_NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}
_LINES = {signal.SIGINT: "interrupted (Ctrl-C)", signal.SIGTERM: "terminated (SIGTERM)"}


@dataclass
class _Noted:
    """What the process was told so far, and how it answers.

    Attributes:
      first: the first signal that came, `None` before.
      deferring: whether the first is only noted.
      told: whether a line about it has been printed.
      preempted_exit_code: what SIGTERM ends with.
    """

    first: int | None = None
    deferring: bool = False
    told: bool = False
    preempted_exit_code: int = PREEMPTED


_noted = _Noted()


def install() -> None:
    """Answers SIGINT and SIGTERM from now on; called once, by the main thread.

    A signal that the process was started to ignore, as `nohup` does, stays ignored.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    threading.Thread(target=_answer, args=(reading,), name="interrupts", daemon=True).start()
    for number in _NAMES:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _nothing)
    atexit.register(_ignore)  # the first to be registered, so the last to be called


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Inside, the first signal is only noted; `asked` tells of it."""
    _noted.deferring = True
    try:
        yield
    finally:
        _noted.deferring = False


def asked() -> str | None:
    """The name of the first signal that came, "Ctrl-C" or "SIGTERM"; `None` before."""
    return None if _noted.first is None else _NAMES[_noted.first]


def told() -> None:
    """Notes that the caller has printed what came of the signal."""
    _noted.told = True


def set_preempted_exit_code(code: int) -> None:
    """Sets what SIGTERM ends with, 0 to 255."""
    _noted.preempted_exit_code = code


def exit_code(code: int) -> int:
    """`code`, or what the process has to end with after a signal that was noted.

    The signal is told of on stderr, if nothing else has.
    """
    if _noted.first is None:
        return code
    if not _noted.told:
        _print(f"error: {_LINES[_noted.first]}.")
    return _code(_noted.first)


def _nothing(number: int, frame: FrameType | None) -> None:
    """A handler, without which the interpreter would not pass the signal's number on."""


def _ignore() -> None:
    """Ignores signals from now on, when all is done but for the interpreter to clear its memory.

    It would give them back their default first, which ends the process with a code of its own.
    """
    for number in _NAMES:
        signal.signal(number, signal.SIG_IGN)


def _answer(reading: int) -> None:
    """Answers each signal, as long as the process lives."""
    while True:
        for number in os.read(reading, 64):
            if number not in _NAMES:
                continue
            if _noted.deferring and _noted.first is None:
                _noted.first = number
                if sys.stderr.isatty():
                    _print("finishing the steps under way, then saving; once more ends at once.")
            else:
                _end(number)


def _end(number: int) -> None:
    """Ends the process, as no exception surely would."""
    discard_unfinished()
    lost = " before the run was saved" if _noted.deferring else ""
    _print(f"error: {_LINES[number]}{lost}.")
    os._exit(_code(number))


def _code(number: int) -> int:
    """What the process ends with."""
    return INTERRUPTED if number == signal.SIGINT else _noted.preempted_exit_code


def _print(line: str) -> None:
    """Writes a line to stderr, past buffers whose lock the main thread may hold."""
    bar = "\n" if sys.stderr.isatty() else ""
    with contextlib.suppress(OSError):
        os.write(2, f"{bar}{line}\n".encode())
