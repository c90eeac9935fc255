"""The command line: `rnngen VERB --flag=value ...`, or `python -m rnngen_jax.main VERB ...`."""

import os
import select
import sys
from collections.abc import Sequence

from rnngen_jax import interrupts
from rnngen_jax.errors import LOST, LostError, RunError, UserError, machine_message

CLOSED_PIPE = 141  # a shell's exit code for a command that SIGPIPE ended


def main() -> int:
    """The entry point of `rnngen`: `run`, with Ctrl-C and SIGTERM handled from the start.

    Returns:
      The exit code: that of `run`; 130 after Ctrl-C; 42, or --preempted_exit_code, after SIGTERM.
    """
    interrupts.install()
    return interrupts.exit_code(run())


def run(argv: Sequence[str] | None = None) -> int:
    """Runs one verb.

    Args:
      argv: the program's name and its arguments; `sys.argv` by default.

    Returns:
      The exit code: 0; 1 for a run that failed; 2 for invalid flags or input; 43 for one that has
      lost another of its processes; 130 for a `KeyboardInterrupt`; 141 if the reader of stdout has
      gone, as after `rnngen ... | head`. Any exception that escapes is a bug of ours.
    """
    from rnngen_jax.cli import run_verb  # imported after the signal handlers are installed

    argv = list(sys.argv if argv is None else argv)
    try:
        code = run_verb(argv)
        sys.stdout.flush()  # here, since at exit a closed pipe cannot be caught
        return code
    except UserError as error:
        return _complain(error, 2)
    except LostError as error:
        return _complain(error, LOST)
    except RunError as error:
        return _complain(error, 1)
    except KeyboardInterrupt:
        return _complain("interrupted.", 130)
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _reader_is_gone():
            # What is still buffered would raise again at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return CLOSED_PIPE
        # Errors of the machine that no check foresees, such as a folder without read permission.
        message = machine_message(error)
        if message is None:
            raise
        return _complain(message, 1)


def _reader_is_gone() -> bool:
    """Whether stdout is a pipe that nobody reads any more."""
    poll = select.poll()
    poll.register(sys.stdout, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _complain(message: object, code: int) -> int:
    """Prints an error's message, without a traceback; returns the exit code."""
    print(f"error: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
