"""The verbs of the command line, one file each: a docstring, the flags it takes, and `run`.

The docstring's first line is the verb's line in `rnngen --help`; `rnngen VERB --help` shows the
rest. `FLAGS` is a tuple of `flags.Flag` and `flags.Group`. `run` takes their values by keyword and
returns the exit code, or `None` for 0. Slow imports, such as JAX, belong inside `run`.
"""

from rnngen_jax.discovery import defining


def names() -> list[str]:
    """All verbs: the files that define `FLAGS` and `run`."""
    return defining(__path__, "FLAGS", "run")
