"""Keeps Orbax and TensorStore from printing errors that they also raise."""

import functools
import logging
import re
import sys
import warnings

from absl import logging as absl_logging


@functools.cache
def silence_repeated_errors() -> None:
    """From now on, a failed save of a checkpoint, such as to a full disk, is reported once.

    Orbax logs each error of its threads with a traceback, and raises it from the next save or wait.
    The first array that fails closes the save's event loop: for each other array, asyncio logs the
    error when its task is garbage-collected, or TensorStore prints that the loop is closed; and
    Python warns of the handlers' coroutines that had not begun. These come from threads at any time
    after the error, so a `with` block could not catch them.
    Everything else is printed as before.
    """
    absl_logging.get_absl_logger().addFilter(_not_an_error_of_orbax)
    logging.getLogger("asyncio").addFilter(_not_a_task_of_orbax)
    warnings.filterwarnings(
        "ignore", r"coroutine '\w*Handler\.\w+' was never awaited", RuntimeWarning
    )
    before = sys.unraisablehook

    def hook(unraisable: "sys.UnraisableHookArgs") -> None:
        late = unraisable.object is None and isinstance(unraisable.exc_value, RuntimeError)
        if not (late and str(unraisable.exc_value) == "Event loop is closed"):
            before(unraisable)

    sys.unraisablehook = hook


def _not_an_error_of_orbax(record: logging.LogRecord) -> bool:
    """Whether a record is not an error, or was not logged by Orbax."""
    return record.levelno < logging.ERROR or "orbax" not in record.pathname


def _not_a_task_of_orbax(record: logging.LogRecord) -> bool:
    """Whether a record is not about a task of Orbax's; the message names the task's code."""
    return re.search(r"defined at \S*orbax", record.getMessage()) is None
