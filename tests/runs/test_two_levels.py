"""A run over codes of two levels: its figures, its coder, what is kept, and what is refused."""

import json
import math
import shutil

import jax
import numpy as np
import pytest
from tiny_runs import evaluated, rnngen, tree

import rnngen_jax as rg
from rnngen_jax.evaluation import codec
from rnngen_jax.runs import tokenizers

CONFIG = """
from rnngen_jax import experiment

def get_config(arg="code_rnn"):
    config = experiment.default(arg)
    if arg == "code_rnn":
        config.model.update(features=8, input_features=8)
    config.vqvae.update(quantiser="codebook:codes=5", features=4, vectors=4, blocks=0, levels=2)
    config.training.update(seed=3, steps=4, batch_size=8, steps_per_call=2, log_every=2)
    config.training.update(validate_every=0, checkpoint_every=2, sample_every=0)
    config.evaluation.num_images = 20
    return config
"""
DIMS, TOP, BOTTOM = 64, 4, 16  # values of an image, and codes of the two levels


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run that has trained a tokenizer of its own first."""
    root = tmp_path_factory.mktemp("levels")
    (root / "tiny.py").write_text(CONFIG)
    assert rnngen("train", f"--config={root}/tiny.py", f"--workdir={root}/run") == 0
    return root


def test_the_figures_are_sums_over_levels(made, capsys):
    metrics = evaluated(made / "run")["metrics"]
    said = capsys.readouterr().out
    bits = metrics["bits_per_dim"]
    assert bits == pytest.approx(metrics["recurrent_bits_per_dim"], rel=1e-6)
    even = metrics["reconstruction_nats"] + (TOP + BOTTOM) * math.log(5)
    assert metrics["uniform_bits_per_dim"] == pytest.approx(even / DIMS / math.log(2), rel=1e-5)
    whole = metrics["reconstruction_nats"] + metrics["top/kl"] + metrics["bottom/kl"]
    assert bits == pytest.approx(whole / DIMS / math.log(2), rel=1e-5)
    run = rg.load(made / "run")
    images, _ = run.dataset.splits["test"].read(np.arange(300))
    own = (run.extra["tokenizer"][part] for part in ("params", "extra"))
    codes = jax.jit(run.model.codes.encode)(*own, images)
    for name, grid in zip(("top", "bottom"), codes, strict=True):
        shares = np.bincount(np.ravel(grid), minlength=5) / np.size(grid)
        entropy = -(shares * np.log(np.maximum(shares, 1e-30))).sum()
        assert metrics[f"{name}/perplexity"] == pytest.approx(np.exp(entropy), rel=1e-6)
        assert metrics[f"{name}/dead_codes"] == (shares == 0).sum()
        used, nats = metrics[f"{name}/codes_used"], metrics[f"{name}/kl"]
        assert f"{name} codes:" in said
        assert f"{used:.1%} in use" in said
        assert f"{nats:.4f} nats" in said
    lines = [json.loads(x) for x in (made / "run" / "metrics.jsonl").read_text().splitlines()]
    trained = [line for line in lines if line["split"] == "train"][-1]
    parts = trained["top/code_nats"] + trained["bottom/code_nats"]
    assert trained["code_nats"] == pytest.approx(parts, rel=1e-6)


def test_the_code_length_is_the_bound(made):
    """Top, bottom given the top, pixels given both."""
    run = rg.load(made / "run")
    images, _ = run.dataset.splits["test"].read(np.arange(20))
    encoder, decoder = (codec.coder(run.model, run.params, run.extra, 20) for _ in range(2))
    (stream,) = encoder.encode(images, None)
    back, _ = decoder.decode([stream], 20, codec.digests(images, None, 20))
    np.testing.assert_array_equal(back, images)
    bits = run.nats(images).sum() / math.log(2)
    assert bits - 8 <= 8 * len(stream) <= 1.01 * bits + 64
    sizes = [stage.spec.dims for stage in run.model.stages]
    assert sizes == [TOP, BOTTOM, DIMS]


def test_what_a_model_of_images_can_do(made):
    run = rg.load(made / "run")
    images, _ = run.dataset.splits["test"].read(np.arange(3))
    drawn = run.sample(3)
    assert (drawn.shape, drawn.dtype) == (images.shape, images.dtype)
    known = np.zeros((8, 8), bool)
    known[:4] = True
    completed = run.complete(images, known)
    np.testing.assert_array_equal(completed[:, :4], images[:, :4])
    latents = run.encode(images)
    assert latents.shape == (3, TOP + BOTTOM, 4)
    rebuilt = run.decode(latents)
    assert rebuilt.shape == images.shape
    # An image halfway between two is of the vectors of both levels.
    between = latents.copy()
    between[0, :TOP] = latents[1, :TOP]
    assert np.abs(run.decode(between)[0] - rebuilt[0]).max() > 0


def test_it_goes_on_to_the_bit(made, tmp_path):
    shutil.copytree(made / "run", tmp_path / "part")
    shutil.rmtree(tmp_path / "part" / "checkpoints" / "4")
    shutil.rmtree(tmp_path / "part" / tokenizers.FOLDER)
    assert rg.load(tmp_path / "part").step == 2
    assert rnngen("train", f"--config={made}/tiny.py", f"--workdir={tmp_path}/part") == 0
    one, other = (rg.load(folder, "latest") for folder in (made / "run", tmp_path / "part"))
    assert one.digest == other.digest
    assert one.step == other.step == 4


def test_one_of_two_levels_is_no_data_set(made, tmp_path, capsys):
    tokenizer = made / "run" / tokenizers.FOLDER
    before = tree(tokenizer)
    flags = (f"--config.data.name=codes:{tokenizer}", f"--workdir={tmp_path}/run")
    (tmp_path / "other.py").write_text(
        "from rnngen_jax import experiment\n"
        "def get_config():\n    return experiment.default('pixel_cnn')\n"
    )
    assert rnngen("train", f"--config={tmp_path}/other.py", *flags) == 2
    error = capsys.readouterr().err
    assert f"{tokenizer} has two grids of codes for each image, top and bottom" in error
    assert f"config.tokenizer='{tokenizer}'" in error
    assert error.count("\n") <= 2
    assert tree(tokenizer) == before
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("config", "flags", "said"),
    [
        (
            "code_prior",
            ("--config.model.prior=row_rnn",),
            "config.model.prior must be one of diagonal_bilstm, pixel_cnn, row_lstm for codes of",
        ),
        ("code_rnn", ("--config.vqvae.levels=3",), "config.vqvae.levels must be 1 or 2, got 3"),
        ("code_rnn", ("--config.vqvae.stages=3",), "levels must be 1 for grids of 1x1 codes"),
        ("code_rnn", ("--config.model.around=-1",), "config.model.around must be ≥ 0, got -1"),
    ],
)
def test_what_cannot_be_is_refused(made, tmp_path, capsys, config, flags, said):
    given = (f"--config={made}/tiny.py:{config}", *flags, f"--workdir={tmp_path}/run")
    assert rnngen("train", *given) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") <= 2
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.parametrize("field", ["levels=1", "depth=2"])
def test_a_run_keeps_to_the_grids_that_it_was_made_for(made, tmp_path, capsys, field):
    """Its levels and its depth are those that its prior has networks for."""
    before = tree(made / "run")
    flags = (f"--config={made}/tiny.py", f"--config.vqvae.{field}", f"--workdir={made}/run")
    assert rnngen("train", *flags) == 2
    error = capsys.readouterr().err
    name, _, value = field.partition("=")
    assert f"vqvae.{name}: {3 - int(value)} -> {value}" in error
    assert tree(made / "run") == before
