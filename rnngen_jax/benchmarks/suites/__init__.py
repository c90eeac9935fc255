"""The benchmark suites, one per file and named after it.

A suite has a `TITLE`, the `COLUMNS` of its table, the `PLOTTED` column, and two functions:
`run(settings, machine)` yields the table's records as they are measured, and `notes(records)`
returns the lines below the table. A suite whose work can be compiled for a machine that is not here
also has `cases(settings)`, which yields it (`estimates.py`).
"""

import importlib
from types import ModuleType

from rnngen_jax.discovery import defining


def names() -> list[str]:
    """Names of all suites: files that define all parts of a suite."""
    return defining(__path__, "TITLE", "COLUMNS", "PLOTTED", "run", "notes")


def compilable() -> list[str]:
    """Names of the suites that can be compiled for a machine that is not here."""
    return defining(__path__, "TITLE", "COLUMNS", "PLOTTED", "run", "notes", "cases")


def load(name: str) -> ModuleType:
    """The module of a suite."""
    return importlib.import_module(f"{__name__}.{name}")
