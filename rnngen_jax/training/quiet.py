"""Keeps Orbax and TensorStore from printing errors that they raise as well."""

import functools
import logging
import re
import sys

from absl import logging as absl_logging


@functools.cache
def silence_repeated_errors() -> None:
    """From now on, a checkpoint that cannot be written, such as to a full disk, is told once.

    Orbax logs each error of its threads with a traceback, and raises it from the next save or wait.
    It closes the save's event loop with the first array that fails: of each other array, asyncio
    logs the error when its task is forgotten, or TensorStore prints that the loop is closed. All
    of it comes from threads, at any time after the error, so that no `with` block would hold it.
    Everything else is printed as before.
    """
    absl_logging.get_absl_logger().addFilter(_not_an_error_of_orbax)
    logging.getLogger("asyncio").addFilter(_not_a_task_of_orbax)
    before = sys.unraisablehook

    def hook(unraisable: "sys.UnraisableHookArgs") -> None:
        late = unraisable.object is None and isinstance(unraisable.exc_value, RuntimeError)
        if not (late and str(unraisable.exc_value) == "Event loop is closed"):
            before(unraisable)

    sys.unraisablehook = hook


def _not_an_error_of_orbax(record: logging.LogRecord) -> bool:
    """Whether a record was logged elsewhere, or is no error."""
    return record.levelno < logging.ERROR or "orbax" not in record.pathname


def _not_a_task_of_orbax(record: logging.LogRecord) -> bool:
    """Whether a record is of any other task, whose code its message names."""
    return re.search(r"defined at \S*orbax", record.getMessage()) is None
