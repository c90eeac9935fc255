"""The grid of cells and generators trains by flags alone."""

import itertools
import json
import pathlib

import pytest

from rnngen_jax import cells, main, models

ROOT = pathlib.Path(__file__).parent.parent.parent
VARIANTS = ["gru:variant=reset_before", "gru:variant=nested"]
SHORT = [
    "--config.model.features=8",
    "--config.training.steps=2",
    "--config.training.steps_per_call=1",
    "--config.training.log_every=1",
    "--config.training.validate_every=0",
    "--config.training.sample_every=0",
    "--config.training.batch_size=8",
    "--config.optimizer.warmup_steps=0",
]


@pytest.mark.parametrize(
    ("model", "cell"), list(itertools.product(models.names(), [*cells.names(), *VARIANTS]))
)
def test_a_cell_trains_in_a_generator(model, cell, tmp_path):
    run = ["rnngen", "train", f"--config={ROOT / 'configs' / model}.py", f"--workdir={tmp_path}"]
    assert main.run([*run, f"--config.model.cell={cell}", *SHORT]) == 0
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2]
    assert json.loads((tmp_path / "config.json").read_text())["model"]["cell"] == cell
