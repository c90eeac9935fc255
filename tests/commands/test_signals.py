"""`train` under Ctrl-C, SIGTERM and a second training: its line, its code, and what it leaves."""

import json
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import time

import pytest
from tiny_runs import rnngen, tree

from rnngen_jax import lock
from rnngen_jax.training.stored import meta

TRAIN = [sys.executable, "-m", "rnngen_jax.main", "train"]
CODES = {signal.SIGINT: 130, signal.SIGTERM: 42}
LINE = re.compile(
    r"error: (interrupted|terminated) \((Ctrl-C|SIGTERM)\)\.|"
    r"(Ctrl-C|SIGTERM): saved at step \d+ of \d+; to go on, give the same command again\."
)
# Of the random moments: a validation, a grid or a checkpoint at every other call.
FLAGS = (
    "--config.training.steps=60",
    "--config.training.validate_every=4",
    "--config.training.sample_every=10",
    "--config.training.checkpoint_every=6",
    "--config.evaluation.batch_size=5",
)


def training(config, workdir, *flags):
    return subprocess.Popen(
        [*TRAIN, f"--config={config}", f"--workdir={workdir}", *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def until(process, condition):
    deadline = time.monotonic() + 200
    while not condition() and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


def steps(workdir):
    folder = workdir / "checkpoints"
    return sorted(int(p.name) for p in folder.iterdir() if p.name.isdecimal())


@pytest.mark.parametrize(
    ("number", "flags", "code", "name"),
    [
        (signal.SIGINT, (), 130, "Ctrl-C"),
        # Without the flag it is 42, as test_interrupts.py has it.
        (signal.SIGTERM, ("--preempted_exit_code=0",), 0, "SIGTERM"),
    ],
)
def test_it_saves_and_leaves(config, tmp_path, number, flags, code, name):
    endless = ("--config.training.steps=1000000", "--config.training.validate_every=0")
    process = training(config, tmp_path / "w", *endless, *flags)
    lines = tmp_path / "w" / "metrics.jsonl"
    until(process, lambda: lines.exists() and lines.stat().st_size)
    process.send_signal(number)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (code, "")
    assert out.splitlines()[-1].startswith(f"{name}: saved at step {steps(tmp_path / 'w')[-1]} of")
    assert not (tmp_path / "w" / lock.NAME).exists()


def test_an_exit_code_that_is_none(config, tmp_path, capsys):
    flags = (f"--config={config}", f"--workdir={tmp_path}/w", "--preempted_exit_code=256")
    assert rnngen("train", *flags) == 2
    assert "--preempted_exit_code must be in [0, 255], got 256." in capsys.readouterr().err
    assert not (tmp_path / "w").exists()


def test_a_second_training_in_a_folder_is_refused_and_touches_nothing(config, pixel, capsys):
    before = tree(pixel)
    more = (f"--config={config}", f"--workdir={pixel}", "--config.training.steps=8")
    with lock.exclusive(pixel):
        assert rnngen("train", *more) == 2
        error = capsys.readouterr().err
        assert f"error: {pixel} is in use by process {os.getpid()} on " in error
        assert error.count("\n") == 1
        assert {
            path: file for path, file in tree(pixel).items() if path.name != lock.NAME
        } == before
        assert rnngen("sample", f"--workdir={pixel}", "--num=1", f"--out={pixel}/a.png") == 0
    assert rnngen("train", *more) == 0
    assert steps(pixel)[-1] == 8


def left(workdir):
    """What a run leaves, but for what depends on the clock."""
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        line.pop("images_per_second", None)
    last = workdir / "checkpoints" / str(steps(workdir)[-1])
    grids = {path.name: path.read_bytes() for path in (workdir / "samples").iterdir()}
    return lines, last.name, meta(last)["arrays"], meta(last)["best"], grids


@pytest.fixture(scope="module")
def undisturbed(config, tmp_path_factory):
    """A run that nothing disturbs, and the seconds from its handlers to its end."""
    workdir = tmp_path_factory.mktemp("undisturbed") / "w"
    for fresh in (workdir.with_name("warm"), workdir):  # the second finds compiled programs
        process = training(config, fresh, *FLAGS)
        until(process, lambda process=process: answers(process))
        begin = time.monotonic()
        assert process.communicate(timeout=300)[0]
        assert process.returncode == 0
    return left(workdir), time.monotonic() - begin


def answers(process):
    """Whether the process has its handlers by now."""
    status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
    caught = int(re.search(r"SigCgt:\s*(\w+)", status)[1], 16)
    return bool(caught >> (signal.SIGTERM - 1) & 1)


@pytest.mark.slow
@pytest.mark.skipif(not pathlib.Path("/proc/self/status").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("moment", range(60))
def test_at_any_moment(config, tmp_path, undisturbed, moment):
    """Imports, data, compiling, training, validation, saving: one line, its code, no bit lost."""
    whole, seconds = undisturbed
    chance = random.Random(moment)
    number = chance.choice(list(CODES))
    process = training(config, tmp_path / "w", *FLAGS)
    until(process, lambda: answers(process))
    time.sleep(chance.uniform(0, seconds))
    process.send_signal(number)
    out, err = process.communicate(timeout=300)
    # Under load Orbax warns of saves that wait for each other; that is no word about the signal.
    printed = [line for line in err.splitlines() if not line.startswith("WARNING:absl:Waiting for")]
    said = [line for line in [*out.splitlines(), *printed] if LINE.fullmatch(line)]
    if process.returncode == 0:  # it had come to its end
        assert (said, printed) == ([], [])
    else:
        assert process.returncode == CODES[number], err
        assert len(said) == 1
        assert [line for line in printed if line != said[0]] == []
    print(f"\n{moment} {number.name} {process.returncode} {said}")
    again = training(config, tmp_path / "w", *FLAGS)
    again.communicate(timeout=300)
    assert again.returncode == 0
    assert left(tmp_path / "w") == whole
