"""Layers of other libraries, one file per library.

Each file has `missing() -> str | None`, the reason why it cannot run here, and
`contenders(problem)`, its layers with the problem's parameters. Libraries are imported only inside
functions: they are optional, and some have side effects on the whole process.
"""

import importlib
from types import ModuleType

from rnngen_jax.benchmarks.contenders import Contender
from rnngen_jax.benchmarks.problem import Problem
from rnngen_jax.discovery import defining


def names() -> list[str]:
    """Names of all peers: the files that define `missing` and `contenders`."""
    return defining(__path__, "missing", "contenders")


def load(name: str) -> ModuleType:
    """The module of a peer."""
    return importlib.import_module(f"{__name__}.{name}")


def left_out() -> list[str]:
    """The peers that cannot run here, one line each with the reason."""
    reasons = [load(name).missing() for name in names()]
    return [f"{reason}: left out" for reason in reasons if reason is not None]


def contenders(problem: Problem) -> list[Contender]:
    """The layers of all peers that can run here."""
    there = [load(name) for name in names() if load(name).missing() is None]
    return [one for peer in there for one in peer.contenders(problem)]
