"""Other libraries' layers, one file for each library.

Each file has `missing() -> str | None`, why it cannot run here, and `contenders(problem)`, its
layers with the problem's parameters. The libraries are imported inside functions alone: they are
not needed to install this package, and some of them set things up for the whole process.
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
    """Why each peer that cannot run here is left out, one line each."""
    reasons = [load(name).missing() for name in names()]
    return [f"{reason}: left out" for reason in reasons if reason is not None]


def contenders(problem: Problem) -> list[Contender]:
    """The layers of all peers that can run here."""
    there = [load(name) for name in names() if load(name).missing() is None]
    return [one for peer in there for one in peer.contenders(problem)]
