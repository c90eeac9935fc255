"""Runs of a VQ-GAN and the classifier of its perceptual loss: whole without it, or refused."""

import json
import shutil

import jax
import numpy as np
import pytest
from tiny_runs import evaluated, rnngen, tree

import rnngen_jax as rg
from rnngen_jax import data
from rnngen_jax.data.base import DataConfig
from rnngen_jax.runs import coded

CONFIG = """
from rnngen_jax import experiment

def get_config(arg="vqgan"):
    config = experiment.default(arg)
    config.model.features = 4
    if arg == "code_rnn":
        config.model.input_features = 4
    if arg == "classifier":
        config.model.hidden = 5
    if arg == "vqgan":
        config.model.update(quantiser="codebook:codes=7", vectors=4, blocks=0)
        config.model.update(discriminator_features=2, adversarial_start=2, perceptual_weight=0.5)
    config.training.update(seed=3, steps=4, batch_size=8, steps_per_call=2, log_every=2)
    config.training.update(validate_every=2, checkpoint_every=2, sample_every=0, ema_decay=0.5)
    config.evaluation.num_images = 20
    return config
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A classifier's run, and one of a VQ-GAN whose classifier is gone."""
    root = tmp_path_factory.mktemp("perceptual")
    (root / "tiny.py").write_text(CONFIG)
    flags = (f"--config={root}/tiny.py:classifier", "--config.training.steps=2")
    assert rnngen("train", *flags, f"--workdir={root}/judge") == 0
    shutil.copytree(root / "judge", root / "gone")
    assert train(root, root / "whole", f"--config.perceptual={root}/gone") == 0
    shutil.rmtree(root / "gone")
    return root


def train(made, workdir, *flags):
    return rnngen("train", f"--config={made}/tiny.py", f"--workdir={workdir}", *flags)


def test_a_checkpoint_is_whole_without_the_classifier_which_training_has_not_changed(made):
    run, judge = rg.load(made / "whole"), rg.load(made / "judge")
    kept = run.extra["perceptual"]
    jax.tree.map(np.testing.assert_array_equal, kept["params"], judge.params)
    config = json.loads((made / "whole" / "config.json").read_text())
    assert config["perceptual_digest"] == judge.digest.hex()
    assert config["classifier"]["hidden"] == 5
    assert run.step == 4  # the best is not of the steps without the discriminator
    record = evaluated(made / "whole")
    assert record["protocol"]["likelihood"] == "VQ bound, uniform prior"
    metrics = record["metrics"]
    even = metrics["reconstruction_nats"] + 16 * np.log(7)
    assert metrics["bits_per_dim"] == pytest.approx(even / 64 / np.log(2), rel=1e-5)
    assert 0 < metrics["perplexity"] <= 7
    lines = map(json.loads, (made / "whole" / "metrics.jsonl").read_text().splitlines())
    steps = {line["step"]: line for line in lines if line["split"] == "train"}
    assert steps[2]["adaptive_weight"] == 0 < steps[4]["adaptive_weight"]
    assert steps[4]["perceptual"] > 0


def test_it_goes_on_without_the_classifier_to_the_bit(made, tmp_path):
    shutil.copytree(made / "whole", tmp_path / "part")
    shutil.rmtree(tmp_path / "part" / "checkpoints" / "4")
    assert rg.load(tmp_path / "part").step == 2
    assert train(made, tmp_path / "part", f"--config.perceptual={made}/gone") == 0
    one, other = (rg.load(folder, "latest") for folder in (made / "whole", tmp_path / "part"))
    assert one.digest == other.digest
    assert one.step == other.step == 4


def test_its_codes_are_those_of_a_prior_and_of_data(made, tmp_path, capsys):
    """The prior's checkpoint has neither the discriminator nor the classifier."""
    tokenizer = rg.load(made / "whole")
    flags = (f"--config={made}/tiny.py:code_rnn", f"--config.tokenizer={made}/whole")
    assert rnngen("train", *flags, f"--workdir={tmp_path}/prior") == 0
    assert "step 4: 4x4x1 codes of 7, codebook:codes=7" in capsys.readouterr().out
    run = rg.load(tmp_path / "prior")
    kept = run.extra["tokenizer"]
    assert (set(kept["params"]), set(kept["extra"])) == ({"model"}, {"quantiser"})
    images, _ = run.dataset.splits["test"].read(np.arange(12))
    np.testing.assert_array_equal(run.encode(images), tokenizer.encode(images))
    np.testing.assert_array_less(run.nats(images) - 1e-3, tokenizer.nats(images) + 16 * np.log(7))
    config = json.loads((tmp_path / "prior" / "config.json").read_text())
    assert config["vqgan"]["perceptual_weight"] == 0.5
    assert "vqvae" not in config
    where = coded.pinned(DataConfig(name=f"codes:{made}/whole"))
    codes, _ = data.load(where).splits["test"].read(np.arange(12))
    own = tokenizer.model.codes.encode(tokenizer.params, tokenizer.extra, images)
    np.testing.assert_array_equal(codes, own)


REFUSED = {
    "without": ("perceptual_weight must be 0 without config.perceptual, the folder of a run", ()),
    "unread": (
        "config.perceptual must be empty with config.model.perceptual_weight=0, got 'x'",
        ("--config.perceptual=x", "--config.model.perceptual_weight=0.0"),
    ),
    "missing": (
        "config.perceptual={root}/none: {root}/none holds no run",
        ("--config.perceptual={root}/none",),
    ),
    "another": (
        "config.perceptual={root}/whole must hold a run of classifier, got vqgan",
        ("--config.perceptual={root}/whole",),
    ),
    "of other images": (
        "is of digits (8x8x1, 17 levels, binarisation=none), the run of digits (8x8x1, 2 levels",
        ("--config.perceptual={root}/judge", "--config.data.binarisation=threshold"),
    ),
    "own": (
        "config.optimizer.private_noise must be 0 for vqgan",
        ("--config.perceptual={root}/judge", "--config.optimizer.private_noise=1.0"),
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_does_not_fit_is_refused(made, tmp_path, capsys, kind):
    said, flags = REFUSED[kind]
    flags = [flag.format(root=made) for flag in flags]
    assert train(made, tmp_path / "run", *flags) == 2
    error = capsys.readouterr().err
    assert said.format(root=made) in error
    assert error.count("\n") <= 2
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_another_classifier_does_not_go_on_with_a_run(made, tmp_path, capsys):
    shutil.copytree(made / "whole", tmp_path / "run")
    before = tree(tmp_path / "run")
    assert train(made, tmp_path / "run", f"--config.perceptual={made}/judge") == 2
    error = capsys.readouterr().err
    assert f"perceptual: '{made}/gone' -> '{made}/judge'.\n" in error
    assert tree(tmp_path / "run") == before
