"""The errors that end a command in plain lines instead of a traceback, and the machine's own."""

import sys


class UserError(Exception):
    """Something that the user gave does not fit: a flag, a config field, a file, a folder.

    The message says what was given, what is allowed and what to do, in one or two lines.
    Commands print it and exit with code 2.
    """


class RunError(Exception):
    """A run that was well asked for has failed, such as a loss that is no longer finite.

    Commands print the message and exit with code 1.
    """


class DivergedError(RunError):
    """A number of a training that has to be finite is not."""


def refusal(error: OSError) -> str:
    """What the operating system refused, and where: "runs/digits/a.png: Permission denied"."""
    where = "" if error.filename is None else f"{error.filename}: "
    return where + (error.strerror or " ".join(str(error).split()).removesuffix("."))


def machine_message(error: BaseException) -> str | None:
    """The line that tells of what the machine refuses: a file, or memory, of host or device.

    Returns:
      `None` for any other error, whose traceback is of use.
    """
    if isinstance(error, OSError):
        return f"{refusal(error)}."
    if not _is_out_of_memory(error):
        return None
    # "RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes.", and more lines on a GPU.
    lines = str(error).strip().splitlines()
    detail = lines[0].removeprefix("RESOURCE_EXHAUSTED: ").rstrip(".") if lines else "no detail"
    return (
        f"out of memory: {detail}; lower --num, config.training.batch_size or "
        "config.evaluation.batch_size, or take a smaller model."
    )


def _is_out_of_memory(error: BaseException) -> bool:
    """Whether the host or a device has no more memory to give."""
    if isinstance(error, MemoryError):
        return True
    jax = sys.modules.get("jax")  # --help must not wait for it
    if jax is None or not isinstance(error, jax.errors.JaxRuntimeError):
        return False
    return "out of memory" in str(error).lower()
