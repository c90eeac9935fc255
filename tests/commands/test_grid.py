"""The grid of cells and generators trains by flags alone."""

import itertools
import json
import pathlib

import pytest

from rnngen_jax import cells, main, models
from rnngen_jax.models.grid import convolvable_names

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
]


# Cells that neither see h in one product a gate nor are linear in it.
UNCONVOLVED = sorted({*cells.names(), *VARIANTS} - set(convolvable_names()))
CONVOLVING = ["diagonal_bilstm", "row_lstm"]
# These step any cell in a loop of their own, so one of each kind will do: gated, linear, neither.
STEPPING = ["draw", "rnn_autoencoder"]
KINDS = ["lstm", "min_gru", "layer_norm_gru"]
GRID = [
    (model, cell)
    for model, cell in itertools.product(models.names(), [*cells.names(), *VARIANTS])
    if "cell" in models.config_class(model).__dataclass_fields__
    and (model not in STEPPING or cell in KINDS)
]


def train(model, cell, folder):
    run = ["rnngen", "train", f"--config={ROOT / 'configs' / model}.py", f"--workdir={folder}"]
    return main.run([*run, f"--config.model.cell={cell}", *SHORT])


@pytest.mark.parametrize(
    ("model", "cell"), [(m, c) for m, c in GRID if m not in CONVOLVING or c not in UNCONVOLVED]
)
def test_a_cell_trains_in_a_generator(model, cell, tmp_path):
    assert train(model, cell, tmp_path) == 0
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2]
    assert json.loads((tmp_path / "config.json").read_text())["model"]["cell"] == cell


@pytest.mark.parametrize("model", CONVOLVING)
@pytest.mark.parametrize("cell", UNCONVOLVED)
def test_a_cell_that_cannot_be_convolved_is_refused(model, cell, tmp_path, capsys):
    assert train(model, cell, tmp_path / "run") == 2
    assert "cannot be convolved" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
