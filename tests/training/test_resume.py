"""A run that is killed with SIGKILL and started again ends bit-equal to one that was not."""

import pathlib
import shutil
import signal
import subprocess
import sys

import jax
import pytest
import training_toys as toys

from rnngen_jax.training import sinks
from rnngen_jax.training.checkpoints import open_checkpoints
from rnngen_jax.training.config import OptimizerConfig

HERE = pathlib.Path(__file__).parent
SETTINGS = {
    "steps": 40,
    "log_every": 20,
    "checkpoint_every": 10,
    "validate_every": 15,
    "sample_every": 5,
    "ema_decay": 0.9,
}

# Runs in a process of its own and kills itself while it draws at step `at`. By then the checkpoint
# of step 30 is whole; or, with `in_save`, its save has begun and cannot end.
KILLED = """
import os, pathlib, signal, sys, time
sys.path.insert(0, {here!r})
import orbax.checkpoint as ocp
import test_resume

checkpoints, at, in_save = pathlib.Path({workdir!r}) / "checkpoints", {at}, {in_save}

def wait_for(pattern):
    while not list(checkpoints.glob(pattern)):
        time.sleep(0.01)

def draw(params, extra, step):
    if in_save and step == 30:
        wait_for("20")
        ocp.CompositeCheckpointHandler.finalize = lambda *args, **kwargs: time.sleep(60)
    if step == at:
        if at > 30:
            wait_for("30*tmp*" if in_save else "30")
        os.kill(os.getpid(), signal.SIGKILL)

test_resume.go(checkpoints.parent, {devices}, {kind!r}, draw)
"""


def go(workdir, devices=1, kind="jit", draw=lambda params, extra, step: None):
    return toys.run(
        workdir,
        optimizer=OptimizerConfig(learning_rate=0.05, schedule="cosine", clip_norm=1.0),
        validate=toys.validator(),
        draw=draw,
        devices=jax.devices()[:devices],
        parallelism=kind,
        **SETTINGS,
    )


def kill(workdir, at, in_save=False, devices=1, kind="jit"):
    program = KILLED.format(
        here=str(HERE), workdir=str(workdir), at=at, in_save=in_save, devices=devices, kind=kind
    )
    repository = HERE.parents[1]
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=repository, capture_output=True, timeout=120
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()


def content(workdir):
    """Digests of all arrays of the last state, and all metrics but the speed."""
    checkpoints = open_checkpoints(workdir / "checkpoints")
    assert checkpoints.find("latest") == SETTINGS["steps"]
    assert all(health.ok for health in checkpoints.health())
    meta = checkpoints.restore_evaluated("latest", toys.autoencoder(), toys.IDENTITY).meta
    assert any(name.startswith("opt_state.") for name in meta["arrays"])
    lines = [
        {name: value for name, value in line.items() if name != "images_per_second"}
        for line in sinks.read(workdir / "metrics.jsonl")
    ]
    state = {name: meta[name] for name in ("arrays", "best", "stale", "count", "sums")}
    return state, lines, checkpoints.steps()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("whole")
    go(workdir)
    return content(workdir)


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A run that was killed at step 35; its newest checkpoint is that of step 30."""
    workdir = tmp_path_factory.mktemp("killed") / "run"
    kill(workdir, at=35)
    return workdir


@pytest.mark.optimised
def test_killed_between_two_checkpoints(tmp_path, killed, whole):
    tmp_path = shutil.copytree(killed, tmp_path / "run")
    lines = sinks.read(tmp_path / "metrics.jsonl")
    assert [line["step"] for line in lines] == [15, 20, 30]
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 35, "spl')  # as a kill in the middle of a line leaves it
    go(tmp_path)
    assert content(tmp_path) == whole


def test_killed_in_the_middle_of_a_save(tmp_path, whole):
    kill(tmp_path, at=35, in_save=True)
    steps = open_checkpoints(tmp_path / "checkpoints").steps()
    assert 30 not in steps  # its save had begun
    assert list((tmp_path / "checkpoints").glob("30*tmp*"))
    go(tmp_path)
    assert content(tmp_path) == whole
    assert not list((tmp_path / "checkpoints").glob("*tmp*"))


def test_killed_before_the_first_checkpoint(tmp_path, whole):
    kill(tmp_path, at=5)
    go(tmp_path)
    assert content(tmp_path) == whole


@pytest.mark.parametrize("harm", ["empty", "truncated"])
def test_a_newest_checkpoint_that_is_not_whole_is_walked_over(
    tmp_path, killed, whole, harm, capsys
):
    tmp_path = shutil.copytree(killed, tmp_path / "run")
    newest = tmp_path / "checkpoints" / "30"
    files = [file for file in newest.rglob("*") if file.is_file()]
    for file in files:
        if harm == "empty":
            file.unlink()
        else:
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    if harm == "empty":
        for folder in sorted(newest.rglob("*"), reverse=True):
            folder.rmdir()
    go(tmp_path)
    printed = capsys.readouterr().out
    assert "checkpoint 30 is damaged" in printed
    assert "going on from step 20." in printed
    assert content(tmp_path) == whole


@pytest.mark.parametrize("kind", ["jit", "pmap"])
def test_killed_on_eight_devices(tmp_path, kind):
    kill(tmp_path / "parts", at=35, devices=8, kind=kind)
    go(tmp_path / "parts", 8, kind)
    go(tmp_path / "whole", 8, kind)
    assert content(tmp_path / "parts") == content(tmp_path / "whole")
