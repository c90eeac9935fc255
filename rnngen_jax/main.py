"""The command line: `rnngen VERB --flag=value ...`, or `python -m rnngen_jax.main VERB ...`."""

import sys
from collections.abc import Sequence

from rnngen_jax import interrupts
from rnngen_jax.errors import RunError, UserError, machine_message


def main() -> int:
    """What the command `rnngen` calls: `run`, with Ctrl-C and SIGTERM answered from its start.

    Returns:
      The exit code: that of `run`; 130 after Ctrl-C; 42 after SIGTERM, or what
      --preempted_exit_code sets.
    """
    interrupts.install()
    return interrupts.exit_code(run())


def run(argv: Sequence[str] | None = None) -> int:
    """Runs one verb.

    Args:
      argv: the program's name and its arguments; `sys.argv` by default.

    Returns:
      The exit code: 0; 1 for a run that failed; 2 for flags or input that do not fit; 130 for a
      `KeyboardInterrupt`. An exception that gets through is a bug of ours.
    """
    from rnngen_jax.cli import run_verb  # slower to import than signals can wait for

    argv = list(sys.argv if argv is None else argv)
    try:
        return run_verb(argv)
    except UserError as error:
        return _complain(error, 2)
    except RunError as error:
        return _complain(error, 1)
    except KeyboardInterrupt:
        return _complain("interrupted.", 130)
    except Exception as error:
        # What no check foresees is the machine's word, such as a folder that may not be read.
        message = machine_message(error)
        if message is None:
            raise
        return _complain(message, 1)


def _complain(message: object, code: int) -> int:
    """Prints an error's message alone, and gives the exit code."""
    print(f"error: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
