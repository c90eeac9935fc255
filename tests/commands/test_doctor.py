"""`doctor --workdir` tries what other verbs do, says each thing that fails, and changes nothing."""

import json
import shutil

import pytest
from tiny_runs import rnngen, tree

from rnngen_jax.training.digests import digest


def edit_config(run, section, field, value):
    path = run / "config.json"
    settings = json.loads(path.read_text())
    settings[section][field] = value
    path.write_text(json.dumps(settings))


def edit_meta(run, change):
    path = run / "checkpoints" / "4" / "meta" / "metadata"
    meta = json.loads(path.read_text())
    del meta["digest"]
    change(meta)
    path.write_text(json.dumps({**meta, "digest": digest(meta)}))


def tear(path):
    path.write_bytes(path.read_bytes()[:40])


def without_metrics(run):
    (run / "metrics.jsonl").unlink()


def short_metrics(run):
    path = run / "metrics.jsonl"
    path.write_text(path.read_text().splitlines(keepends=True)[0])


def file_in_place(run):
    shutil.rmtree(run / "checkpoints")
    (run / "checkpoints").write_text("")


UNSOUND = {
    "torn config": (
        lambda run: tear(run / "config.json"),
        ["! config: ", "is not valid JSON", "there is no model to open it with"],
    ),
    "no config": (
        lambda run: (run / "config.json").unlink(),
        ["! config: ", "config.json is missing beside checkpoints; repeat the run's train command"],
    ),
    "a field that is none": (
        lambda run: edit_config(run, "model", "layer", 3),
        ["! config: ", "config.model.layer is not a field"],
    ),
    "no data": (
        lambda run: edit_config(run, "data", "name", "folder:none"),
        ["! data folder:none: ", "there is no model to open it with"],
    ),
    "a model that does not fit": (
        lambda run: edit_config(run, "model", "readout", "bernoulli"),
        ["! model: ", "bernoulli", "there is no model to open it with"],
    ),
    "checkpoints of another model": (
        lambda run: edit_config(run, "model", "features", 16),
        ["! checkpoint 4: ", "belongs to another model: model.features is 8 there and 16 here"],
    ),
    "another optimizer": (
        lambda run: edit_config(run, "optimizer", "name", "sgd"),
        ["checkpoint 4: sound", "! resuming from checkpoint 4: ", "another optimizer or ema_decay"],
    ),
    "no judge": (
        lambda run: edit_config(run, "evaluation", "classifier", "none"),
        ["checkpoint 4: sound", "! judge: config.evaluation.classifier=none: none holds no run"],
    ),
    "a meta that lacks something": (
        lambda run: edit_meta(run, lambda meta: meta.pop("identity")),
        ["! checkpoint 4: its meta lacks 'identity'"],
    ),
    "a meta that no run goes on from": (
        lambda run: edit_meta(run, lambda meta: meta.pop("sums")),
        ["checkpoint 4: sound", "! resuming from checkpoint 4: ", "lacks sums"],
    ),
    "a best that is gone": (
        lambda run: edit_meta(run, lambda meta: meta["best"].update(step=2)),
        ["! checkpoints: the best checkpoint, 2, is missing", "checkpoint 4: sound"],
    ),
    "no checkpoint": (
        lambda run: shutil.rmtree(run / "checkpoints"),
        ["! checkpoints: ", "holds no checkpoint"],
    ),
    "a file for checkpoints": (file_in_place, ["! checkpoints: ", "is a file"]),
    "no metrics": (without_metrics, ["! metrics: there is no", "checkpoint 4: sound"]),
    "short metrics": (
        short_metrics,
        ["metrics.jsonl ends at step 2: the lines from there to step 4 are gone"],
    ),
    "broken metrics": (
        lambda run: (run / "metrics.jsonl").write_text("{}\n"),
        ["! metrics: ", "line 1, does not hold metrics"],
    ),
}


@pytest.mark.parametrize("how", UNSOUND)
def test_what_no_verb_can_open_is_unsound(pixel, capsys, how):
    spoil, said = UNSOUND[how]
    spoil(pixel)
    before = tree(pixel)
    capsys.readouterr()
    assert rnngen("doctor", f"--workdir={pixel}") == 1
    out, err = capsys.readouterr()
    assert err == ""
    for expected in said:
        assert expected in out
    assert out.splitlines()[-1] == "unsound: see the lines that begin with !"
    assert tree(pixel) == before


def test_a_sound_run(pixel, capsys):
    assert rnngen("evaluate", f"--workdir={pixel}", "--num=5") == 0
    before = tree(pixel)
    assert rnngen("doctor", f"--workdir={pixel}") == 0
    out = capsys.readouterr().out
    assert "checkpoint 4: sound" in out
    assert "metrics: 3 lines, to step 4" in out
    assert "evaluations: 1, the newest of step 4" in out
    assert out.splitlines()[-1] == "all sound"
    assert "\n!" not in out
    assert out.count("data digits") == 1
    assert tree(pixel) == before


def test_without_a_run_there_is_nothing_to_try(tmp_path, capsys):
    assert rnngen("doctor", f"--workdir={tmp_path}") == 2
    assert "holds no run" in capsys.readouterr().err


def test_without_a_device_the_rest_is_told_all_the_same(pixel, monkeypatch, capsys):
    def fail():
        raise RuntimeError("Unable to initialize backend 'x'")

    monkeypatch.setattr("jax.local_devices", fail)
    assert rnngen("doctor", f"--workdir={pixel}") == 1
    out = capsys.readouterr().out
    assert "! devices: " in out
    assert "data digits: 8x8x1" in out
    assert "without a device its checkpoints cannot be checked" in out
    assert "damaged" not in out
