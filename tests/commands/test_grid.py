"""The grid of cells and generators is made by flags alone."""

import itertools
import json
import pathlib

import jax
import numpy as np
import pytest

from rnngen_jax import cells, continuing, experiment, main, models
from rnngen_jax.models.grid import convolvable_names
from rnngen_jax.shapes import ImageSpec
from rnngen_jax.training import program

ROOT = pathlib.Path(__file__).parent.parent.parent
VARIANTS = ["gru:variant=reset_before", "gru:variant=nested"]
CELLS = [*cells.names(), *VARIANTS]
SPEC = ImageSpec(8, 8, levels=17, classes=10)

# Cells that neither see h in one product a gate nor are linear in it.
UNCONVOLVED = sorted(set(CELLS) - set(convolvable_names()))
CONVOLVING = ["diagonal_bilstm", "row_lstm"]
# These step any cell in a loop of their own, so one of each kind will do: gated, linear, neither.
STEPPING = ["draw", "rnn_autoencoder"]
OF_FRAMES = ["video_rnn"]
KINDS = ["lstm", "min_gru", "layer_norm_gru"]
GRID = [
    (model, cell)
    for model, cell in itertools.product(models.names(), CELLS)
    if "cell" in models.config_class(model).__dataclass_fields__
    and (model not in CONVOLVING or cell not in UNCONVOLVED)
    and (model not in STEPPING or cell in KINDS)
]
SHORT = [
    "--config.model.features=8",
    "--config.training.steps=2",
    "--config.training.steps_per_call=1",
    "--config.training.log_every=1",
    "--config.training.validate_every=0",
    "--config.training.sample_every=0",
    "--config.training.batch_size=8",
]


def train(model, cell, folder):
    run = ["rnngen", "train", f"--config={ROOT / 'configs' / model}.py", f"--workdir={folder}"]
    return main.run([*run, f"--config.model.cell={cell}", *SHORT])


@pytest.mark.parametrize(("model", "cell"), GRID)
def test_a_cell_makes_a_training_step_in_a_generator(model, cell):
    """Traced with its gradients and not run: the state keeps its shapes and dtypes."""
    config = experiment.default(model)
    config.model.update(cell=cell, features=8)
    settings = continuing.resolve(experiment.check(config))
    spec = SPEC._replace(frames=3) if model in OF_FRAMES else SPEC
    built = experiment.build(settings, spec)
    make_state = program.initial_state(built, settings.optimizers, settings.training)
    step = program.one_step(built, settings.optimizers, settings.training, lambda batch, key: batch)
    batch = {
        spec.key: jax.ShapeDtypeStruct((2, *spec.shape), spec.dtype),
        "label": jax.ShapeDtypeStruct((2,), np.int32),
        "index": jax.ShapeDtypeStruct((2,), np.int32),
    }
    before = jax.eval_shape(make_state)
    after, metrics = jax.eval_shape(step, before, batch, jax.random.key(0))
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(
        lambda x: (x.shape, x.dtype), before
    )
    assert {leaf.shape for leaf in jax.tree.leaves(metrics)} == {()}


def test_a_flag_makes_another_cells_training(tmp_path):
    assert train("row_rnn", "gru:variant=nested", tmp_path) == 0
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2]
    assert json.loads((tmp_path / "config.json").read_text())["model"]["cell"] == (
        "gru:variant=nested"
    )


@pytest.mark.parametrize("model", CONVOLVING)
@pytest.mark.parametrize("cell", UNCONVOLVED)
def test_a_cell_that_cannot_be_convolved_is_refused(model, cell, tmp_path, capsys):
    assert train(model, cell, tmp_path / "run") == 2
    assert "cannot be convolved" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
