"""A prior over the codes of another run: trained, whole without it, and refused if it must be."""

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

def get_config(arg="vqvae"):
    config = experiment.default(arg)
    if arg == "code_rnn":
        config.model.update(features=8, input_features=8)
        own = config.vqvae
    else:
        own = config.model
    own.update(quantiser="codebook:codes=7", features=4, vectors=4, blocks=0, depth=2)
    config.training.update(seed=3, steps=6, batch_size=8, steps_per_call=2, log_every=2)
    config.training.update(validate_every=6, checkpoint_every=2, sample_every=0, num_samples=4)
    config.evaluation.num_images = 20
    return config
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A tokenizer's run, and a prior's whose tokenizer is gone."""
    root = tmp_path_factory.mktemp("codes")
    (root / "tiny.py").write_text(CONFIG)
    assert rnngen("train", f"--config={root}/tiny.py", f"--workdir={root}/vqvae") == 0
    gone = root / "gone"
    shutil.copytree(root / "vqvae", gone)
    flags = (f"--config={root}/tiny.py:code_rnn", f"--config.tokenizer={gone}")
    assert rnngen("train", *flags, f"--workdir={root}/whole") == 0
    shutil.rmtree(gone)
    return root


def test_a_checkpoint_is_whole_without_the_tokenizer(made):
    run, tokenizer = rg.load(made / "whole"), rg.load(made / "vqvae")
    images, _ = tokenizer.dataset.splits["test"].read(np.arange(12))
    np.testing.assert_array_equal(run.encode(images), tokenizer.encode(images))
    jax.tree.map(np.testing.assert_array_equal, run.extra["tokenizer"]["params"], tokenizer.params)
    record = evaluated(made / "whole")
    metrics = record["metrics"]
    assert record["protocol"]["likelihood"] == "VQ bound, recurrent prior"
    assert metrics["bits_per_dim"] == metrics["recurrent_bits_per_dim"]
    dims, codes = 64, 32
    even = metrics["reconstruction_nats"] + codes * math.log(7)
    assert metrics["uniform_bits_per_dim"] == pytest.approx(even / dims / math.log(2), rel=1e-5)
    assert metrics["unigram_bits_per_dim"] < metrics["uniform_bits_per_dim"]
    for name in ("uniform", "unigram", "recurrent"):
        assert metrics[f"{name}_bits_per_dim_error"] > 0
    config = json.loads((made / "whole" / "config.json").read_text())
    assert config["tokenizer_digest"] == tokenizer.digest.hex()
    assert config["vqvae"]["quantiser"] == "codebook:codes=7"


def test_a_tighter_bound_is_a_row_beside_the_bound(made, capsys):
    before = json.loads((made / "whole" / "evaluation.json").read_text())["metrics"]
    record = evaluated(made / "whole", "--code_candidates=5")
    said, metrics = capsys.readouterr().out, record["metrics"]
    assert metrics["candidates_bits_per_dim"] < metrics["bits_per_dim"]
    assert metrics["bits_per_dim"] == before["bits_per_dim"]
    assert record["protocol"]["code_candidates"] == 5
    assert "  candidates:   " in said
    assert "of the likelihood; `candidates` is summed over 5 grids of codes, 17 levels" in said
    assert rnngen("evaluate", f"--workdir={made}/whole", "--code_candidates=-1") == 2
    assert "--code_candidates must be ≥ 1, or 0 for none, got -1" in capsys.readouterr().err


def test_the_use_of_codes_is_that_of_the_whole_split(made, capsys):
    metrics = evaluated(made / "vqvae")["metrics"]
    assert "codes:          perplexity" in capsys.readouterr().out
    run = rg.load(made / "vqvae")
    images, _ = run.dataset.splits["test"].read(np.arange(300))
    codes = np.asarray(run.model.codes.encode(run.params, run.extra, images)).reshape(-1, 2)
    shares = np.stack([np.bincount(c, minlength=7) for c in codes.T]) / len(codes)
    entropy = -(shares * np.log(np.maximum(shares, 1e-30))).sum(-1)
    assert metrics["perplexity"] == pytest.approx(np.exp(entropy.mean()), rel=1e-6)
    assert metrics["codes_used"] == pytest.approx((shares > 0).mean())
    assert metrics["dead_codes"] == (shares == 0).sum()
    lines = map(json.loads, (made / "vqvae" / "metrics.jsonl").read_text().splitlines())
    assert any("perplexity" in line for line in lines if line["split"] == "validation")


def test_the_code_length_is_the_bound(made):
    run = rg.load(made / "whole")
    images, _ = run.dataset.splits["test"].read(np.arange(300))  # the whole split
    encoder, decoder = (codec.coder(run.model, run.params, run.extra, 300) for _ in range(2))
    (stream,) = encoder.encode(images, None)
    back, _ = decoder.decode([stream], 300, codec.digests(images, None, 300))
    np.testing.assert_array_equal(back, images)
    bits = run.nats(images).sum() / math.log(2)
    assert bits - 8 <= 8 * len(stream) <= 1.01 * bits + 64


def test_it_goes_on_without_the_tokenizer_to_the_bit(made, tmp_path):
    """N + M steps are N steps, then M, with the tokenizer's folder gone in between."""
    shutil.copytree(made / "whole", tmp_path / "part")
    shutil.rmtree(tmp_path / "part" / "checkpoints" / "6")
    assert rg.load(tmp_path / "part").step == 4
    flags = (f"--config={made}/tiny.py:code_rnn", f"--config.tokenizer={made}/gone")
    assert rnngen("train", *flags, f"--workdir={tmp_path}/part") == 0
    one, other = (rg.load(folder, "latest") for folder in (made / "whole", tmp_path / "part"))
    assert one.digest == other.digest
    assert one.step == other.step == 6


