"""Every preset of every file in configs/ builds and trains two steps, and says what it gives."""

import importlib.util
import pathlib
import re

import numpy as np
import pytest

from rnngen_jax import experiment, main, models
from rnngen_jax.errors import UserError
from rnngen_jax.models import rnn_autoencoder
from rnngen_jax.ops import penalties
from rnngen_jax.training.config import OPTIMIZERS, SCHEDULES

ROOT = pathlib.Path(__file__).parent.parent
FILES = sorted((ROOT / "configs").glob("[!_]*.py"))

# Sizes that change how much is computed, not what.
TINY = {
    "model": {
        "features": 8,
        "layers": 1,
        "input_features": 8,
        "within_features": 8,
        "mixtures": 2,
        "steps": 2,
        "latents": 2,
        "hidden": 8,
    },
    "training": {
        "steps": 2,
        "steps_per_call": 1,
        "log_every": 1,
        "batch_size": 8,
        "validate_every": 2,
        "sample_every": 2,
        "num_samples": 2,
    },
}


def module(file):
    spec = importlib.util.spec_from_file_location(file.stem, file)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


CASES = [(file, preset) for file in FILES for preset in module(file).PRESETS]


def write_images(folder, shape):
    """A small data set in place of one that is not shipped."""
    rng = np.random.default_rng(0)
    path = folder / "images.npz"
    arrays = {"image": rng.integers(0, 256, (60, *shape), np.uint8), "label": np.arange(60) % 10}
    np.savez(path, **arrays)
    return f"npz:{path}"


@pytest.mark.parametrize(("file", "preset"), CASES, ids=lambda value: getattr(value, "stem", value))
def test_a_preset_trains_two_steps(file, preset, tmp_path):
    config = module(file).get_config(preset)
    experiment.check(config)
    overrides = []
    for section, fields in TINY.items():
        overrides += [
            f"--config.{section}.{name}={value}"
            for name, value in fields.items()
            if name in config[section]
        ]
    if config.data.name != "digits":
        colour = config.data.name.startswith(("tfds:cifar", "folder:"))
        shape = (12, 12, 3) if colour else (12, 12)
        overrides.append(f"--config.data.name={write_images(tmp_path, shape)}")
    run = ["rnngen", "train", f"--config={file}:{preset}", f"--workdir={tmp_path / 'run'}"]
    assert main.run([*run, *overrides]) == 0
    assert (tmp_path / "run" / "samples").is_dir() == (file.stem != "classifier")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_config_file_says_how_to_run_each_preset_and_what_it_gives(file):
    loaded = module(file)
    assert file.stem in models.names()
    assert loaded.get_config().to_dict() == loaded.get_config("digits").to_dict()
    assert loaded.get_config().data.name == "digits"
    for preset in loaded.PRESETS:
        argument = "" if preset == "digits" else f":{preset}"
        lines = loaded.__doc__.splitlines()
        at = [n for n, line in enumerate(lines) if f"=configs/{file.name}{argument} " in line]
        assert len(at) == 1, f"the docstring of {file.name} has no command for {preset}"
        assert re.search(r"(core|GPU).*\bmin\b.*(nats|bits|Fréchet)", lines[at[0] + 1])
    assert f"`--config={file.stem}` names this file" in loaded.__doc__
    with pytest.raises(UserError, match=rf"{file.stem}:digist is not a preset; .* mean 'digits'"):
        loaded.get_config("digist")


# Choices that leave fields unread which a preset may have set.
CHOICES = {
    "optimizer.name": OPTIMIZERS,
    "optimizer.schedule": SCHEDULES,
    "model.penalty": penalties.PENALTIES,
    "model.latent": rnn_autoencoder.LATENT,
}


@pytest.mark.parametrize(("file", "preset"), CASES, ids=lambda value: getattr(value, "stem", value))
def test_one_flag_changes_one_choice_of_a_preset(file, preset):
    for path, values in CHOICES.items():
        section, field = path.split(".")
        for value in values:
            config = module(file).get_config(preset)
            if field in config[section]:
                config[section][field] = value
                experiment.reset_unread(config, {f"config.{path}"})
                checked = experiment.to_dict(experiment.check(config))
                assert checked[section][field] == value


def test_every_model_has_a_config():
    assert [file.stem for file in FILES] == models.names()
