"""The verbs of the command line, one file each: a docstring, the flags it takes, and `run`.

The first line of the docstring is the verb's line in `rnngen --help`, the rest is shown by
`rnngen VERB --help`. `FLAGS` is a tuple of `base.Flag`; `run` takes their values by keyword and
returns the exit code. JAX and all else that is slow to import is imported inside `run`.
"""

import pkgutil

_NOT_VERBS = {"base", "figures", "judging"}


def names() -> list[str]:
    """All verbs: the files of this folder but for those that verbs share."""
    return sorted({m.name for m in pkgutil.iter_modules(__path__)} - _NOT_VERBS)
