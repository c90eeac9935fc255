"""What was compiled, kept in a file, so that a table whose making was interrupted is finished."""

import hashlib
import json
import os
import pathlib
from collections.abc import Sequence
from importlib import metadata

import jax

from rnngen_jax.pods.compiling import Measure, Measured
from rnngen_jax.pods.hlo import Costs, Traffic

_COMPILERS = ("jax", "jaxlib", "libtpu")


def keeping(path: str | os.PathLike[str], measure: Measure) -> Measure:
    """Measures a program unless the file has what the same compiler said of the same program.

    Args:
      path: a file of one JSON object per line, to which what is measured is appended. A line that
        was cut short, by a process that was ended while it wrote, counts as none.
      measure: what measures.
    """
    path = pathlib.Path(path)
    known = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        known[record.pop("program")] = record

    def measured(lowered: jax.stages.Lowered, devices: Sequence[jax.Device]) -> Measured:
        program = _digest(lowered, devices)
        if program in known:
            return _read(known[program])
        found = measure(lowered, devices)
        known[program] = _written(found)
        line = json.dumps({"program": program, **known[program]})
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a") as file:
            # A line of its own, whatever was cut short before it.
            file.write(f"\n{line}\n")
        return found

    return measured


def _digest(lowered: jax.stages.Lowered, devices: Sequence[jax.Device]) -> str:
    """Of the program's text, the devices and the compiler's version: all that a result hangs on."""
    versions = [f"{name} {_version(name)}" for name in _COMPILERS]
    first = devices[0]
    given = [*versions, first.platform, first.device_kind, str(len(devices)), lowered.as_text()]
    return hashlib.sha256("\n".join(given).encode()).hexdigest()


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "none"


def _written(found: Measured) -> dict[str, object]:
    """A JSON object."""
    least, most = (
        {**costs._asdict(), "collectives": {k: list(v) for k, v in costs.collectives.items()}}
        for costs in (found.least, found.most)
    )
    return {**found._asdict(), "least": least, "most": most}


def _read(record: dict) -> Measured:
    """The inverse of `_written`."""
    least, most = (
        Costs(**{**costs, "collectives": {k: Traffic(*v) for k, v in costs["collectives"].items()}})
        for costs in (record["least"], record["most"])
    )
    return Measured(**{**record, "least": least, "most": most})
