"""What a run begins with is what it goes on with: in config.json, and in each checkpoint."""

import contextlib
import io
import json
import math
import re
import shutil

import numpy as np
import pytest
from tiny_runs import rnngen, tree

import rnngen_jax as rg
from rnngen_jax import continuing, experiment
from rnngen_jax.errors import UserError
from rnngen_jax.training import digests, stored
from rnngen_jax.training.checkpoints import open_checkpoints

COSINE = ("--config.optimizer.schedule=cosine", "--config.training.sample_every=0")
WARMED = (*COSINE, "--config.optimizer.warmup_fraction=0.5")


def steps(number):
    return f"--config.training.steps={number}"


@pytest.fixture
def train(config, capsys):
    """`train(workdir, *flags) -> (code, stdout, stderr)`."""

    def call(workdir, *flags):
        capsys.readouterr()
        code = rnngen("train", f"--config={config}", f"--workdir={workdir}", *flags)
        return code, *capsys.readouterr()

    return call


@pytest.fixture(scope="session")
def short(config, tmp_path_factory):
    """A run that began with 4 steps of a cosine, half of them its warm-up, and what it printed."""
    workdir, printed = tmp_path_factory.mktemp("short") / "run", io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert rnngen("train", f"--config={config}", f"--workdir={workdir}", *WARMED) == 0
    return workdir, printed.getvalue()


@pytest.fixture
def cosine(short, tmp_path):
    return shutil.copytree(short[0], tmp_path / "cosine")


def optimizer(workdir):
    return json.loads((workdir / "config.json").read_text())["optimizer"]


def meta(workdir, step):
    return stored.meta(workdir / "checkpoints" / str(step))


def parameters(workdir):
    """How many, by the checkpoint's arrays."""
    arrays = meta(workdir, 4)["arrays"]
    return sum(math.prod(a["shape"]) for name, a in arrays.items() if name.startswith("params."))


def rewritten(workdir, step, **fields):
    """Gives a checkpoint's meta other fields, under a right digest; `None` takes one away."""
    path = workdir / "checkpoints" / str(step) / "meta" / "metadata"
    values = {**json.loads(path.read_text()), **fields}
    values = {name: value for name, value in values.items() if value is not None}
    del values["digest"]
    path.write_text(json.dumps({**values, "digest": digests.digest(values)}))


def test_a_schedule_is_resolved_once_and_more_steps_say_that_it_has_ended(train, cosine):
    begun = optimizer(cosine)
    assert (begun["decay_steps"], begun["warmup_steps"], begun["warmup_fraction"]) == (4, 2, 0.0)
    before = json.loads((cosine / "config.json").read_text())
    code, out, _ = train(cosine, *WARMED, steps(6))
    assert code == 0
    said = "the cosine schedule ends at step 4; up to step 6 the learning rate stays at its last"
    assert f"config.optimizer: {said} value, 1e-05." in out
    assert "warmup" not in out  # which was said when the run began
    before["training"]["steps"] = 6
    assert json.loads((cosine / "config.json").read_text()) == before
    assert meta(cosine, 6)["config"] == before


def test_the_same_command_again_leaves_config_json_as_it_is(train, cosine):
    before = (cosine / "config.json").read_bytes()
    code, out, _ = train(cosine, *WARMED)
    assert code == 0
    assert "step 4 is done already" in out
    assert (cosine / "config.json").read_bytes() == before


def test_what_a_run_says_before_its_first_step(short):
    workdir, printed = short
    lines = printed.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("step 2/4"))
    assert lines[: at - 1] == [
        "data digits: 1,297 train, 200 validation, 300 test images, 8x8x1, 17 levels",
        "config.optimizer.warmup_steps: 2, the config's 0.5 of its steps",
        f"model pixel_rnn: {parameters(workdir):,} parameters",
        "devices: 8 x cpu",
    ]
    assert re.fullmatch(r"compiling \.\.\. \d+\.\d s", lines[at - 1])
    assert re.search(r"  \d+\.\d s left$", lines[at])
    assert not re.search("left", "".join(lines[at + 1 :]))  # which are of the last step
    assert "left" not in (workdir / "metrics.jsonl").read_text()


def test_a_longer_schedule_from_the_start(train, tmp_path):
    flags = (*COSINE, "--config.optimizer.decay_steps=6")
    code, out, _ = train(tmp_path, *flags)
    assert (code, optimizer(tmp_path)["decay_steps"]) == (0, 6)
    assert "schedule ends" not in out
    code, out, _ = train(tmp_path, *COSINE, steps(6))  # the length is the run's, said or not
    assert (code, optimizer(tmp_path)["decay_steps"]) == (0, 6)
    assert "schedule ends" not in out


@pytest.mark.parametrize("where", ["config.json", "checkpoint"])
def test_another_length_is_refused(train, cosine, where):
    if where == "checkpoint":
        (cosine / "config.json").unlink()
    before = tree(cosine)
    code, out, err = train(cosine, *WARMED, steps(6), "--config.optimizer.decay_steps=6")
    assert (code, out) == (2, "")
    assert "holds a run of another config: optimizer.decay_steps: 4 -> 6" in err
    assert len(err.splitlines()) == 2
    assert tree(cosine) == before


def test_checkpoints_alone_are_a_run_that_goes_on_as_it_began(train, cosine):
    before = json.loads((cosine / "config.json").read_text())
    (cosine / "config.json").unlink()
    code, out, _ = train(cosine, *WARMED, steps(6))
    assert code == 0
    assert "going on from step 4" in out
    before["training"]["steps"] = 6
    assert json.loads((cosine / "config.json").read_text()) == before


