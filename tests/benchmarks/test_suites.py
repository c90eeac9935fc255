"""Suites at tiny sizes, some through the command line, and the correctness of their reports."""

import json
import re

import jax
import numpy as np
import pytest

from rnngen_jax import main
from rnngen_jax.benchmarks import machine, resident, suites
from rnngen_jax.benchmarks.contenders import lower_gradient, ours, peak_bytes
from rnngen_jax.benchmarks.problem import Settings, Shape, draw
from rnngen_jax.benchmarks.suites import (
    choices,
    compile,
    linear,
    memory,
    newton,
    sampling,
    training,
)
from rnngen_jax.errors import RunError

TINY = Shape(5, 2, 1, 4)
MACHINE = machine.Machine("toy", "cpu", 2, 1e9, 1e9, {}, {})


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Skips measuring the machine, and the separate process that measures memory."""
    monkeypatch.setattr(machine, "measure", lambda: MACHINE)
    monkeypatch.setattr(memory, "growth", lambda *_: 123_000_000)


def records(suite, *shapes):
    return list(suite.run(Settings(1, shapes or (TINY,)), MACHINE))


def test_bench_prints_tables_and_writes_them(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(training.peers, "names", lambda: ["flax_linen"])  # test_peers.py has all
    out = tmp_path / "out"
    arguments = ["--suite=training,sampling", "--rounds=1", "--shapes=5,2,1,4", f"--out={out}"]
    assert main.run(["rnngen", "bench", *arguments]) == 0
    printed = capsys.readouterr().out
    content = json.loads((out / "bench.json").read_text())
    assert content["settings"]["shapes"] == "5,2,1,4"
    assert list(content["suites"]) == ["training", "sampling"]
    names = {r["contender"] for r in content["suites"]["training"]["records"]}
    assert {"ours", "flax LSTMCell", "flax OptimizedLSTMCell", "flax GRUCell"} <= names
    first = None
    for record in content["suites"]["training"]["records"]:
        first = record if record["contender"] == "ours" else first
        assert first["case"] == record["case"]
        assert record["ratio"] == pytest.approx(record["ms"] / first["ms"])
        assert f"| {record['case']:<44} | {record['contender']:<38} |" in printed
        assert 0 < record["least"] <= record["ms"] <= record["most"]
        assert record["% roofline"] > 0
    assert "gradient: best of flax, keras, equinox (if installed) / ours: median" in printed


@pytest.mark.parametrize(
    ("out", "expected"),
    [
        ("file/out", "cannot write to file/out: Not a directory"),
        ("taken", "cannot write taken/bench.json: it is a folder"),
        ("drawn", "cannot write drawn/sampling.png: it is a folder"),
        ("new", None),
    ],
)
def test_out_that_cannot_be_written_is_refused_before_anything_is_measured(
    tmp_path, monkeypatch, capsys, out, expected
):
    def fail():
        raise RunError("measured.")

    monkeypatch.setattr(machine, "measure", fail)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    (tmp_path / "taken" / "bench.json").mkdir(parents=True)
    (tmp_path / "drawn" / "sampling.png").mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    code = main.run(["rnngen", "bench", "--suite=sampling", "--rounds=1", f"--out={out}"])
    error = capsys.readouterr().err
    assert (code, error.count("\n")) == (2 if expected else 1, 1)
    assert error.startswith(f"error: {expected or 'measured.'}")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_wrong_peer_stops_the_bench_in_one_line(monkeypatch, capsys):
    from rnngen_jax.benchmarks.peers import flax_linen

    right = flax_linen._to_flax

    def wrong(problem):
        params = right(problem)
        params["hi"], params["hf"] = params["hf"], params["hi"]
        return params

    monkeypatch.setattr(flax_linen, "_to_flax", wrong)
    monkeypatch.setattr(training.peers, "names", lambda: ["flax_linen"])
    code = main.run(["rnngen", "bench", "--suite=training", "--rounds=1", "--shapes=5,2,1,4"])
    error = capsys.readouterr().err
    assert code == 1
    assert re.match(r"error: lstm 5,2,1,4: outputs of flax LSTMCell.* differ from ours by", error)
    assert len(error.splitlines()) == 1


def test_linear_suite_compares_all_ways():
    found = records(linear)
    names = [record.contender for record in found]
    assert names[0] == "min_gru associative"
    assert names[-2:] == ["min_gru plain associative_scan", "lstm sequential"]
    assert all(record.values["MB"] > 0 for record in found)


def test_choices_suite_times_each_choice(monkeypatch):
    monkeypatch.setattr(choices, "STRATEGIES", ("sequential", "sequential:gates=store,unroll=2"))
    found = records(choices)
    cases = [f"{cell} gradient 5,2,1,4" for cell in ("lstm", "gru")]
    assert list(dict.fromkeys(record.case for record in found)) == cases
    assert [record.contender for record in found] == 2 * [*choices.STRATEGIES]
    assert all(record.values["ms"] > 0 for record in found)


def test_plain_associative_scan_is_the_recurrence():
    problem = draw("min_gru", TINY)
    layer = linear.plain(problem)
    ys = np.asarray(layer.apply(problem.params, problem.xs))
    w, b = problem.params["input"], problem.params["bias"]
    h = np.zeros((TINY.batch, TINY.hidden))
    for t, x in enumerate(problem.xs):
        z = 1 / (1 + np.exp(-(x @ w["z"] + b["z"])))
        h = (1 - z) * h + z * (x @ w["n"] + b["n"])
        np.testing.assert_allclose(ys[t], h, atol=1e-5)


def test_memory_suite_sees_that_remat_keeps_less(monkeypatch):
    monkeypatch.setattr(memory.flax_linen, "CELLS", {"lstm": ("LSTMCell",), "gru": ()})
    monkeypatch.setattr(memory, "WAYS", (("sequential", None), ("sequential", 128)))
    shape = Shape(512, 2, 1, 8)
    found = {r.contender: r.values for r in records(memory, shape) if r.case.startswith("lstm")}
    assert found["ours sequential, remat=128"]["MB"] < 0.6 * found["ours sequential"]["MB"]
    assert {values["RSS MB"] for values in found.values()} == {123.0}
    # At least the gates of all steps.
    kept = 4 * 512 * 2 * 8 * 4 / 1e6
    assert found["flax LSTMCell"]["MB"] > kept


def test_growth_of_a_process_is_what_the_compiler_plans():
    if not resident._CLEAR.exists():
        pytest.skip("needs Linux")
    shape = Shape(2000, 32, 1, 64)  # outputs of 16 MB, nine times as much for the gradient
    layer = next(one for one in memory.layers(draw("gru", shape)) if one.name == "flax GRUCell")
    planned = peak_bytes(lower_gradient(layer).compile())
    grown = resident.growth("gru", shape, "flax GRUCell")
    assert grown == pytest.approx(planned, rel=0.25)


def test_a_measuring_process_that_fails_is_named():
    if not resident._CLEAR.exists():
        pytest.skip("needs Linux")
    with pytest.raises(RunError, match="the process that measures none failed: KeyError"):
        resident.growth("gru", TINY, "none")


def test_newton_suite_reports_how_it_went(monkeypatch):
    monkeypatch.setattr(newton, "STRATEGIES", ("newton:overhead=inf",))
    found = records(newton, Shape(16, 2, 1, 4))
    by = {(r.case.split()[0], r.contender): r.values for r in found if " forward " in r.case}
    tried = by["contractive", "newton:overhead=inf"]
    assert tried["solved %"] == 100
    assert tried["iters"] >= 1
    assert tried["distance"] < 1e-4
    assert tried["residual"] < 1e-4
    # Solved or not, the outputs are those of the sequential run.
    assert by["chaotic", "newton:overhead=inf"]["distance"] < 1e-3
    assert "distance" not in by["contractive", "sequential"]


def test_newton_suite_stops_at_a_wrong_run(monkeypatch):
    def wrong(problem, strategy, name):
        layer = ours(problem, strategy, name)
        if strategy == "sequential":
            return layer
        return layer._replace(apply=lambda p, xs: layer.apply(p, xs) + np.nan)

    monkeypatch.setattr(newton, "ours", wrong)
    monkeypatch.setattr(newton, "STRATEGIES", ("newton",))
    with pytest.raises(RunError, match="contractive gru 5,2,1,4: outputs of newton differ"):
        records(newton)


def test_compile_suite_compiles_anew_each_time(tmp_path):
    names = ("jax_compilation_cache_dir", "jax_enable_compilation_cache")
    before = {name: getattr(jax.config, name) for name in names}
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    jax.config.update("jax_enable_compilation_cache", True)
    compile.compilation_cache.reset_cache()
    try:
        with compile.no_persistent_cache():
            compile._seconds("gru", "sequential", TINY)
        assert not [path for path in tmp_path.iterdir() if path.name.startswith("jit_loss")]
        compile._seconds("gru", "sequential", TINY)  # the cache is enabled again
        assert [path for path in tmp_path.iterdir() if path.name.startswith("jit_loss")]
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
        compile.compilation_cache.reset_cache()


def test_compile_suite_covers_its_strategies(monkeypatch):
    seconds = {4: (1.0, 2.0), 8: (1.0, 5.0)}
    monkeypatch.setattr(compile, "_seconds", lambda cell, strategy, shape: seconds[shape.steps])
    found = records(compile, Shape(4, 2, 1, 4), Shape(8, 2, 1, 4))
    assert len(found) == 2 * len(compile.CELLS)
    assert found[1].values == {"trace s": 1.0, "compile s": 5.0, "ratio": 2.0}
    assert compile.notes(found)[0].endswith("largest 2")


@pytest.mark.parametrize("sampler", ["ours", "torch"])
@pytest.mark.parametrize("certain", [0, 1])
def test_samplers_draw_from_their_logits(sampler, certain):
    params = sampling.parameters(TINY)
    # Saturated gates give a constant hidden state, and the readout is certain.
    params["cell"] = jax.tree.map(np.zeros_like, params["cell"])
    params["cell"]["bias"] = {g: np.full(TINY.hidden, 20, np.float32) for g in "ifgo"}
    params["readout"] = np.full(TINY.hidden, 100 * (2 * certain - 1), np.float32)
    if sampler == "ours":
        pixels = np.asarray(sampling.ours(params, TINY)[0](jax.random.key(3)))
    else:
        pytest.importorskip("torch")
        pixels = sampling.torch_loop(params, TINY)[0]().numpy()
    assert pixels.shape == (TINY.steps, TINY.batch)
    assert (pixels == certain).all()


def test_sampling_logits_are_those_of_a_plain_loop():
    params = sampling.parameters(TINY)
    fed = np.random.default_rng(0).integers(0, 2, (TINY.steps, TINY.batch), np.int32)
    given = np.asarray(sampling.ours(params, TINY)[1](fed))
    p = params["cell"]
    h = c = np.zeros((TINY.batch, TINY.hidden))
    pixel = np.zeros(TINY.batch, int)
    for t in range(TINY.steps):
        x = params["embedding"][pixel]
        a = {g: x @ p["input"][g] + h @ p["recurrent"][g] + p["bias"][g] for g in "ifgo"}
        i, f, o = (1 / (1 + np.exp(-a[g])) for g in "ifo")
        c = f * c + i * np.tanh(a["g"])
        h = o * np.tanh(c)
        np.testing.assert_allclose(given[t], h @ params["readout"], atol=1e-5)
        pixel = fed[t]


def test_every_suite_has_its_parts():
    assert suites.names() == [
        "choices",
        "codec",
        "codes",
        "compile",
        "draw",
        "gan",
        "images",
        "linear",
        "memory",
        "newton",
        "sampling",
        "training",
        "video",
    ]
    for name in suites.names():
        suite = suites.load(name)
        assert suite.PLOTTED in suite.COLUMNS
        assert suite.SHAPES
