"""A run in a bucket is the run that a local folder would hold, killed processes included."""

import json
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
import tiny_runs
from etils import epath
from tiny_runs import rnngen

import rnngen_jax as rg
from rnngen_jax import lease
from rnngen_jax.training import sinks


def parameters(workdir, step):
    run = rg.load(workdir, step)
    return jax.tree.map(np.asarray, (run.params, run.extra))


def assert_equal(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def lines(path):
    """Metrics without what the clock decides."""
    clock = ("per_second", "seconds")
    return [
        {name: value for name, value in line.items() if not name.endswith(clock)}
        for line in sinks.read(path)
    ]


@pytest.fixture(scope="module")
def snapshots(_store, config):
    """The objects of a run of 4 steps, and of one of 8, each in a bucket of its own."""
    for steps in (4, 8):
        _store.buckets[f"steps-{steps}"] = {}
        given = (f"--config={config}", f"--config.training.steps={steps}")
        assert rnngen("train", *given, f"--workdir=gs://steps-{steps}/a/run") == 0
    return {steps: dict(_store.buckets[f"steps-{steps}"]) for steps in (4, 8)}


@pytest.fixture
def trained(store, snapshots):
    """A copy of the run of 4 steps."""
    store.buckets[store.bucket].update(snapshots[4])
    return f"{store.url}/a/run"


@pytest.fixture
def longer(store, snapshots):
    """A copy of the run of 8 steps."""
    store.buckets[store.bucket].update(snapshots[8])
    return f"{store.url}/a/run"


def test_a_run_is_that_of_a_folder(store, trained, pixel, tmp_path, capsys):
    local = pixel  # a copy: evaluating adds to it
    names = {name.removeprefix("a/run/") for name in store.names(store.bucket)}
    assert {"config.json", "status.json", "metrics.jsonl", "samples/step_00000004.png"} <= names
    assert ".lock" not in names
    assert any(name.startswith("tensorboard/events.") for name in names)
    assert_equal(parameters(trained, 4), parameters(local, 4))
    assert lines(f"{trained}/metrics.jsonl") == lines(local / "metrics.jsonl")
    status = json.loads(store.buckets[store.bucket]["a/run/status.json"][0])
    assert (status["state"], status["step"]) == ("done", 4)
    for verb, flags in (("sample", ["--num=4"]), ("complete", ["--num=2", "--mask=lower"])):
        for workdir, out in ((trained, f"{store.url}/{verb}.npz"), (local, tmp_path / "out.npz")):
            assert rnngen(verb, f"--workdir={workdir}", f"--out={out}", *flags) == 0
        made = store.buckets[store.bucket][f"{verb}.npz"][0]
        assert made == (tmp_path / "out.npz").read_bytes()
    for workdir in (trained, local):
        assert rnngen("evaluate", f"--workdir={workdir}", "--num=8") == 0
    records = store.buckets[store.bucket]["a/run/evaluations.jsonl"][0].splitlines()
    theirs = json.loads((local / "evaluation.json").read_text())
    assert [json.loads(record)["metrics"] for record in records] == [theirs["metrics"]]
    assert rnngen("evaluate", f"--workdir={trained}", "--num=4") == 0
    assert len(store.buckets[store.bucket]["a/run/evaluations.jsonl"][0].splitlines()) == 2
    capsys.readouterr()
    assert rnngen("doctor", f"--workdir={trained}") == 0
    assert "checkpoint 4: sound" in capsys.readouterr().out


def test_a_run_goes_on(store, trained, config, capsys):
    more = (f"--config={config}", "--config.training.steps=8")
    assert rnngen("train", *more, f"--workdir={trained}") == 0
    assert "going on from step 4" in capsys.readouterr().out
    assert_equal(parameters(trained, 8), parameters("gs://steps-8/a/run", 8))
    assert [line["step"] for line in sinks.read(f"{trained}/metrics.jsonl")] == [2, 4, 4, 6, 8, 8]


def test_settings_of_another_run_are_refused(trained, config, capsys):
    given = (f"--config={config}", "--config.model.features=4", f"--workdir={trained}")
    assert rnngen("train", *given) == 2
    assert f"{trained} holds a run of another config: model.features" in capsys.readouterr().err


def test_a_damaged_checkpoint_is_copied_aside(store, longer, config, capsys):
    more = (f"--config={config}", "--config.training.steps=8", f"--workdir={longer}")
    objects = store.buckets[store.bucket]
    name = next(n for n in objects if "/8/state/" in n and "/d/" in n and "process" not in n)
    whole, generation = objects[name]
    objects[name] = (bytes(byte ^ 1 for byte in whole), generation)
    expected = [line["step"] for line in sinks.read(f"{longer}/metrics.jsonl")]
    assert rnngen("doctor", f"--workdir={longer}") == 1
    assert "! checkpoint 8" in capsys.readouterr().out
    assert rnngen("train", *more) == 0
    assert "checkpoint 8 is damaged" in capsys.readouterr().out
    steps = {n.split("/")[3] for n in objects if n.startswith("a/run/checkpoints/")}
    assert steps == {"4", "8", "8.damaged"}
    assert [line["step"] for line in sinks.read(f"{longer}/metrics.jsonl")] == expected


def test_a_checkpoint_without_its_mark_is_none(store, trained):
    objects = store.buckets[store.bucket]
    for name in [n for n in objects if n.startswith("a/run/checkpoints/4/")]:
        objects[name.replace("/4/", "/6/")] = objects[name]
    del objects["a/run/checkpoints/6/commit_success.txt"]
    assert rg.load(trained, "latest").step == 4


@pytest.mark.slow  # the marks of a checkpoint and the order of its lines are held by tests here
def test_a_killed_process_is_gone_on_from_to_the_bit(store, config):
    """SIGKILL while a checkpoint is written, whose mark is the last that comes of it."""
    given = (f"--config={config}", "--config.training.steps=12", "--config.training.keep=9")
    flags = [*given, f"--workdir={store.url}/killed"]
    command = [sys.executable, "-m", "rnngen_jax.main", "train", *flags]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        end = time.monotonic() + 120
        try:
            while not any("/checkpoints/8/state" in name for name in store.names(store.bucket)):
                assert process.poll() is None
                assert time.monotonic() < end
                time.sleep(0.005)
        finally:
            process.kill()
    assert "killed/.lock" in store.buckets[store.bucket]
    assert rnngen("train", *flags) == 0
    assert rnngen("train", *given, f"--workdir={store.url}/undisturbed") == 0
    killed, undisturbed = f"{store.url}/killed", f"{store.url}/undisturbed"
    assert_equal(parameters(killed, "latest"), parameters(undisturbed, "latest"))
    assert lines(f"{killed}/metrics.jsonl") == lines(f"{undisturbed}/metrics.jsonl")


def test_all_lines_are_there_before_a_checkpoint(store, config, monkeypatch):
    """However rarely the lines are uploaded, a checkpoint waits for those up to its step."""
    seen = {}
    put = store.put

    def watched(bucket, name, *rest):
        if name.endswith("/commit_success.txt") and name.count("/") == 3:
            there = store.buckets[bucket].get("run/metrics.jsonl", (b"",))[0]
            steps = [json.loads(line)["step"] for line in there.splitlines()]
            seen[int(name.split("/")[2])] = steps
        return put(bucket, name, *rest)

    monkeypatch.setattr(store, "put", watched)
    given = (f"--config={config}", "--config.training.steps=8", f"--workdir={store.url}/run")
    assert rnngen("train", *given) == 0
    assert seen.keys() == {4, 8}
    assert all(step in steps for step, steps in seen.items())
    uploads = [path for method, path in store.requests if "name=run/metrics.jsonl" in path]
    assert len(uploads) < 6, "not one for each line"


def test_a_bucket_that_cannot_be_reached(store, config, capsys, monkeypatch):
    for verb in (["train", f"--config={config}"], ["sample", "--out=x.png"], ["doctor"]):
        assert rnngen(*verb, "--workdir=gs://no-such-bucket/run") == 2
        assert "gs://no-such-bucket: there is no such bucket" in capsys.readouterr().err
    store.buckets["closed"] = {}
    store.broken.add("closed")
    assert rnngen("sample", "--workdir=gs://closed/run", "--out=x.png") == 2
    assert (
        "gs://closed cannot be reached: the caller does not have access to closed. Check the "
        "network and your credentials (gcloud auth application-default login"
    ) in capsys.readouterr().err
    for url in ("s3://bucket/run", "gs:/bucket/run", "gs://"):
        assert rnngen("train", f"--config={config}", f"--workdir={url}") == 2
        assert f"{url}: a path must be local or gs://BUCKET/NAME." in capsys.readouterr().err
    assert rnngen("sample", f"--workdir={store.url}/none", "--out=x.png") == 2
    assert f"{store.url}/none holds no run" in capsys.readouterr().err


def test_an_object_that_is_refused_while_training(store, config, capsys, monkeypatch):
    """The run ends with one line, as for a full disk, and goes on once the bucket does."""
    monkeypatch.setattr(lease, "PATIENCE_SECONDS", 0.5)  # its lock cannot be removed
    put = store.put

    def refusing(bucket, name, *rest):
        if name.endswith("step_00000004.png"):
            store.broken.add(bucket)
        return put(bucket, name, *rest)

    store.put = refusing
    try:
        assert rnngen("train", f"--config={config}", f"--workdir={store.url}/run") == 1
    finally:
        del store.put
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") <= 2
    assert "the caller does not have access" in error
    store.broken.clear()
    assert epath.Path(f"{store.url}/run/config.json").exists()
    assert tiny_runs.rnngen("train", f"--config={config}", f"--workdir={store.url}/run") == 0
