"""Errors that end a command with a plain message instead of a traceback."""

import sys

LOST = 43  # exit code of those who have lost another process, and may be started again


class UserError(Exception):
    """Invalid input from the user: a flag, a config field, a file or a folder.

    The message says what is allowed, what was given and what to do, in one or two lines. Commands
    print it and exit with code 2.
    """


class RunError(Exception):
    """Failure of a run with valid input, such as a loss that is no longer finite.

    Commands print the message and exit with code 1.
    """


class DivergedError(RunError):
    """A number that has to be finite during training is not."""


class LostError(RunError):
    """Another process of the run is gone, has stalled, or has not come.

    Commands print the message and exit with code `LOST`: the same command may go on.
    """


def refusal(error: OSError) -> str:
    """The operating system's error and its file: "runs/digits/a.png: Permission denied"."""
    where = "" if error.filename is None else f"{error.filename}: "
    return where + (error.strerror or " ".join(str(error).split()).removesuffix("."))


def machine_message(error: BaseException) -> str | None:
    """A one-line message for an error of the machine: access to files or buckets, or memory.

    Returns:
      The message, or `None` for any other error, whose traceback is needed.
    """
    if isinstance(error, OSError):
        return f"{refusal(error)}."
    if type(error).__module__.split(".")[0] in ("gcsfs", "google", "aiohttp", "requests"):
        return f"a bucket cannot be read or written: {' '.join(str(error).split())[:300]}."
    if not _is_out_of_memory(error):
        return None
    # "RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes.", with more lines on a GPU.
    lines = str(error).strip().splitlines()
    detail = lines[0].removeprefix("RESOURCE_EXHAUSTED: ").rstrip(".") if lines else "no detail"
    return (
        f"out of memory: {detail}; lower --num, config.training.batch_size or "
        "config.evaluation.batch_size, or use a smaller model."
    )


def _is_out_of_memory(error: BaseException) -> bool:
    """Whether the host or a device is out of memory."""
    if isinstance(error, MemoryError):
        return True
    jax = sys.modules.get("jax")  # not imported for this, so that --help stays fast
    if jax is None or not isinstance(error, jax.errors.JaxRuntimeError):
        return False
    return "out of memory" in str(error).lower()
