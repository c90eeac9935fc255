"""Layers of other libraries, one file per library.

Each file has `missing() -> str | None`, the reason why it cannot run here, and
`contenders(problem)`, its layers with the problem's parameters. Those that are written in JAX and
can be compiled for a machine that is not here also have `layers(problem)`, the same before they are
compiled. Libraries are imported only inside
functions: they are optional, and some have side effects on the whole process.
"""

import importlib
from types import ModuleType

from rnngen_jax.benchmarks.contenders import Contender, Layer
from rnngen_jax.benchmarks.problem import Problem
from rnngen_jax.discovery import defining


def names() -> list[str]:
    """Names of all peers: the files that define `missing` and `contenders`."""
    return defining(__path__, "missing", "contenders")


def load(name: str) -> ModuleType:
    """The module of a peer."""
    return importlib.import_module(f"{__name__}.{name}")


def left_out(compiled: bool = False) -> list[str]:
    """The peers that cannot run here, one line each with the reason.

    Args:
      compiled: of those alone that have `layers`.
    """
    loaded = [load(name) for name in names()]
    reasons = [peer.missing() for peer in loaded if not compiled or hasattr(peer, "layers")]
    return [f"{reason}: left out" for reason in reasons if reason is not None]


def contenders(problem: Problem) -> list[Contender]:
    """The layers of all peers that can run here."""
    there = [load(name) for name in names() if load(name).missing() is None]
    return [one for peer in there for one in peer.contenders(problem)]


def layers(problem: Problem) -> list[Layer]:
    """The layers, not yet compiled, of all peers that have any and are installed."""
    loaded = [load(name) for name in names()]
    there = [peer for peer in loaded if hasattr(peer, "layers") and peer.missing() is None]
    return [layer for peer in there for layer in peer.layers(problem)]
