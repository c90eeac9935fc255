"""How a run ends: done, stopped early, interrupted, refused, or with a number not finite."""

import errno
import math
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import training_toys as toys
from training_toys import kernel, lines, saved

from rnngen_jax.errors import RunError, UserError
from rnngen_jax.models.base import Aux
from rnngen_jax.training.checkpoints import open_checkpoints
from rnngen_jax.training.config import OptimizerConfig


def test_early_stopping(tmp_path, capsys):
    given = {"steps": 100, "validate_every": 5, "patience": 2}
    scores = [4.0, 3.0, 3.5, 3.0, 1.0]
    outcome = toys.run(tmp_path, validate=toys.validator(scores), **given)
    assert outcome == (20, "stopped_early", 10, 3.0)
    assert saved(tmp_path) == [10, 20]
    assert "stopped early at step 20: 2 validations in a row" in capsys.readouterr().out
    # The same command again does not train on; more patience does.
    before = (tmp_path / "metrics.jsonl").read_bytes()
    assert toys.run(tmp_path, validate=toys.validator([]), **given).state == "stopped_early"
    assert "Raise config.training.patience" in capsys.readouterr().out
    assert (tmp_path / "metrics.jsonl").read_bytes() == before
    more = toys.run(tmp_path, validate=toys.validator([3.6, 3.7]), **{**given, "patience": 4})
    assert (more.step, more.state) == (30, "stopped_early")


def test_patience_without_a_validation_is_refused(tmp_path):
    with pytest.raises(UserError, match="patience=2 needs a validation"):
        toys.run(tmp_path / "run", validate_every=5, patience=2)
    assert not (tmp_path / "run").exists()


def test_a_run_that_is_done_says_so(tmp_path, capsys):
    toys.run(tmp_path)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    for steps in (20, 15):
        assert toys.run(tmp_path, steps=steps).step == 20
        assert "step 20 is done already" in capsys.readouterr().out
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == before


def test_more_steps_go_on_where_the_run_ended_as_if_it_had_not(tmp_path, capsys):
    toys.run(tmp_path / "parts", steps=7)  # in the middle of a call, and of a line
    toys.run(tmp_path / "parts", steps=20)
    assert "going on from step 7." in capsys.readouterr().out
    toys.run(tmp_path / "whole", steps=20)
    parts, whole = lines(tmp_path / "parts"), lines(tmp_path / "whole")
    assert [line["step"] for line in parts] == [5, 7, 10, 15, 20]
    for ours, other in zip([parts[0], *parts[2:]], whole, strict=True):
        np.testing.assert_allclose(list(ours.values()), list(other.values()), rtol=1e-6)
    np.testing.assert_allclose(kernel(tmp_path / "parts"), kernel(tmp_path / "whole"), rtol=1e-5)


def failing(at, what):
    """A model whose loss or gradient is not finite at one step."""
    base = toys.autoencoder()

    def loss(params, extra, batch, key, step):
        value, aux = base.losses["model"](params, extra, batch, key, step)
        bad = step == at - 1
        if what == "loss":
            return jnp.where(bad, jnp.nan, value), aux
        if what == "metric":
            return value, Aux({"brightness": jnp.where(bad, jnp.inf, 0.0)}, aux.extra)
        # The root of 0, whose value is finite and whose gradient is not.
        weight = params["model"]["decoder"]["bias"][0]
        root = jnp.sqrt(jnp.where(bad, weight - jax.lax.stop_gradient(weight), 1.0))
        return value + root, aux

    return base._replace(losses={"model": loss})


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("loss", "loss/model is nan"),
        ("gradient", "grad_norm/model is (nan|inf)"),
        ("metric", "brightness is inf"),
    ],
)
def test_a_number_that_is_not_finite_stops_the_run(tmp_path, what, said):
    model = failing(13, what)
    with pytest.raises(RunError, match=rf"^step 13: {said}\. Last good checkpoint: step 10\."):
        toys.run(tmp_path, model)
    assert saved(tmp_path) == [10]
    assert all(health.ok for health in open_checkpoints(tmp_path / "checkpoints").health())
    assert [line["step"] for line in lines(tmp_path)] == [5, 10]


