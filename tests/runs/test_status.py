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
    config.training.update(validate_every=0, sample_every=0, checkpoint_every=0, **fields)
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
    seen, write = [], status.reporter

    def spying(folder, steps):
        report = write(folder, steps)

        def spied(state, step, message):
            report(state, step, message)
            seen.append((status.read(folder)["state"], step))

        return spied

    monkeypatch.setattr(training.status, "reporter", spying)
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
    def fail(*arguments, report, **others):
        (tmp_path / "run").mkdir(exist_ok=True)
        report(3)
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
    status.reporter(tmp_path, 9)("running", 1, "")
    assert status.read(tmp_path)["steps"] == 9


def test_the_verb_leaves_one(pixel):
    assert status.read(pixel)["state"] == "done"
    assert rnngen("doctor", f"--workdir={pixel}") == 0
