"""Two processes on one machine, as two hosts: the numbers of one, and a run that goes on."""

import json
import pathlib

import host_processes
import jax
import numpy as np
import pytest
import training_toys as toys
from tiny_runs import rnngen, tree

from rnngen_jax.training import sinks

HERE = pathlib.Path(__file__).parent
SETTINGS = {"steps": 20, "validate_every": 10}
SLOW = [("device", 1), ("stream", 2), ("device", 3)]

HOST = """
import sys
sys.path[:0] = {paths!r}
import test_hosts
test_hosts.one_host({workdir!r}, {placement!r}, {seeds})
"""


def one_host(workdir, placement, seeds):
    """What each of the processes does."""
    host_processes.join()
    go(workdir, placement, seeds, steps=10)
    go(workdir, placement, seeds)


def go(workdir, placement, seeds, **changes):
    return toys.run(
        workdir,
        devices=jax.devices()[:4],
        validate=toys.validator(),
        placement=placement,
        seeds=seeds,
        **{**SETTINGS, **changes},
    )


def read(workdir):
    lines = sinks.read(workdir / "metrics.jsonl")
    return [{k: v for k, v in line.items() if k != "images_per_second"} for line in lines]


def two_hosts(code, **given):
    """The outputs of two processes with two devices each."""
    paths = [str(HERE), str(HERE.parent)]
    return host_processes.run(code.format(paths=paths, **given), 2, 2, timeout=240)


def as_one(workdir, other, placement, seeds):
    """Compares what two hosts have logged with one process of four devices."""
    go(other, placement, seeds)
    ours, expected = read(workdir), read(other)
    assert len(ours) == len(expected) == 6
    for line, wanted in zip(ours, expected, strict=True):
        assert line.pop("split") == wanted.pop("split")
        assert line.keys() == wanted.keys()
        np.testing.assert_allclose(list(line.values()), list(wanted.values()), rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("placement", "seeds"), SLOW)
def test_two_hosts_give_the_numbers_of_one(tmp_path, placement, seeds):
    two = tmp_path / "two"
    two_hosts(HOST, workdir=str(two), placement=placement, seeds=seeds)
    as_one(two, tmp_path / "one", placement, seeds)


VERBS = """
import sys
sys.path[:0] = {paths!r}
import test_hosts
test_hosts.verbs({config!r}, {run!r}, {out!r})
test_hosts.go({workdir!r}, "stream", 1, steps=10)
test_hosts.go({workdir!r}, "stream", 1)
"""
TRAINED = ("--config.evaluation.batch_size=16", "--config.evaluation.num_images=40")


def verbs(config, run, out):
    """Trains, and does what is spread over the hosts."""
    host_processes.join()
    flags = (f"--config={config}:row_rnn-labels", f"--workdir={run}", *TRAINED, "--hosts=off")
    assert rnngen("train", *flags) == 0
    evaluated_and_drawn(run, out)
    assert rnngen("compress", f"--workdir={run}", f"--out={out}/a.rnn") == 2


def evaluated_and_drawn(run, out):
    """Of 40 images in batches of 16, and 70 in batches of 64: the last are not full."""
    assert rnngen("evaluate", f"--workdir={run}", "--num=40", "--hosts=off") == 0
    assert (
        rnngen("sample", f"--workdir={run}", "--num=70", f"--out={out}/drawn.npz", "--hosts=off")
        == 0
    )
    damaged = ("--hosts=off", "--num=10", "--completions=7", f"--out={out}/completed.npz")
    assert rnngen("complete", f"--workdir={run}", *damaged) == 0


def test_two_hosts_train_evaluate_and_draw_as_one(tmp_path, config):
    """Trained to 1e-5, and what two hosts trained is measured and drawn from to the bit."""
    run, two, one, toy = (tmp_path / name for name in ("run", "two", "one", "toy"))
    two.mkdir()
    given = {"config": str(config), "run": str(run), "out": str(two), "workdir": str(toy)}
    outputs = two_hosts(VERBS, **given)
    assert "step 20/20" in outputs[0]
    assert "nats per image" in outputs[0]
    said = [line for line in outputs[1].splitlines() if not line.startswith("[Gloo]")]
    # The first process alone prints, but for an error.
    assert said == [
        "error: compress works in one process, on all of its devices, and this is one of 2; "
        "start one, without JAX_COORDINATOR_ADDRESS."
    ]
    assert sorted(map(str, tree(two))) == ["completed.npz", "drawn.npz"]
    as_one(toy, tmp_path / "alone", "stream", 1)

    evaluated_and_drawn(run, one)
    records = [json.loads(line) for line in (run / "evaluations.jsonl").read_text().splitlines()]
    assert len(records) == 2
    for record in records:
        assert record["num_images"] == 40
        record.pop("time")
    assert records[0] == records[1]
    for name, arrays in (("drawn", 3), ("completed", 4)):
        with np.load(two / f"{name}.npz") as ours, np.load(one / f"{name}.npz") as wanted:
            assert len(ours) == len(wanted) == arrays
            for key in wanted:
                np.testing.assert_array_equal(ours[key], wanted[key])
