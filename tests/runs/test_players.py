"""A model of three players is one file: its Config alone says which section trains each of them."""

import pathlib
import sys

import numpy as np
import pytest
from tiny_runs import rnngen

from rnngen_jax import experiment, models
from rnngen_jax.errors import UserError
from rnngen_jax.training import sinks
from rnngen_jax.training.standing import Standing

TOYS = str(pathlib.Path(__file__).parent / "toys")
CONFIG = """
from rnngen_jax import experiment

def get_config():
    config = experiment.default("three_toy")
    config.training.steps, config.training.batch_size = 4, 8
    config.training.steps_per_call = config.training.log_every = 2
    config.training.checkpoint_every = 2
    return config
"""
SECTIONS = {"critic": "critic", "encoder": "encoder", "decoder": "optimizer"}


@pytest.fixture(autouse=True)
def toy(monkeypatch):
    """The toy is found as a model that ships would be."""
    monkeypatch.setattr(models, "__path__", [*models.__path__, TOYS])
    yield
    sys.modules.pop("rnngen_jax.models.three_toy", None)


@pytest.fixture
def train(tmp_path):
    (tmp_path / "tiny.py").write_text(CONFIG)
    return lambda *flags: rnngen(
        "train", f"--config={tmp_path}/tiny.py", f"--workdir={tmp_path}/run", *flags
    )


def test_each_player_is_trained_by_its_section(train, tmp_path, capsys):
    updates, frozen = ("--config.critic.updates_per_step=3", "--config.encoder.learning_rate=1e-9")
    assert train(updates, frozen, "--config.optimizer.warmup_fraction=0.5") == 0
    assert "config.optimizer.warmup_steps: 2, the config's 0.5" in capsys.readouterr().out
    settings = experiment.from_json(tmp_path / "run" / "config.json")
    assert {name: own.SECTION for name, own in settings.optimizers.items()} == {
        player: f"config.{section}" for player, section in SECTIONS.items()
    }
    assert settings.optimizers["critic"].updates_per_step == 3
    assert settings.optimizers["encoder"].learning_rate == 1e-9
    assert settings.optimizers["decoder"].warmup_steps == 2
    (*_, line) = sinks.read(tmp_path / "run" / "metrics.jsonl")
    assert {f"loss/{player}" for player in SECTIONS} <= set(line)
    # A run goes on with what it began with alone.
    assert train(updates, "--config.training.steps=6") == 2
    assert "encoder.learning_rate: 1e-09 -> 0.001" in capsys.readouterr().err


@pytest.mark.parametrize("player", SECTIONS)
def test_an_error_names_the_section_of_its_player(train, capsys, player):
    section = SECTIONS[player]
    for field, value, said in (
        ("learning_rate", "-1.0", "> 0"),
        ("b1", "7.0", "in [0, 1)"),
        ("warmup_steps", "4", "< config.training.steps=4"),
    ):
        assert train(f"--config.{section}.{field}={value}") == 2
        err = capsys.readouterr().err
        assert f"config.{section}.{field} must be {said}" in err
        assert f", got {value}" in err
        assert len(err.splitlines()) == 1


def test_a_run_that_diverges_names_the_section_of_the_player(train, capsys):
    assert train("--config.optimizer.name=sgd", "--config.optimizer.learning_rate=3e38") == 1
    err = capsys.readouterr().err  # the decoder's, by which no other player is touched
    assert "loss/decoder is" in err
    assert "Lower config.optimizer.learning_rate or set config.optimizer.clip_norm, and" in err


@pytest.mark.parametrize("player", SECTIONS)
@pytest.mark.parametrize("name", ["loss/{}", "grad_norm/{}", "a number in params.{}.kernel"])
def test_a_number_of_a_player_that_is_not_finite_names_its_section(player, name):
    sections = {player: f"config.{section}" for player, section in SECTIONS.items()}
    path, nan = sections[player], np.array(np.nan)
    said = str(Standing(3).not_finite(name.format(player), nan, 1, sections))
    assert f"\nLower {path}.learning_rate or set {path}.clip_norm, and train in" in said


def test_sections_are_those_of_the_model():
    assert list(experiment.sections("three_toy")) == [
        "data",
        "critic",
        "encoder",
        "optimizer",
        "training",
        "evaluation",
    ]
    with pytest.raises(UserError, match=r"config\.encodr is not a section of three_toy; did you m"):
        experiment.check({"model": {"name": "three_toy"}, "encodr": {}})
    with pytest.raises(UserError, match=r"config\.critic is not a section of vae"):
        experiment.check({"model": {"name": "vae"}, "critic": {}})


def test_the_page_of_a_config_shows_each_section(tmp_path, capsys):
    (tmp_path / "tiny.py").write_text(CONFIG)
    assert rnngen("config", f"--config={tmp_path}/tiny.py", "--config.encoder.b1=0.25") == 0
    page = capsys.readouterr().out
    assert "config.encoder: The same as config.optimizer, for the encoder alone." in page
    assert "* b1" in page[page.index("config.encoder") : page.index("config.optimizer:")]
