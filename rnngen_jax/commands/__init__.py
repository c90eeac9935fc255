"""The verbs of the command line, one file each: a docstring, the flags it takes, and `run`.

The first line of the docstring is the verb's line in `rnngen --help`, the rest is shown by
`rnngen VERB --help`. `FLAGS` is a tuple of `base.Flag` and `base.Group`; `run` takes their values
by keyword and returns the exit code. What is slow to import, such as JAX, is imported inside `run`.
"""

from rnngen_jax.discovery import defining


def names() -> list[str]:
    """All verbs: the files that define `FLAGS` and `run`."""
    return defining(__path__, "FLAGS", "run")