def test_its_own_tokenizer_is_trained_first(made, tmp_path, capsys):
    flags = (f"--config={made}/tiny.py:code_rnn", f"--workdir={tmp_path}/run")
    assert rnngen("train", *flags) == 0
    said = capsys.readouterr().out
    assert "tokenizer: none is given, so one is trained in" in said
    assert "step 6: 4x4x2 codes of 7, codebook:codes=7" in said
    run, own = rg.load(tmp_path / "run"), rg.load(tmp_path / "run" / tokenizers.FOLDER)
    assert own.model.name == "vqvae"
    assert own.step == 6
    jax.tree.map(np.testing.assert_array_equal, run.extra["tokenizer"]["params"], own.params)
    shutil.rmtree(tmp_path / "run" / tokenizers.FOLDER)
    assert rnngen("train", *flags, "--config.training.steps=8") == 0
    assert rg.load(tmp_path / "run", "latest").step == 8
    assert not (tmp_path / "run" / tokenizers.FOLDER).exists()


REFUSED = {
    "missing": ("config.tokenizer='{root}/none': {root}/none holds no run", ()),
    "another": ("must name a run of vqgan or vqvae, got one of code_rnn", ()),
    "vqvae": (
        "was trained on other data: config.data.binarisation must be 'none', got 'threshold'",
        ("--config.data.binarisation=threshold",),
    ),
    "depth": (
        "config.vqvae.depth has no effect with config.tokenizer='{root}/vqvae', whose own fields",
        ("--config.vqvae.depth=3",),
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_tokenizer_that_does_not_fit_is_refused(made, tmp_path, capsys, kind):
    said, flags = REFUSED[kind]
    named = {"missing": "none", "another": "whole"}.get(kind, "vqvae")
    run = (f"--config={made}/tiny.py:code_rnn", f"--config.tokenizer={made}/{named}", *flags)
    assert rnngen("train", *run, f"--workdir={tmp_path}/run") == 2
    error = capsys.readouterr().err
    assert said.format(root=made) in error
    assert error.count("\n") <= 2


def test_an_edited_tokenizer_is_refused(made, tmp_path, capsys):
    shutil.copytree(made / "vqvae", tmp_path / "edited")
    path = tmp_path / "edited" / "config.json"
    path.write_text(path.read_text().replace("codes=7", "codes=9"))
    run = (f"--config={made}/tiny.py:code_rnn", f"--config.tokenizer={tmp_path}/edited")
    assert rnngen("train", *run, f"--workdir={tmp_path}/run") == 2
    error = capsys.readouterr().err
    assert "config.tokenizer=" in error
    assert "codebook:codes=9" in error
    assert error.count("\n") <= 2


def test_a_tokenizer_of_another_version_is_refused(made, tmp_path, capsys):
    shutil.copytree(made / "vqvae", tmp_path / "older")
    path = tmp_path / "older" / "config.json"
    path.write_text(path.read_text().replace('"vectors"', '"vector_width"'))
    run = (f"--config={made}/tiny.py:code_rnn", f"--config.tokenizer={tmp_path}/older")
    assert rnngen("train", *run, f"--workdir={tmp_path}/run") == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: config.tokenizer='{tmp_path}/older': ")
    assert "is not a config of this version: config.model.vector_width is not a field" in error
    assert error.count("\n") <= 2


@pytest.mark.parametrize("shape", [(10, 10), (8, 8)])
def test_a_tokenizer_of_images_that_have_changed_is_refused(made, tmp_path, capsys, shape):
    """The data have the name that they had, and images of another size, or of fewer levels."""
    shutil.copytree(made / "vqvae", tmp_path / "vqvae")
    name = f"npz:{tmp_path}/images.npz"
    path = tmp_path / "vqvae" / "config.json"
    path.write_text(path.read_text().replace('"name": "digits"', f'"name": "{name}"'))
    images = np.arange(50 * np.prod(shape)).reshape(50, *shape) % 16
    levels = 17 if shape == (10, 10) else 16
    np.savez(tmp_path / "images.npz", image=images.astype(np.uint8), levels=levels)
    run = (f"--config={made}/tiny.py:code_rnn", f"--config.tokenizer={tmp_path}/vqvae")
    flags = (f"--config.data.name={name}", f"--workdir={tmp_path}/run")
    assert rnngen("train", *run, *flags) == 2
    error = capsys.readouterr().err
    assert f"must have the images that the tokenizer {tmp_path}/vqvae was trained on" in error
    assert error.count("\n") <= 2
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_another_tokenizer_does_not_go_on_with_a_run(made, tmp_path, capsys):
    shutil.copytree(made / "whole", tmp_path / "run")
    before = tree(tmp_path / "run")
    run = (f"--config={made}/tiny.py:code_rnn", f"--config.tokenizer={made}/vqvae")
    assert rnngen("train", *run, f"--workdir={tmp_path}/run") == 2
    error = capsys.readouterr().err
    assert f"tokenizer: '{made}/gone' -> '{made}/vqvae'" in error
    assert tree(tmp_path / "run") == before


@pytest.mark.parametrize(
    ("config", "flag", "said"),
    [
        (
            "vqvae",
            "--config.model.quantiser=codebook:codes=0",
            "codes must be in [2, 1048576], got 0",
        ),
        ("vqvae", "--config.model.depth_dropout=True --config.model.depth=1", "no effect"),
        ("code_rnn", "--config.vqvae.kernel=3", "config.vqvae.kernel must be even, got 3"),
        ("code_rnn", "--config.vqvae.mixtures=3", "config.vqvae.mixtures=3 has no effect with"),
        ("code_rnn", "--config.model.previous=0 --config.model.above=0", "must be ≥ 1 if"),
        ("vqvae", "--config.optimizer.private_noise=1.0", "private_noise must be 0 for vqvae"),
        ("code_rnn", "--config.optimizer.private_noise=1.0", "must be 0 for code_rnn, got 1.0"),
        ("vqvae", "--config.tokenizer=x", "tokenizer"),
    ],
)
def test_fields_that_do_not_fit_are_refused(made, tmp_path, capsys, config, flag, said):
    run = (f"--config={made}/tiny.py:{config}", *flag.split(), f"--workdir={tmp_path}/run")
    assert rnngen("train", *run) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_collapse_is_told(tmp_path, capsys):
    """A codebook that starts far from everything and is never revived."""
    (tmp_path / "tiny.py").write_text(CONFIG)
    spec = "codebook:codes=64,start=normal,revive=0.0"
    flags = (f"--config.model.quantiser={spec}", "--config.model.depth=1")
    run = (f"--config={tmp_path}/tiny.py", f"--workdir={tmp_path}/run", *flags)
    assert rnngen("train", *run, "--config.model.activation=sigmoid") == 0
    text = (tmp_path / "run" / "metrics.jsonl").read_text()
    lines = list(map(json.loads, text.splitlines()))
    (last,) = [line for line in lines if line["split"] == "validation"]
    said = capsys.readouterr()
    assert ("codebook collapse:" in said.out + said.err) == (last["codes_used"] < 0.1)
    assert last["codes_used"] < 0.1
