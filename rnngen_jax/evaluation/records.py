"""A run's evaluations on disk: evaluations.jsonl, which only grows, and the newest record."""

import json
from collections.abc import Mapping
from typing import Any

from rnngen_jax.errors import UserError
from rnngen_jax.files import append_line, read_regular, replacing
from rnngen_jax.paths import Path

ALL = "evaluations.jsonl"
NEWEST = "evaluation.json"
FORMAT = 2  # of a record; format 1 said "replica" for a seed, and had no field for itself

Record = dict[str, Any]


def add(workdir: Path, record: Mapping[str, Any]) -> None:
    """Appends a record to evaluations.jsonl, and replaces evaluation.json by it.

    Concurrent evaluations are all kept.

    Raises:
      OSError, UserError: the folder cannot be written to.
    """
    append_line(workdir / ALL, json.dumps(record))
    with replacing(workdir / NEWEST) as temporary:
        temporary.write_text(json.dumps(record, indent=2) + "\n")


def read(workdir: Path) -> list[Record]:
    """The records of evaluations.jsonl, oldest first; none if there is no such file.

    A line that is not a record was left incomplete by the end of its process, and is skipped.

    Raises:
      OSError, UserError: the file cannot be read, or a record has a newer format.
    """
    try:
        lines = read_regular(workdir / ALL).splitlines()
    except FileNotFoundError:
        return []
    found = [record for record in map(_parsed, lines) if record is not None]
    for record in found:
        given = record.get("format", 1)
        if given not in range(1, FORMAT + 1):
            raise UserError(
                f"{workdir / ALL} holds a record of format {given!r}, and this version reads 1 to "
                f"{FORMAT}; update rnngen_jax."
            )
    return found


def _parsed(line: bytes) -> Record | None:
    """The record in a line, or `None`."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) and "metrics" in record else None