def test_checkpoints_alone_of_another_config_are_left_alone(train, pixel):
    (pixel / "config.json").unlink()
    before = tree(pixel)
    other = ("--config.optimizer.learning_rate=0.5", "--config.training.seed=9", steps(6))
    code, out, err = train(pixel, *other)
    assert (code, out) == (2, "")
    said = r"4 holds a run of another config: optimizer.learning_rate: 0.001 -> 0.5; "
    assert re.search(said + "training.seed: 3 -> 9.\n", err)
    assert len(err.splitlines()) == 2
    assert tree(pixel) == before


def test_checkpoints_of_another_config_than_config_json_are_left_alone(train, pixel, cosine):
    """The same model and images, so that the arrays would fit."""
    shutil.rmtree(pixel / "checkpoints")
    shutil.copytree(cosine / "checkpoints", pixel / "checkpoints")
    before = tree(pixel)
    code, _, err = train(pixel, steps(6))
    assert code == 2
    assert "optimizer.schedule: 'cosine' -> 'constant'" in err
    assert tree(pixel) == before


@pytest.mark.parametrize(
    ("given", "todo"),
    [(None, "format 1, .*train anew, or use the version"), (3, "format 3, .*update rnngen_jax")],
)
def test_a_checkpoint_of_another_format_is_left_alone(train, pixel, capsys, given, todo):
    rewritten(pixel, 4, format=given)
    before = tree(pixel)
    code, out, err = train(pixel, steps(6))
    assert (code, out) == (2, "")
    assert re.search(todo, err)
    assert len(err.splitlines()) == 1
    for verb in ("evaluate", "sample"):
        assert rnngen(verb, f"--workdir={pixel}") == 2
        assert re.search(todo, capsys.readouterr().err)
    assert rnngen("doctor", f"--workdir={pixel}") == 1
    assert re.search(todo, capsys.readouterr().out)
    assert tree(pixel) == before


def test_a_config_that_this_version_does_not_know_is_named(train, pixel):
    kept = stored.meta(pixel / "checkpoints" / "4")["config"]
    kept["training"]["patience_of_saints"] = 1
    rewritten(pixel, 4, config=kept)
    before = tree(pixel)
    code, _, err = train(pixel, steps(6))
    assert code == 2
    assert "checkpoints/4 is not a config of this version: config.training.patience_of_s" in err
    assert tree(pixel) == before


def aged(pixel):
    """Makes a run look as if it were older than every field that it leaves at its default."""
    usual = experiment.to_dict(experiment.check({"model": {"name": "pixel_rnn"}}))
    count = 0

    def shorten(fields, defaults):
        nonlocal count
        for name in [n for n in fields if n != "name" and fields[n] == defaults.get(n)]:
            del fields[name]
            count += 1

    kept = stored.meta(pixel / "checkpoints" / "4")
    written = json.loads((pixel / "config.json").read_text())
    for config in (kept["config"], written):
        for section, fields in config.items():
            shorten(fields, usual[section])
    shorten(kept["identity"]["model"], usual["model"])
    shorten(kept["identity"]["spec"], {"frames": 0, "channels": 1})
    rewritten(pixel, 4, config=kept["config"], identity=kept["identity"])
    (pixel / "config.json").write_text(json.dumps(written))
    return count


def test_a_run_older_than_some_fields_opens_and_goes_on_with_their_defaults(train, pixel):
    before = json.loads((pixel / "config.json").read_text())
    images = rg.load(pixel).sample(3)
    assert aged(pixel) > 60
    run = rg.load(pixel)
    np.testing.assert_array_equal(run.sample(3), images)
    assert rnngen("doctor", f"--workdir={pixel}") == 0
    code, out, _ = train(pixel, steps(6))
    assert code == 0
    assert "going on from step 4" in out
    before["training"]["steps"] = 6
    assert json.loads((pixel / "config.json").read_text()) == before
    assert meta(pixel, 6)["identity"]["model"]["dropout"] == 0


def test_a_run_older_than_a_field_that_is_set_now_is_another_run(train, pixel):
    aged(pixel)
    other = tree(pixel)
    for _ in ("config.json", "the checkpoint alone"):
        code, _, err = train(pixel, steps(6), "--config.model.dropout=0.25")
        assert code == 2
        assert "holds a run of another config: model.dropout: 0.0 -> 0.25" in err
        assert tree(pixel) == other
        (pixel / "config.json").unlink(missing_ok=True)
        other = tree(pixel)
    written = stored.meta(pixel / "checkpoints" / "4")["config"]
    written["model"]["dropout"] = 0.25  # in config.json alone, so that the checkpoint is asked
    (pixel / "config.json").write_text(json.dumps(written))
    with pytest.raises(UserError, match=r"model.dropout is 0.0 there and 0.25 here"):
        rg.load(pixel)


def test_the_digest_of_a_run_is_that_of_the_fields_that_it_was_written_with(pixel, monkeypatch):
    """So that codes and compressed files of a run stay its own when a model gets a new field."""
    digest = rg.load(pixel).digest
    of = continuing.identity

    def later(settings, spec):
        found = of(settings, spec)
        return {**found, "model": {**found["model"], "new": 0}}

    def usual(settings, of=continuing.defaults):
        return {"model": {**of(settings)["model"], "new": 0}}

    monkeypatch.setattr(continuing, "identity", later)
    with pytest.raises(UserError, match=r"model.new is 'missing' there and 0 here"):
        rg.load(pixel)
    monkeypatch.setattr(continuing, "defaults", usual)
    assert rg.load(pixel).digest == digest


def test_each_checkpoint_says_the_whole_config(pixel):
    found = json.loads((pixel / "config.json").read_text())
    assert open_checkpoints(pixel / "checkpoints").newest_meta()["config"] == found
