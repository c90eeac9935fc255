"""`train` in several processes: one is told to stop, one is killed, and the run goes on."""

import os
import pathlib
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from tiny_runs import rnngen

from rnngen_jax.runs import status
from rnngen_jax.training import sinks
from rnngen_jax.training.stored import meta

FLAGS = (
    "--config.training.batch_size=16",
    "--config.training.steps_per_call=2",
    "--config.training.log_every=4",
    "--config.training.validate_every=8",
    "--config.training.sample_every=20",
    "--config.training.checkpoint_every=12",
    "--config.evaluation.batch_size=5",
)
ENDLESS = "--config.training.steps=1000000"
SAVED = re.compile(r"SIGTERM: saved at step (\d+) of \d+")


def start(config, workdir, *flags, count=2, devices=4):
    """The processes of a run, on this many devices in all."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # The compiler's settings as they are: all but how many devices a process has.
    compiler = re.sub(r"(device_count)=\d+", rf"\1={devices // count}", os.environ["XLA_FLAGS"])
    environment = {
        **os.environ,
        "XLA_FLAGS": compiler,
        "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
        "JAX_NUM_PROCESSES": str(count),
    }
    command = [sys.executable, "-m", "rnngen_jax.main", "train", f"--config={config}"]
    return [
        subprocess.Popen(
            [*command, f"--workdir={workdir}", "--hosts_timeout=180", *FLAGS, *flags],
            env={**environment, "JAX_PROCESS_ID": str(index)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(count)
    ]


def until(processes, condition):
    deadline = time.monotonic() + 200
    while not condition():
        assert all(each.poll() is None for each in processes), [
            each.communicate() for each in processes
        ]
        assert time.monotonic() < deadline
        time.sleep(0.05)


def lines_of(workdir):
    path = pathlib.Path(workdir) / "metrics.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


def end(processes):
    """Exit codes, what was printed on stdout and stderr."""
    said = [each.communicate(timeout=240) for each in processes]
    return (
        [each.returncode for each in processes],
        [out for out, _ in said],
        [err for _, err in said],
    )


def newest(workdir):
    return max(int(p.name) for p in (workdir / "checkpoints").iterdir() if p.name.isdecimal())


def test_told_to_stop_then_killed_then_resumed_alone(config, tmp_path, capsys):
    workdir = tmp_path / "w"
    two = start(config, workdir, ENDLESS)
    until(two, lambda: lines_of(workdir) >= 3)
    two[1].send_signal(signal.SIGTERM)
    codes, outs, errs = end(two)
    assert codes == [42, 42], errs
    step = int(SAVED.search(outs[0])[1])
    assert step == newest(workdir)
    assert status.read(workdir)["state"] == "preempted"
    # Killed, it leaves the checkpoints that are there, and the other says who is gone.
    two = start(config, workdir, ENDLESS)
    before = lines_of(workdir)
    until(two, lambda: lines_of(workdir) >= before + 6)
    two[1].kill()
    codes, outs, errs = end(two)
    assert codes == [43, -signal.SIGKILL]
    assert f"going on from step {step}." in outs[0]
    told = [line for line in errs[0].splitlines() if line.startswith("error: ")]
    assert told == [
        f"error: process 1 on {socket.gethostname()} is gone. The last checkpoint is good: to go "
        "on, give the same command again on all."
    ]
    assert "stack trace" not in errs[0]
    assert status.read(workdir)["state"] == "failed"
    # Alone, on the eight devices of this process.
    assert jax.device_count() == 8
    kept = newest(workdir)
    last = f"--config.training.steps={kept + 4}"
    assert rnngen("train", f"--config={config}", f"--workdir={workdir}", *FLAGS, last) == 0
    assert f"going on from step {kept}." in capsys.readouterr().out
    found = status.read(workdir)
    assert (found["state"], found["step"]) == ("done", kept + 4)
    assert found["goodput"]["compile"] > 0
    steps = [
        line["step"] for line in sinks.read(workdir / "metrics.jsonl") if line["split"] == "train"
    ]
    assert steps == list(range(4, kept + 5, 4))


def left(workdir):
    """What a run leaves, but for what depends on the clock."""
    lines = sinks.read(workdir / "metrics.jsonl")
    for line in lines:
        line.pop("images_per_second", None)
    last = meta(workdir / "checkpoints" / str(newest(workdir)))
    grids = {path.name: path.read_bytes() for path in (workdir / "samples").glob("*.png")}
    return lines, last["arrays"], last["best"], grids


WHOLE = "--config.training.steps=60"


@pytest.fixture(scope="module")
def undisturbed(config, tmp_path_factory):
    """By number of processes: what an undisturbed run leaves, and the seconds that it takes."""
    found = {}
    for count in (2, 4):
        workdir = tmp_path_factory.mktemp("undisturbed") / "w"
        for fresh in (workdir.with_name("warm"), workdir):  # the second finds compiled programs
            begin = time.monotonic()
            codes, _, errs = end(start(config, fresh, WHOLE, count=count))
            assert codes == [0] * count, errs
        found[count] = (left(workdir), time.monotonic() - begin)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("moment", range(40))
def test_at_any_moment(config, tmp_path, undisturbed, moment):
    """SIGTERM to one, while compiling, training, validating or saving: all leave as one."""
    chance = random.Random(moment)
    count = chance.choice([2, 4])
    whole, seconds = undisturbed[count]
    processes = start(config, tmp_path / "w", WHOLE, count=count)
    # From here on they have met: before, there is nothing to save.
    until(processes, lambda: (tmp_path / "w" / "config.json").exists())
    time.sleep(chance.uniform(0, 0.6 * seconds))
    which = chance.randrange(count)
    processes[which].send_signal(signal.SIGTERM)
    codes, outs, errs = end(processes)
    print(f"\n{moment}: {count} processes, {which} told, {codes}, {SAVED.findall(outs[0])}")
    if codes != [0] * count:  # it had come to its end
        assert codes == [42] * count, errs
        assert int(SAVED.search(outs[0])[1]) == newest(tmp_path / "w")
        codes, _, errs = end(start(config, tmp_path / "w", WHOLE, count=count))
        assert codes == [0] * count, errs
    assert left(tmp_path / "w") == whole


@pytest.mark.slow
def test_saved_on_eight_devices_in_two_processes_and_resumed_on_fewer_in_one(config, tmp_path):
    first = ("--config.training.steps=12",)
    two = start(config, tmp_path / "two", *first, devices=8)
    assert end(two)[0] == [0, 0]
    more = ("--config.training.steps=24",)
    losses = {}
    for devices in (8, 4, 2, 1):
        workdir = tmp_path / str(devices)
        shutil.copytree(tmp_path / "two", workdir)
        (one,) = start(config, workdir, *more, count=1, devices=devices)
        codes, outs, errs = end([one])
        assert codes == [0], errs
        assert "going on from step 12." in outs[0]
        lines = sinks.read(workdir / "metrics.jsonl")
        losses[devices] = [line["loss/model"] for line in lines if "loss/model" in line]
        assert len(losses[devices]) == 6
    for devices in (4, 2, 1):
        np.testing.assert_allclose(losses[devices], losses[8], rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("moment", range(10))
def test_killed_at_any_moment(config, tmp_path, undisturbed, moment):
    """SIGKILL to one: the others end and say who, and the run goes on from its last checkpoint."""
    chance = random.Random(moment)
    count = chance.choice([2, 4])
    whole, seconds = undisturbed[count]
    processes = start(config, tmp_path / "w", WHOLE, count=count)
    until(processes, lambda: (tmp_path / "w" / "config.json").exists())
    time.sleep(chance.uniform(0, 0.6 * seconds))
    which = chance.randrange(count)
    processes[which].kill()
    begin = time.monotonic()
    codes, _, errs = end(processes)
    print(
        f"\n{moment}: {count} processes, {which} killed, {codes}, {time.monotonic() - begin:.1f} s"
    )
    if codes.count(0) < count - 1:
        for index in range(count):
            if index != which:
                assert codes[index] == 43, errs[index]
                assert f"error: process {which} on" in errs[index]
                assert "stack trace" not in errs[index]
    codes, _, errs = end(start(config, tmp_path / "w", WHOLE, count=count))
    assert codes == [0] * count, errs
    assert left(tmp_path / "w") == whole
