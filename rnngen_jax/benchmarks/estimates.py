"""Suites compiled for a chip that is not here: estimates of the chip's compiler, nothing timed."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import jax

from rnngen_jax.benchmarks.contenders import Case, lower_for, peak_bytes
from rnngen_jax.benchmarks.machine import versions
from rnngen_jax.benchmarks.report import Record, compare, of_work, summary
from rnngen_jax.config import require
from rnngen_jax.pods import hlo, topology

COLUMNS = ("Mcycles", "ratio", "MB moved", "MB peak")
PLOTTED = "Mcycles"

# The smallest machine that the compiler knows of each chip; one of its devices is compiled for.
_SMALLEST = {
    "v4": "2x2x1",
    "v5e": "2x2",
    "v5p": "2x2x1",
    "v6e": "2x2",
    "tpu7x": "2x2x1",
}
_OTHERS = ("flax", "equinox")


class Target(NamedTuple):
    """A chip to compile for.

    Attributes:
      name: as in --target.
      device: the device's kind, as its compiler names it.
      platform: "tpu".
      versions: those of the installed packages.
    """

    name: str
    device: str
    platform: str
    versions: dict[str, str]

    def describe(self) -> str:
        """A one-line summary."""
        software = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        return f"{self.device}, which is not here: compiled for, not run; {software}"


def chip(target: str) -> Target:
    """The chip that --target names.

    Raises:
      UserError: no such chip.
      RunError: its compiler is not installed, or at work in another process.
    """
    device = _device(target)
    return Target(target, device.device_kind, device.platform, versions("libtpu"))


def run(cases: Iterable[Case], target: Target) -> Iterator[Record]:
    """Compiles each case's layers; `ratio` is a layer's cycles over those of the first, ours."""
    device = _device(target.name)
    for case in cases:
        first = None
        for layer in case.layers:
            compiled = lower_for(device, layer, case.work).compile()
            values = estimated(compiled.as_text(), peak_bytes(compiled))
            first = values["Mcycles"] if first is None else first
            yield Record(case.name, layer.name, {**values, "ratio": values["Mcycles"] / first})


def estimated(text: str, peak: int) -> dict[str, float]:
    """The columns of one program but `ratio`.

    Args:
      text: its HLO.
      peak: bytes of its temporaries and results.
    """
    found = hlo.costs(text)
    return {"Mcycles": found.cycles / 1e6, "MB moved": found.bytes / 1e6, "MB peak": peak / 1e6}


def notes(records: Sequence[Record]) -> list[str]:
    """The meaning of the columns, and how Flax's and Equinox's layers compare."""
    lines = [
        "Estimates by the chip's compiler, not measured. Mcycles: its cycles in millions, each "
        "loop as often as it runs. ratio: a contender's cycles over those of the case's first "
        "line. MB moved: read and written by what is not fused with its neighbours, at most. MB "
        "peak: temporaries and results."
    ]
    for work in ("forward", "gradient"):
        for library in _OTHERS:
            ratios = compare(of_work(records, work), "ratio", (library,))
            if ratios:
                lines.append(f"{work}: best of {library} / ours: {summary(ratios)}")
    return lines


def _device(target: str) -> jax.Device:
    platform, _, kind = target.partition(":")
    fits = platform == "tpu" and kind in _SMALLEST
    require(fits, "--target", target, f"tpu:v5e, or another of {', '.join(_SMALLEST)}")
    return topology.machine(f"{kind}:{_SMALLEST[kind]}", f"--target={target}").devices[0]
