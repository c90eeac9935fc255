"""`bench --target`: a chip's estimates in the place of times, and what is refused."""

import importlib.util
import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from rnngen_jax import main
from rnngen_jax.benchmarks import estimates, machine, peers, suites, timing
from rnngen_jax.benchmarks.contenders import Layer, lower_for
from rnngen_jax.benchmarks.problem import Settings, Shape
from rnngen_jax.benchmarks.suites import images, linear, training
from rnngen_jax.errors import RunError

TINY = Shape(5, 2, 1, 4)
INSTALLED = importlib.util.find_spec("libtpu") is not None

# A loop of 12 steps, as a TPU's compiler writes it, and one operation after it.
SAMPLE = """HloModule tpu, is_scheduled=true

%body.1 (p.1: (s32[], f32[4,8])) -> (s32[], f32[4,8]) {
  %p.1 = (s32[]{:T(128)}, f32[4,8]{1,0:T(4,128)}) parameter(0)
  %n.1 = s32[]{:T(128)} get-tuple-element(%p.1), index=0
  %x.1 = f32[4,8]{1,0:T(4,128)} get-tuple-element(%p.1), index=1
  %tanh.1 = f32[4,8]{1,0:T(4,128)} tanh(%x.1), backend_config={"estimated_cycles":"50000"}
  ROOT %out.1 = (s32[]{:T(128)}, f32[4,8]{1,0:T(4,128)}) tuple(%n.1, %tanh.1)
}

%condition.1 (p.2: (s32[], f32[4,8])) -> pred[] {
  %p.2 = (s32[]{:T(128)}, f32[4,8]{1,0:T(4,128)}) parameter(0)
  %n.2 = s32[]{:T(128)} get-tuple-element(%p.2), index=0
  %c.2 = s32[]{:T(128)} constant(12)
  ROOT %less.2 = pred[]{:T(512)} compare(%n.2, %c.2), direction=LT
}

ENTRY %main.1 (a.1: (s32[], f32[4,8])) -> f32[4,8] {
  %a.1 = (s32[]{:T(128)}, f32[4,8]{1,0:T(4,128)}) parameter(0)
  %while.1 = (s32[]{:T(128)}, f32[4,8]{1,0:T(4,128)}) while(%a.1), condition=%condition.1, body=%body.1
  %x.3 = f32[4,8]{1,0:T(4,128)} get-tuple-element(%while.1), index=1
  ROOT %out.3 = f32[4,8]{1,0:T(4,128)} negate(%x.3), backend_config={"estimated_cycles":"7000"}
}
"""  # noqa: E501


def test_cycles_and_bytes_of_a_loop_count_as_often_as_it_runs():
    found = estimates.estimated(SAMPLE, peak=3_000_000)
    assert found == {
        "Mcycles": (12 * 50_000 + 7_000) / 1e6,
        "MB moved": 13 * 2 * 128 / 1e6,
        "MB peak": 3.0,
    }


@pytest.fixture
def nothing_is_timed(monkeypatch):
    def fail(*_):
        raise AssertionError("timed")

    monkeypatch.setattr(timing, "once", fail)
    monkeypatch.setattr(machine, "measure", fail)


