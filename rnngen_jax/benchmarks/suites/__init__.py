"""The suites, one file each; a suite's name is its file's name.

A suite has a `TITLE`, the `COLUMNS` of its table, the column that is `PLOTTED`, and two functions:
`run(settings, machine)` gives the table's records as they are measured, `notes(records)` the lines
below the table.
"""

import importlib
from types import ModuleType

from rnngen_jax.discovery import defining


def names() -> list[str]:
    """Names of all suites: the files that define what a suite has."""
    return defining(__path__, "TITLE", "COLUMNS", "PLOTTED", "run", "notes")


def load(name: str) -> ModuleType:
    """The module of a suite."""
    return importlib.import_module(f"{__name__}.{name}")
