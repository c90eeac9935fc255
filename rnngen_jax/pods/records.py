"""What was measured of programs, in a file: one whose making was interrupted is gone on with."""

import json
import pathlib
from typing import Any

from rnngen_jax.pods.compiling import Measured
from rnngen_jax.pods.hlo import Costs, Traffic
from rnngen_jax.pods.topology import Chip


def read(path: pathlib.Path) -> dict[str, Measured]:
    """What a file has, by the program's digest; none if there is no such file.

    A line that was cut short, by the end of the process that wrote it, counts as none.
    """
    found = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        found[record["program"]] = from_json(record)
    return found


def append(path: pathlib.Path, program: str, measured: Measured) -> None:
    """Adds a line; the file and its folder are made if there is none.

    Args:
      path: the file.
      program: its digest.
      measured: what was found.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a") as file:
        # On a line of its own, whatever was cut short before.
        file.write("\n" + json.dumps({"program": program, **to_json(measured)}) + "\n")


def to_json(measured: Measured) -> dict[str, Any]:
    """A JSON object."""
    found = measured._asdict()
    for name in ("least", "most"):
        moved = {kind: list(traffic) for kind, traffic in found[name].collectives.items()}
        found[name] = {**found[name]._asdict(), "collectives": moved}
    return found


def from_json(record: dict[str, Any]) -> Measured:
    """The inverse of `to_json`; what else the object has is left."""
    found = {name: record[name] for name in Measured._fields}
    found["chip"] = found["chip"] and Chip(*found["chip"])
    for name in ("least", "most"):
        moved = {kind: Traffic(*each) for kind, each in found[name]["collectives"].items()}
        found[name] = Costs(**{**found[name], "collectives": moved})
    return Measured(**found)
