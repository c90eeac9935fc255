"""The lines that training prints before its first step."""

import re

import jax
import numpy as np
import pytest
import training_toys as toys

from rnngen_jax.data.base import Dataset
from rnngen_jax.training import opening
from rnngen_jax.training.config import OptimizerConfig, optimizer_section


def test_the_data_with_the_sizes_of_its_splits():
    splits = {"train": toys.split(1347), "validation": toys.split(150), "test": toys.split(300)}
    dataset = Dataset("digits", toys.SPEC._replace(height=8, width=9), splits, "none", 17)
    assert opening.data(dataset) == (
        "data digits: 1,347 train, 150 validation, 300 test images, 8x9x1, 17 levels"
    )


def test_the_parameters_of_each_player():
    one = {"model": {"kernel": np.zeros((100, 20)), "bias": np.zeros(20)}}
    assert opening.model("toy", one, 1) == "model toy: 2,020 parameters"
    assert opening.model("toy", one, 4) == "model toy: 505 parameters in each of 4 seeds"
    two = {"generator": np.zeros((40, 30)), "discriminator": {"kernel": np.zeros(7)}}
    assert opening.model("gan", two, 1) == "model gan: generator 1,200, discriminator 7 parameters"


class Device:
    def __init__(self, kind, process=0):
        self.device_kind, self.process_index = kind, process


def test_the_devices_by_kind():
    assert opening.devices(jax.devices()) == "devices: 8 x cpu"
    assert opening.devices([Device("TPU v4", i // 4) for i in range(8)]) == (
        "devices: 8 x TPU v4 in 2 processes"
    )
    assert opening.devices([Device("big"), Device("big"), Device("small")]) == (
        "devices: 2 x big, 1 x small"
    )


def test_schedules_that_end_before_the_training():
    sections = {
        "discriminator": optimizer_section("discriminator")(),
        "generator": OptimizerConfig(schedule="linear", learning_rate=0.2).resolved(300),
    }
    assert opening.ended_schedules(sections, 300) == []
    assert opening.ended_schedules(sections, 400) == [
        "config.optimizer: the linear schedule ends at step 300; up to step 400 the learning rate "
        "stays at its last value, 0.002."
    ]


def test_warmups_that_are_given_as_a_fraction():
    given = {
        "discriminator": optimizer_section("discriminator")(
            schedule="cosine", warmup_fraction=50 / 12000
        ),
        "generator": OptimizerConfig(schedule="cosine", warmup_steps=5),
    }
    resolved = {player: section.resolved(300) for player, section in given.items()}
    assert opening.warmups(given, resolved) == [
        "config.discriminator.warmup_steps: 1, the config's 0.00417 of its steps"
    ]


@pytest.mark.parametrize("steps", [20, 18])  # 18: the last call is of another length
def test_a_run_says_all_of_it_once_and_the_time_that_is_left(tmp_path, capsys, steps):
    toys.run(tmp_path, steps=steps, announced=["data toys"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == ["data toys", "model toy: 44 parameters", "devices: 1 x cpu"]
    assert re.fullmatch(r"compiling \.\.\. \d+\.\d s", lines[3])
    assert len(lines) == 8
    for line in lines[4:7]:
        assert re.search(r"  \d+\.\d s left$", line)
    assert lines[7].startswith(f"step {steps}/{steps}")
    assert "left" not in lines[7]
    assert "left" not in (tmp_path / "metrics.jsonl").read_text()


def test_a_run_with_nothing_to_do_says_no_more_than_that(tmp_path, capsys):
    toys.run(tmp_path, steps=5)
    capsys.readouterr()
    toys.run(tmp_path, steps=5, announced=["data toys"])
    assert capsys.readouterr().out.startswith("step 5 is done already")
