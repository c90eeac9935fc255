"""status.json: what has become of a run, whatever ends it."""

import json

import pytest
from tiny_runs import rnngen

import rnngen_jax as rg
from rnngen_jax import experiment
from rnngen_jax.errors import DivergedError, RunError, UserError
from rnngen_jax.runs import status, training
from rnngen_jax.training.preemption import Interruption


def settings(**fields):
    config = experiment.default("pixel_rnn")
    config.model.features = 8
    config.training.update(steps=4, batch_size=8, steps_per_call=2, log_every=2)
    config.training.update(validate_every=0, sample_every=0, checkpoint_every=0)
    config.training.update(fields)
    return config


def test_a_run_that_is_done(tmp_path):
    rg.train(settings(), tmp_path / "run")
    found = status.read(tmp_path / "run")
    assert (found["state"], found["step"], found["steps"], found["message"]) == ("done", 4, 4, "")
    assert found["seconds"] > 0
    # More steps add their seconds.
    rg.train(settings(steps=6), tmp_path / "run")
    more = status.read(tmp_path / "run")
    assert (more["state"], more["step"], more["steps"]) == ("done", 6, 6)
    assert more["seconds"] > found["seconds"]


@pytest.mark.parametrize(("who", "state"), [("Ctrl-C", "interrupted"), ("SIGTERM", "preempted")])
def test_a_run_that_is_asked_to_stop(tmp_path, who, state):
    outcome = rg.train(settings(), tmp_path / "run", interruption=Interruption(lambda: who))
    assert (outcome.state, outcome.step) == (state, 2)
    found = status.read(tmp_path / "run")
    assert (found["state"], found["step"]) == (state, 2)
    assert rg.train(settings(), tmp_path / "run").state == "done"
    assert status.read(tmp_path / "run")["state"] == "done"


def test_it_says_running_while_it_runs(tmp_path, monkeypatch):
    seen, write = [], status.Reporter.write

    def spied(self, state, step, message):
        write(self, state, step, message)
        seen.append((status.read(tmp_path / "run")["state"], step))

    monkeypatch.setattr(status.Reporter, "write", spied)
    rg.train(settings(), tmp_path / "run")
    assert seen == [("running", 0), ("running", 2), ("running", 4), ("done", 4)]


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (DivergedError("a loss is nan."), "diverged"),
        (RunError("the disk is full."), "failed"),
        (KeyboardInterrupt(), "interrupted"),
        (AssertionError("a bug"), "failed"),
    ],
)
def test_a_run_that_ends_by_an_error(tmp_path, monkeypatch, error, state):
    def fail(*arguments, ledger, **others):
        (tmp_path / "run").mkdir(exist_ok=True)
        ledger.report(3)
        raise error

    monkeypatch.setattr(training.loop, "train", fail)
    with pytest.raises(type(error)):
        rg.train(settings(), tmp_path / "run")
    found = status.read(tmp_path / "run")
    assert (found["state"], found["step"]) == (state, 3)
    assert found["message"] == (str(error) or type(error).__name__)


def test_what_is_refused_leaves_it_as_it_is(tmp_path):
    rg.train(settings(), tmp_path / "run")
    before = (tmp_path / "run" / "status.json").read_bytes()
    with pytest.raises(UserError, match="seed: 0 -> 1"):
        rg.train(settings(seed=1), tmp_path / "run")
    assert (tmp_path / "run" / "status.json").read_bytes() == before
    assert status.read(tmp_path) is None


@pytest.mark.parametrize("damage", ["{", "[]", "{}", json.dumps({"state": "asleep"})])
def test_a_damaged_one_is_written_anew(tmp_path, damage):
    (tmp_path / "status.json").write_text(damage)
    with pytest.raises(UserError, match=r"status\.json is not valid"):
        status.read(tmp_path)
    status.Reporter(tmp_path, 9).write("running", 1, "")
    assert status.read(tmp_path)["steps"] == 9


class Time:
    """A clock that a test sets."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(status.time, "monotonic", lambda: self.now)


def test_goodput_says_what_the_time_went_into(tmp_path, monkeypatch):
    time = Time(monkeypatch)
    first = status.Reporter(tmp_path, 40)
    first.write("running", 0, "")
    with first.spending("compile"):
        time.now += 7
    time.now += 10  # 10 s of training to step 10
    with first.spending("save"):
        time.now += 2
    first.saved(10)
    time.now += 5  # until the last report before it is killed
    first.write("running", 14, "")
    goodput = {"train": 15.0, "compile": 7.0, "save": 2.0, "lost": 0.0}
    assert status.read(tmp_path)["goodput"] == goodput
    time.now += 1000  # nobody trains
    second = status.Reporter(tmp_path, 40)
    second.write("running", 10, "")
    with second.spending("compile"):
        time.now += 3
    time.now += 30
    second.saved(40)
    second.write("done", 40, "")
    found = status.read(tmp_path)
    assert found["goodput"] == {"train": 40.0, "compile": 10.0, "save": 2.0, "lost": 5.0}
    assert found["seconds"] == sum(found["goodput"].values())
    # A run that begins anew has lost everything.
    status.Reporter(tmp_path, 40).write("running", 0, "")
    assert status.read(tmp_path)["goodput"] == {"train": 0, "compile": 10, "save": 2, "lost": 45}


@pytest.mark.parametrize("wrong", [None, [], {"train": "x"}, {"train": -1.0}, {"train": 1e999}])
def test_a_goodput_that_is_not_valid_counts_from_nothing(tmp_path, wrong):
    facts = {"state": "done", "seconds": 1.0, "goodput": wrong, "saved": wrong}
    (tmp_path / "status.json").write_text(json.dumps(facts))
    status.Reporter(tmp_path, 9).write("running", 1, "")
    assert status.read(tmp_path)["goodput"]["lost"] == 0.0


def test_a_run_spends_its_time(tmp_path):
    rg.train(settings(checkpoint_every=2), tmp_path / "run")
    found = status.read(tmp_path / "run")
    assert list(found["saved"]) == ["2", "4"]
    assert found["seconds"] == pytest.approx(sum(found["goodput"].values()), abs=0.01)
    assert found["goodput"]["compile"] > found["goodput"]["save"] > 0
    assert found["goodput"]["lost"] == 0
    rg.train(settings(checkpoint_every=2, steps=6), tmp_path / "run")
    more = status.read(tmp_path / "run")
    assert list(more["saved"]) == ["2", "4", "6"]
    assert more["goodput"]["train"] > found["goodput"]["train"]


def test_the_verb_leaves_one(pixel):
    assert status.read(pixel)["state"] == "done"
    assert rnngen("doctor", f"--workdir={pixel}") == 0
