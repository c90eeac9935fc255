"""The suites, one file each; a suite's name is its file's name.

A suite has a `TITLE`, the `COLUMNS` of its table, the column that is `PLOTTED`, and two functions:
`run(settings, machine)` gives the table's records as they are measured, `notes(records)` the lines
below the table.
"""

import importlib
import pkgutil
from types import ModuleType


def names() -> list[str]:
    """Names of all suites."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__))


def load(name: str) -> ModuleType:
    """The module of a suite."""
    return importlib.import_module(f"{__name__}.{name}")
