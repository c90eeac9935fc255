"""Runs of several seeds: evaluated together or alone, drawn from, gone on with."""

import json
import shutil

import numpy as np
import pytest
from tiny_runs import evaluated, rnngen, tree


@pytest.fixture(scope="module")
def seeds(tmp_path_factory, config, runs):
    """A run of two seeds, and the runs of their seeds."""
    root = tmp_path_factory.mktemp("seeds")
    train = ("train", f"--config={config}")
    assert rnngen(*train, f"--workdir={root}/both", "--config.training.seeds=2") == 0
    shutil.copytree(runs / "pixel", root / "0")
    assert rnngen(*train, f"--workdir={root}/1", "--config.training.seed=4") == 0
    return root


def test_seeds_are_evaluated_together_or_alone(seeds, capsys):
    singles = [evaluated(seeds / str(r)) for r in range(2)]
    capsys.readouterr()
    record = evaluated(seeds / "both")
    printed = capsys.readouterr().out
    assert record.keys() == singles[0].keys()
    assert record["protocol"] == {**singles[0]["protocol"], "seeds": 2}
    for name in singles[0]["metrics"]:
        values = [single["metrics"][name] for single in singles]
        metrics = record["metrics"]
        assert [metrics[f"{name}/seed_{s}"] for s in (3, 4)] == pytest.approx(values, rel=1e-5)
        assert metrics[name] == pytest.approx(np.mean(values), rel=1e-5)
        error = np.std(values, ddof=1) / np.sqrt(2)
        assert metrics[f"{name}/standard_error"] == pytest.approx(error, rel=1e-2)
    bits = metrics["bits_per_dim"], metrics["bits_per_dim/standard_error"]
    assert "{:.4f} ± {:.4f}".format(*bits) in printed
    assert f"{metrics['bits_per_dim/seed_4']:.4f}" in printed
    assert "mean over 2 seeds" in printed
    alone = evaluated(seeds / "both", "--seed_index=1")
    assert (alone.pop("seed"), alone.pop("seed_index")) == (4, 1)
    assert ", seed 4\n" in capsys.readouterr().out
    assert alone["metrics"] == pytest.approx(singles[1]["metrics"], rel=1e-5)
    assert alone["digest"] != record["digest"]
    for name in ("metrics", "digest", "time"):
        del alone[name], singles[1][name]
    assert alone == singles[1]


@pytest.mark.parametrize("verb", ["sample", "complete"])
def test_the_first_seed_draws_unless_another_is_asked_for(seeds, tmp_path, capsys, verb):
    def draw(workdir, *flags):
        out = tmp_path / "s.npz"
        assert rnngen(verb, f"--workdir={workdir}", "--num=8", f"--out={out}", *flags) == 0
        with np.load(out) as stored:
            return stored["image" if verb == "sample" else "completed"]

    singles = [draw(seeds / str(r)) for r in range(2)]
    assert (singles[0] != singles[1]).any()
    capsys.readouterr()
    np.testing.assert_array_equal(draw(seeds / "both"), singles[0])
    assert capsys.readouterr().out.startswith("seed 3 of 3 to 4; --seed_index=0 to 1 picks")
    np.testing.assert_array_equal(draw(seeds / "both", "--seed_index=1"), singles[1])
    assert capsys.readouterr().out.startswith("seed 4 of 3 to 4;")


@pytest.mark.parametrize("verb", ["evaluate", "sample", "complete"])
def test_a_seed_that_is_not_there_is_refused(seeds, tmp_path, capsys, verb):
    out = [] if verb == "evaluate" else [f"--out={tmp_path}/new.png"]
    for workdir, seed_index, allowed in (
        ("both", 2, "in [0, 1]"),
        ("both", -1, "in [0, 1]"),
        ("0", 1, "0"),
    ):
        flags = (f"--workdir={seeds}/{workdir}", f"--seed_index={seed_index}")
        assert rnngen(verb, *flags, *out) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"error: --seed_index must be {allowed}")
        assert error.endswith(f"got {seed_index}.\n")
        assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_another_number_of_seeds_is_another_run(seeds, config, capsys):
    before = tree(seeds / "both")
    flags = (f"--config={config}", f"--workdir={seeds}/both")
    assert rnngen("train", *flags, "--config.training.seeds=4") == 2
    assert "training.seeds: 2 -> 4" in capsys.readouterr().err
    assert tree(seeds / "both") == before


def test_a_run_of_before_there_were_seeds_has_one(pixel):
    path = pixel / "config.json"
    settings = json.loads(path.read_text())
    del settings["training"]["seeds"]
    path.write_text(json.dumps(settings))
    assert "seed" not in evaluated(pixel)
    assert "seed" not in evaluated(pixel, "--seed_index=0")
