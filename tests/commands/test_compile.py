"""`compile`: what a machine that is not here would do, from the command line."""

import importlib.util
import json

import pytest
from tiny_runs import rnngen

ITEMS = "--items=8,8,1,17,10,100"


def test_no_device_of_eight_does_the_work_of_another(config, tmp_path, capsys):
    out = tmp_path / "pod.json"
    given = (f"--config={config}:row_rnn-labels", ITEMS, "--topology=cpu:8", f"--out={out}")
    assert rnngen("compile", *given, "--batch_size=2") == 0
    page = capsys.readouterr().out.splitlines()
    assert page[0] == "row_rnn on cpu:8: 8 devices, cpu"
    assert [line.split()[0] for line in page[1:5]] == ["program", "train", "evaluate", "sample"]
    found = json.loads(out.read_text())
    assert (found["topology"], found["devices"]) == ("cpu:8", 8)
    assert set(found["programs"]) == {"train", "evaluate", "sample"}
    for each in found["programs"].values():
        assert each["batch_size"] == 2
        assert each["peak_bytes"] > 0
        assert each["flops_per_device"] == pytest.approx(each["flops_one_device"], rel=0.02)
    assert set(found["programs"]["train"]["collectives"]) == {"all-reduce"}
    assert found["programs"]["train"]["collectives"]["all-reduce"]["count"] == 1
    assert found["programs"]["evaluate"]["collectives"] == {}
    assert found["programs"]["sample"]["collectives"] == {}


def test_programs_picks_and_a_larger_batch_is_more_work(config, tmp_path):
    flops = []
    for size in (1, 4):
        out = tmp_path / f"{size}.json"
        given = (f"--config={config}", ITEMS, "--topology=cpu:1", f"--out={out}")
        assert rnngen("compile", *given, f"--batch_size={size}", "--programs=evaluate") == 0
        found = json.loads(out.read_text())["programs"]
        assert set(found) == {"evaluate"}
        flops.append(found["evaluate"]["flops_per_device"])
    assert 3 < flops[1] / flops[0] < 5


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--topology=v5:4x4", "--topology must be cpu:N, or a TPU such as v5e:4x4"),
        ("--topology=cpu:0", "--topology must be cpu:N"),
        ("--topology=v4:4x4", "--topology must be v4:2x2x4, for example, got 'v4:4x4'"),
        ("--topology=cpu:9", "needs 9 virtual devices and JAX has 8"),
        ("--batch_size=-1", "--batch_size must be ≥ 1, or 0 for the config's batch, got -1"),
        ("--programs=trian", "did you mean 'train'?"),
        ("--items=8,8", "--items must be six integers, such as 28,28,1,256,10,60000, got '8,8'"),
        ("--out=pod.txt", "--out must be a file that ends in .json, got 'pod.txt'"),
    ],
)
def test_flags_that_do_not_fit(config, capsys, flag, message):
    given = {"--topology": "--topology=cpu:1", "--items": ITEMS}
    given[flag.partition("=")[0]] = flag
    assert rnngen("compile", f"--config={config}", *given.values()) == 2
    assert message in capsys.readouterr().err


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is not None, reason="it is installed")
def test_without_the_tpus_compiler_it_says_what_to_install(config, capsys):
    given = (f"--config={config}", ITEMS, "--topology=v5e:4x4")
    assert rnngen("compile", *given) == 1
    assert "pip install 'rnngen_jax[pods]'" in capsys.readouterr().err