def test_without_a_checkpoint_the_error_says_so(tmp_path):
    with pytest.raises(RunError, match=r"step 3: .*Last good checkpoint: none yet"):
        toys.run(tmp_path, failing(3, "loss"))
    assert saved(tmp_path) == []


def test_a_state_that_is_not_finite_is_never_written(tmp_path):
    """The last update overflows, though its loss and gradient are finite."""
    optimizer = OptimizerConfig(name="sgd", learning_rate=3e38)
    with pytest.raises(RunError, match=r"step 1: a number in params\.model\.\S+ is -?inf"):
        toys.run(
            tmp_path,
            transform=lambda batch, key: {**batch, "image": batch["image"] + jnp.uint8(200)},
            optimizer=optimizer,
            steps=1,
            steps_per_call=1,
        )
    assert saved(tmp_path) == []


def test_a_validation_that_is_not_finite_stops_the_run(tmp_path):
    scores = toys.validator([1.0, math.nan])
    with pytest.raises(RunError, match=r"step 10: the validation's bits_per_dim is nan.*step 5"):
        toys.run(tmp_path, validate_every=5, checkpoint_every=5, validate=scores)
    assert saved(tmp_path) == [5]


def test_settings_that_do_not_fit_touch_nothing(tmp_path):
    with pytest.raises(UserError, match=r"batch_size must be a multiple of 8 .*, got 12"):
        toys.run(tmp_path / "run", batch_size=12, devices=jax.devices())
    assert not (tmp_path / "run").exists()
    toys.run(tmp_path / "run")
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "run").rglob("*")}
    with pytest.raises(UserError, match=r"another model: model\.features is 5 there and 6 here"):
        toys.run(
            tmp_path / "run",
            steps=40,
            identity={**toys.IDENTITY, "model": {"name": "toy", "features": 6}},
        )
    with pytest.raises(UserError, match="another optimizer or ema_decay"):
        toys.run(tmp_path / "run", steps=40, ema_decay=0.5)
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "run").rglob("*")} == before


def test_lines_that_are_gone_when_a_run_goes_on_are_told(tmp_path, capsys):
    toys.run(tmp_path, steps=12)
    toys.run(tmp_path, steps=14)
    assert "warning" not in capsys.readouterr().out
    path = tmp_path / "metrics.jsonl"
    first = path.read_text().splitlines(keepends=True)[0]
    path.unlink()
    toys.run(tmp_path, steps=17)
    assert f"warning: {path} is missing, and with it the lines up to step 10; the run goes on" in (
        capsys.readouterr().out
    )
    assert [line["step"] for line in lines(tmp_path)] == [15, 17]
    path.write_text(first)
    toys.run(tmp_path, steps=20)
    assert f"warning: {path} ends at step 5: the lines from there to step 15 are gone" in (
        capsys.readouterr().out
    )


def test_a_disk_that_fills_up_ends_the_run_in_one_line(tmp_path, monkeypatch):
    """What was written stays good, and the run goes on once there is room."""
    real, left = os.fsync, iter(range(7))

    def fsync(descriptor):
        if next(left, None) is None:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        with pytest.raises(RunError, match=r"^step \d+: .*: No space left on device\.$") as error:
            toys.run(tmp_path)
    assert str(tmp_path) in str(error.value)
    assert toys.run(tmp_path).step == 20
    assert [line["step"] for line in lines(tmp_path)] == [5, 10, 15, 20]


def test_a_workdir_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("kept")
    with pytest.raises(UserError, match="cannot be made"):
        toys.run(tmp_path / "file" / "run")
    assert (tmp_path / "file").read_text() == "kept"
