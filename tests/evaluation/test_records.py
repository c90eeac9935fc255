"""evaluations.jsonl: every evaluation is kept, even if a process ends while writing one."""

import json

import pytest

from rnngen_jax.errors import UserError
from rnngen_jax.evaluation import records


def record(step):
    return {"step": step, "metrics": {"bits_per_dim": step / 3}}


def test_records_are_added_and_the_newest_stands_alone(tmp_path):
    assert records.read(tmp_path) == []
    for step in (4, 2):
        records.add(tmp_path, record(step))
    assert records.read(tmp_path) == [record(4), record(2)]
    assert json.loads((tmp_path / records.NEWEST).read_text()) == record(2)
    assert len((tmp_path / records.ALL).read_text().splitlines()) == 2


@pytest.mark.parametrize("torn", ['{"step": 3, "met', "[1]\n", "[" * 100_000, "\n\n", "{}"])
def test_a_line_that_was_torn_is_left_out(tmp_path, torn):
    records.add(tmp_path, record(1))
    with open(tmp_path / records.ALL, "a") as file:
        file.write(torn)
    assert records.read(tmp_path) == [record(1)]
    records.add(tmp_path, record(2))
    assert records.read(tmp_path) == [record(1), record(2)]


def test_what_cannot_be_written_leaves_the_newest_as_it_was(tmp_path):
    records.add(tmp_path, record(1))
    before = (tmp_path / records.NEWEST).read_bytes()
    (tmp_path / records.ALL).unlink()
    (tmp_path / records.ALL).mkdir()
    with pytest.raises(IsADirectoryError):
        records.add(tmp_path, record(2))
    assert (tmp_path / records.NEWEST).read_bytes() == before
    with pytest.raises(OSError, match="Is a directory"):
        records.read(tmp_path)


def test_a_newest_that_cannot_be_written_is_in_the_list(tmp_path):
    (tmp_path / records.NEWEST).mkdir()
    with pytest.raises(UserError, match="cannot write"):
        records.add(tmp_path, record(1))
    assert records.read(tmp_path) == [record(1)]


def test_a_record_of_a_newer_format_is_refused(tmp_path):
    """An older record, without its format, is read."""
    records.add(tmp_path, {"metrics": {}, "format": records.FORMAT})
    records.add(tmp_path, {"metrics": {}})
    assert len(records.read(tmp_path)) == 2
    records.add(tmp_path, {"metrics": {}, "format": records.FORMAT + 1})
    with pytest.raises(UserError, match="a record of format 3, and this version reads 1 to 2; up"):
        records.read(tmp_path)