def test_a_table_of_estimates(nothing_is_timed, monkeypatch, tmp_path, capsys):
    """Compiled for a CPU, whose compiler estimates no cycles: a product stands for one here."""
    device = jax.devices("cpu")[0]
    monkeypatch.setattr(estimates, "_device", lambda _: device)
    monkeypatch.setattr(peers, "names", lambda: ["flax_linen", "torch_nn"])

    def estimated(text, peak):
        return {"Mcycles": float(text.count(" dot(")), "MB moved": 1.0, "MB peak": peak / 1e6}

    monkeypatch.setattr(estimates, "estimated", estimated)
    given = ["--suite=training", "--target=tpu:v5e", "--shapes=5,2,5,4", f"--out={tmp_path}"]
    assert main.run(["rnngen", "bench", *given]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("cpu, which is not here: compiled for, not run; jax ")
    assert "Estimates by the chip's compiler, not measured." in printed
    assert "gradient: best of flax / ours: median" in printed
    content = json.loads((tmp_path / "bench.json").read_text())
    assert content["settings"]["target"] == content["machine"]["name"] == "tpu:v5e"
    records = content["suites"]["training"]["records"]
    cases = [f"{c} {work} 5,2,5,4" for c in ("lstm", "gru") for work in ("forward", "gradient")]
    assert list(dict.fromkeys(record["case"] for record in records)) == cases
    for record in records:
        first = next(one for one in records if one["case"] == record["case"])
        assert first["contender"] == "ours"
        assert record["ratio"] == record["Mcycles"] / first["Mcycles"]
        assert record["MB peak"] > 0
        assert "ms" not in record


def test_what_is_compiled_is_the_suites_work():
    """Outputs and gradients of the programs have the shapes of the layers' own."""
    cases = [case for suite in (training, linear) for case in suite.cases(Settings(1, (TINY,)))]
    assert {case.work for case in cases} == {"forward", "gradient"}
    assert {layer.name for case in cases for layer in case.layers} >= {
        *("ours", "flax LSTMCell", "flax OptimizedLSTMCell", "flax GRUCell"),
        *("min_gru associative", "min_gru plain associative_scan", "lstm sequential"),
    }
    for case in cases[:3]:
        for layer in case.layers:
            found = lower_for(jax.devices()[0], layer, case.work).out_info
            wanted = layer.xs if case.work == "forward" else layer.params
            if case.work == "forward":
                assert found.shape == (*wanted.shape[:2], TINY.hidden)
            else:
                shapes = [jax.tree.map(np.shape, tree) for tree in (found, wanted)]
                assert shapes[0] == shapes[1]


def test_the_images_suite_compiles_gradients(monkeypatch):
    made = []

    def layers(kind, shape):
        made.append((kind, shape))
        return [Layer("ours", None, None, None, None, None, None)]

    monkeypatch.setattr(images, "layers", layers)
    monkeypatch.setattr(images, "networks", layers)
    cases = list(images.cases(Settings(1, (TINY,))))
    assert [case.name for case in cases] == [
        f"{kind} {part} gradient 5,2,1,4" for kind in images.LAYERS for part in ("layer", "network")
    ]
    assert {case.work for case in cases} == {"gradient"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--target=tpu:v3",), "--target must be tpu:v5e, or another of v4, v5e, v5p, v6e, tpu7x"),
        (("--target=v5e",), "--target must be tpu:v5e"),
        (
            ("--target=tpu:v5e", "--suite=linear,sampling"),
            "must be of choices, images, linear, training, got 'sampling'",
        ),
    ],
)
def test_what_cannot_be_compiled_is_refused_in_one_line(nothing_is_timed, capsys, given, message):
    assert main.run(["rnngen", "bench", *given]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_the_suites_that_can_be_compiled():
    assert suites.compilable() == ["choices", "images", "linear", "training"]


@pytest.mark.skipif(INSTALLED, reason="the TPU's compiler is installed")
def test_without_the_tpus_compiler_it_says_what_to_install(nothing_is_timed):
    with pytest.raises(RunError, match=r"--target=tpu:v5e needs .*pip install 'rnngen_jax\[pods\]"):
        estimates.chip("tpu:v5e")


@pytest.mark.skipif(not INSTALLED, reason="the TPU's compiler (libtpu) is not installed")
def test_ours_takes_fewer_cycles_than_flax_on_a_tpu():
    code = (
        "from rnngen_jax import main\n"
        "given = ['--suite=training', '--target=tpu:v5e', '--shapes=64,8,1,128']\n"
        "assert main.run(['rnngen', 'bench', *given]) == 0\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    if b"in use by another process" in done.stderr:
        pytest.skip("the TPU's compiler is in use by another process")
    assert done.returncode == 0, done.stderr
    rows = [line.split("|") for line in done.stdout.decode().splitlines()]
    gradients = [row for row in rows if len(row) > 4 and "gradient" in row[1]]
    assert len(gradients) >= 5
    assert all(float(row[4]) > 1.2 for row in gradients if "ours" not in row[2])
