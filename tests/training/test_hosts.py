"""Two processes on one machine, as two hosts: the numbers of one, and a run that goes on."""

import os
import pathlib
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest
import training_toys as toys

from rnngen_jax.training import sinks

HERE = pathlib.Path(__file__).parent
SETTINGS = {"steps": 20, "validate_every": 10}
SLOW = [("device", 1), ("stream", 2), ("device", 3)]

HOST = """
import sys
import jax
jax.distributed.initialize("127.0.0.1:{port}", 2, {index})
sys.path.insert(0, {here!r})
import test_hosts
test_hosts.go({workdir!r}, {placement!r}, {seeds}, steps=10)
test_hosts.go({workdir!r}, {placement!r}, {seeds})
"""


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


@pytest.mark.parametrize(
    ("placement", "seeds"),
    [
        ("stream", 1),
        *(pytest.param(*each, marks=pytest.mark.slow) for each in SLOW),
    ],
)
def test_two_hosts_give_the_numbers_of_one(tmp_path, placement, seeds):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    two = tmp_path / "two"
    hosts = [
        subprocess.Popen(
            [
                sys.executable,
                "-c",
                HOST.format(
                    port=port,
                    index=i,
                    here=str(HERE),
                    workdir=str(two),
                    placement=placement,
                    seeds=seeds,
                ),
            ],
            cwd=HERE.parents[1],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for i in (0, 1)
    ]
    outputs = [host.communicate(timeout=240)[0] for host in hosts]
    assert [host.returncode for host in hosts] == [0, 0], outputs
    assert "step 20/20" in outputs[0]
    assert "step 20/20" not in outputs[1]  # the first process alone prints
    go(tmp_path / "one", placement, seeds)
    ours, other = read(two), read(tmp_path / "one")
    assert len(ours) == len(other) == 6
    for line, expected in zip(ours, other, strict=True):
        assert line.pop("split") == expected.pop("split")
        assert line.keys() == expected.keys()
        np.testing.assert_allclose(list(line.values()), list(expected.values()), rtol=1e-5)
