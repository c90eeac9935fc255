"""Training on sequences: made as they are read, and too short for what is to be predicted."""

import json
import pathlib
import sys

import numpy as np
import pytest
from tiny_runs import rnngen

import rnngen_jax as rg
from rnngen_jax import experiment, models
from rnngen_jax.models.base import Sequential

CONFIG = """
from rnngen_jax import experiment

def get_config():
    config = experiment.default("bigram_toy")
    config.training.steps = config.training.steps_per_call = 2
    config.training.batch_size = 8
    config.training.validate_every = config.training.sample_every = 0
    return config
"""


@pytest.fixture
def train(tmp_path, monkeypatch, capsys):
    """`train(*flags) -> (code, stdout, stderr)`, of a toy that is found as a model that ships."""
    toys = str(pathlib.Path(__file__).parent / "toys")
    monkeypatch.setattr(models, "__path__", [*models.__path__, toys])
    (tmp_path / "toy.py").write_text(CONFIG)

    def call(*flags):
        capsys.readouterr()
        code = rnngen("train", f"--config={tmp_path}/toy.py", f"--workdir={tmp_path}/run", *flags)
        return code, *capsys.readouterr()

    yield call
    sys.modules.pop("rnngen_jax.models.bigram_toy", None)


def test_a_run_on_images_that_move(train, tmp_path):
    flags = ("--config.data.name=moving", "--config.data.context=2", "--config.data.horizon=1")
    code, out, err = train(*flags, "--config.data.canvas=10", "--config.data.objects=1")
    assert code == 0, err
    assert "data moving: 1,000,000 train, 1,000 validation, 1,000 test images, 3x10x10x1" in out
    run = rg.load(tmp_path / "run")
    assert run.dataset.spec == run.spec
    frames, _ = run.dataset.splits["test"].read(np.arange(3))
    assert np.isfinite(run.nats(frames)).all()
    kept = json.loads((tmp_path / "run" / "config.json").read_text())["data"]
    assert (kept["objects"], kept["speed"]) == (1, 0.1)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), r"config.data.context must be < 6, the number of frames of a sequence of npz:"),
        (("context=4",), r"config.data.horizon must be ≤ 2, as 4 of the 6 frames of a sequence"),
    ],
)
def test_sequences_too_short_for_a_prediction(train, tmp_path, monkeypatch, flags, message):
    """Known before the first step; a model that predicts nothing takes them."""
    np.savez(tmp_path / "x.npz", frames=np.zeros((20, 6, 2, 3, 1), np.uint8), levels=3)
    data = (f"--config.data.name=npz:{tmp_path}/x.npz", *(f"--config.data.{f}" for f in flags))
    build = experiment.build

    def sequential(*arguments):
        return build(*arguments)._replace(sequential=Sequential(*[None] * 3, False))

    with monkeypatch.context() as patch:
        patch.setattr(experiment, "build", sequential)
        code, out, err = train(*data)
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "run").exists()
