"""Timing, the roofline, shapes and tables, against values computed by hand."""

import json
import time

import pytest

from rnngen_jax.benchmarks import machine, report, roofline, timing
from rnngen_jax.benchmarks.machine import Machine
from rnngen_jax.benchmarks.problem import Shape, parse_shapes
from rnngen_jax.errors import UserError

MACHINE = Machine("toy", "tpu", 2, 1.0, 1.0, {}, {})


def test_calls_are_interleaved_and_the_first_is_not_timed(monkeypatch):
    now, order = [0.0], []
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(time, "process_time", lambda: 2 * now[0])  # two cores
    seconds = {"a": iter([100, 1, 2, 9]), "b": iter([100, 5, 5, 6])}

    def call(name):
        order.append(name)
        now[0] += next(seconds[name])

    found = timing.interleaved({name: lambda name=name: call(name) for name in seconds}, 3)
    assert "".join(order) == "ab" + "ab" + "ba" + "ab"
    assert found == {"a": timing.Timing(2, 1, 9, 2), "b": timing.Timing(5, 5, 6, 10)}
    columns = {"ms": 2000, "least": 1000, "most": 9000, "core ms": 2000}
    assert found["a"].milliseconds() == columns


@pytest.mark.parametrize(("cell", "gates"), [("lstm", 4), ("gru", 3)])
def test_roofline_counts_every_multiplication(cell, gates):
    steps, batch, inputs, hidden = shape = Shape(7, 2, 3, 5)
    # Two operations per weight and example: forwards, back to h, and for the weights' gradient.
    each = 2 * gates * batch * hidden * steps
    # At one operation per second, seconds equal operations.
    forward = roofline.seconds(cell, shape, MACHINE, gradient=False)
    assert forward == pytest.approx(each * (inputs + hidden))
    gradient = roofline.seconds(cell, shape, MACHINE, gradient=True)
    assert gradient == pytest.approx(each * (2 * inputs + 3 * hidden))


def test_roofline_of_a_small_batch_is_reading_the_weights(monkeypatch):
    fast = MACHINE._replace(platform="cpu", flops=1e30)
    monkeypatch.setattr(roofline, "cache_bandwidth", lambda size: size / 3)  # three seconds each
    shape = Shape(7, 1, 1, 5)
    assert roofline.seconds("lstm", shape, fast, gradient=False) == pytest.approx(7 * 3)
    assert roofline.seconds("lstm", shape, fast, gradient=True) == pytest.approx(2 * 7 * 3)


def test_the_machine_is_measured_and_described(monkeypatch):
    monkeypatch.setattr(machine, "_best", lambda call: (call(), 0.5)[1])  # once, in half a second
    monkeypatch.setattr(machine, "_torch_product_flops", lambda: 3e9)
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    found = machine.measure()
    assert found.flops == pytest.approx(2 * 1024**3 / 0.5)
    assert found.bandwidth == pytest.approx(2 * 2**27 / 0.5)
    assert machine.cache_bandwidth(2**20) == pytest.approx(machine.cores() * 2 * 2**24 / 0.5)
    said = found.describe()
    assert f"torch threads: {machine.cores()}; float32 products 4 GFLOP/s, memory 1 GB/s" in said
    assert "OMP_WAIT_POLICY=PASSIVE" in said
    assert f"jax {found.versions['jax']}" in said


def test_shapes_are_read_or_refused():
    assert parse_shapes("1,2,3,4;5,6,7,8") == (Shape(1, 2, 3, 4), Shape(5, 6, 7, 8))
    assert str(Shape(1, 2, 3, 4)) == "1,2,3,4"
    for text in ("", "1,2,3", "1,2,3,0", "1,2,3,x", "1,2,3,-4", "1,2,3,4;"):
        with pytest.raises(UserError, match="T,B,I,H"):
            parse_shapes(text)


def test_numbers_for_people():
    given = [None, 0.0, 1234.56, 99.94, 0.012345, -250.2]
    assert [report.number(value) for value in given] == ["", "0", "1235", "99.9", "0.0123", "-250"]


RECORDS = [
    report.Record("one", "ours", {"ms": 2.0, "ratio": 1.0}),
    report.Record("one", "flax A", {"ms": 6.0, "ratio": 3.0}),
    report.Record("one", "flax B", {"ms": 4.0, "ratio": 2.0}),
    report.Record("two", "ours", {"ms": 2.0, "ratio": 1.0}),
    report.Record("two", "keras A", {"ms": 1.0, "ratio": 0.5}),
    report.Record("two", "torch", {"ms": None, "ratio": None}),
]


def test_compare_takes_the_best_of_each_case():
    assert report.compare(RECORDS, "ratio", ("flax", "keras")) == [2.0, 0.5]
    assert report.compare(RECORDS, "ratio", ("torch",)) == []


def test_table_is_markdown():
    columns = ("ms", "a long column")
    head, rule = report.heading(columns).splitlines()
    lines = [head, rule, report.line(RECORDS[0], columns)]
    assert len({len(line) for line in lines}) == 1
    assert [line.count("|") for line in lines] == [5, 5, 5]


@pytest.mark.parametrize("pictures", [True, False])
def test_results_are_written(tmp_path, monkeypatch, pictures):
    if pictures:
        pytest.importorskip("matplotlib")
    else:
        monkeypatch.setattr(report.importlib.util, "find_spec", lambda name: None)
    results = {"toy": report.Result("Toys", "ms", RECORDS, ["a note"])}
    folder = tmp_path / "out"
    said = report.write(str(folder), MACHINE, {"rounds": 3}, results)
    content = json.loads((folder / "bench.json").read_text())
    assert content["settings"] == {"rounds": 3}
    assert content["machine"]["device"] == "toy"
    assert content["suites"]["toy"]["notes"] == ["a note"]
    first = {"case": "one", "contender": "ours", "ms": 2.0, "ratio": 1.0}
    assert content["suites"]["toy"]["records"][0] == first
    written = sorted(path.name for path in folder.iterdir())
    assert written == (["bench.json", "toy.png"] if pictures else ["bench.json"])
    assert ("matplotlib is not installed" in said[-1]) is not pictures
