"""Codes of 1,024 levels and sequences of frames go all the way, through a toy and a real model."""

import json
import math
import pathlib
import re
import sys

import jax
import numpy as np
import pytest
from PIL import Image
from tiny_runs import evaluated, rnngen

import rnngen_jax as rg
from rnngen_jax import models
from rnngen_jax.evaluation import pictures

TOYS = str(pathlib.Path(__file__).parent / "toys")
CONFIG = """
from rnngen_jax import experiment

def get_config(arg):
    config = experiment.default(arg)
    if arg == "pixel_rnn":
        config.model.features = config.model.input_features = 8
    config.training.steps, config.training.batch_size = 4, 8
    config.training.steps_per_call = config.training.log_every = 2
    config.training.validate_every = config.training.sample_every = 4
    config.training.num_samples = 3
    config.evaluation.batch_size = 5
    return config
"""
# Name of the items in files and batches, their shape, levels, and dtype.
ITEMS = {
    "codes": ("image", (4, 3, 1), 1024, np.int32),
    "residual": ("image", (2, 3, 4), 512, np.int32),
    "frames": ("frames", (3, 4, 5, 1), 7, np.uint8),
}
CASES = [
    ("bigram_toy", "codes", "stream"),
    ("bigram_toy", "residual", "device"),
    ("bigram_toy", "frames", "stream"),
    ("pixel_rnn", "codes", "device"),
]


@pytest.fixture
def toys(monkeypatch):
    """The toy is found as a model that ships would be."""
    monkeypatch.setattr(models, "__path__", [*models.__path__, TOYS])
    yield
    sys.modules.pop("rnngen_jax.models.bigram_toy", None)


def items(kind, num, seed=0):
    _, shape, levels, dtype = ITEMS[kind]
    return np.random.default_rng(seed).integers(0, levels, (num, *shape)).astype(dtype)


@pytest.mark.parametrize(("model", "kind", "placement"), CASES)
def test_from_the_feed_to_the_codec(toys, tmp_path, capsys, model, kind, placement):
    """Train, evaluate, sample, compress, decompress: bit-exact, as many bits as is said."""
    key, shape, levels, dtype = ITEMS[kind]
    given = items(kind, 60)
    np.savez(tmp_path / "data.npz", **{key: given, "levels": levels})
    (tmp_path / "tiny.py").write_text(CONFIG)
    run = f"--workdir={tmp_path}/run"
    data = (
        f"--config.data.name=npz:{tmp_path}/data.npz",
        f"--config.data.placement={placement}",
    )
    assert rnngen("train", f"--config={tmp_path}/tiny.py:{model}", run, *data) == 0
    record = evaluated(tmp_path / "run")
    assert record["protocol"]["levels"] == levels

    opened = rg.load(tmp_path / "run")
    assert (opened.spec.shape, opened.spec.dtype, opened.spec.key) == (shape, dtype, key)
    drawn = opened.sample(5, seed=1)
    assert (drawn.shape, drawn.dtype) == ((5, *shape), dtype)
    assert rnngen("sample", run, "--num=5", "--seed=1", f"--out={tmp_path}/s.npz") == 0
    with np.load(tmp_path / "s.npz") as arrays:
        np.testing.assert_array_equal(arrays[key], drawn)
        assert arrays["levels"] == levels
    assert rnngen("sample", run, "--num=5", f"--out={tmp_path}/s.png") == 0
    with Image.open(tmp_path / "s.png") as picture:
        assert min(picture.size) >= 48

    mine = items(kind, 9, seed=3)
    np.savez(tmp_path / "mine.npz", **{key: mine, "levels": levels})
    capsys.readouterr()
    packing = (f"--input={tmp_path}/mine.npz", f"--out={tmp_path}/m.rnn")
    assert rnngen("compress", run, *packing) == 0
    said = capsys.readouterr().out
    nats = opened.nats(mine)
    assert f"likelihood:     {nats.mean() / mine[0].size / math.log(2):.4f} bits" in said
    bits = 8 * (tmp_path / "m.rnn").stat().st_size
    assert nats.sum() / math.log(2) < bits < nats.sum() / math.log(2) + 8 * 150
    unpacking = (f"--input={tmp_path}/m.rnn", f"--out={tmp_path}/back.npz")
    assert rnngen("decompress", run, *unpacking) == 0
    with np.load(tmp_path / "back.npz") as arrays:
        assert arrays[key].dtype == dtype
        np.testing.assert_array_equal(arrays[key], mine)


def test_the_toys_likelihood_is_a_distribution(toys):
    """Over all items of a tiny size, the probabilities sum to 1."""
    from rnngen_jax.shapes import spec_of

    spec = spec_of((2, 1, 2, 1), 3, 0)
    model = models.build("bigram_toy", {}, spec)
    params, extra = model.init(jax.random.key(0))
    grid = np.stack(np.meshgrid(*[np.arange(3)] * 4, indexing="ij"), -1).reshape(-1, *spec.shape)
    batch = {"frames": np.uint8(grid), "label": np.zeros(len(grid), np.int32)}
    batch["index"] = np.arange(len(grid))
    nats = model.log_prob(params, extra, batch, jax.random.key(0))
    assert np.exp(np.float64(nats)).sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("kind", ["codes", "frames"])
def test_completing_keeps_what_is_known(toys, tmp_path, kind):
    key, shape, levels, _ = ITEMS[kind]
    given = items(kind, 30)
    np.savez(tmp_path / "data.npz", **{key: given, "levels": levels})
    (tmp_path / "tiny.py").write_text(CONFIG)
    flags = (f"--config={tmp_path}/tiny.py:bigram_toy", f"--workdir={tmp_path}/run")
    assert rnngen("train", *flags, f"--config.data.name=npz:{tmp_path}/data.npz") == 0
    out = f"--out={tmp_path}/c.npz"
    assert rnngen("complete", f"--workdir={tmp_path}/run", "--num=2", "--mask=lower", out) == 0
    with np.load(tmp_path / "c.npz") as arrays:
        known, completed = arrays["known"], arrays["completed"]
        assert known.shape == (2, *shape[:-1])
        for one in np.moveaxis(completed, 1, 0):
            np.testing.assert_array_equal(one[known], arrays[key][known])
            assert not np.array_equal(one, arrays[key])
    out = f"--out={tmp_path}/c.png"
    assert rnngen("complete", f"--workdir={tmp_path}/run", "--num=2", "--mask=lower", out) == 0
    if kind == "frames":
        assert rnngen("sample", f"--workdir={tmp_path}/run", f"--out={tmp_path}/s.gif") == 0
        with Image.open(tmp_path / "s.gif") as picture:
            assert picture.n_frames >= shape[0]
        one = ("--num=2", "--mask=frames:2", "--completions=1", f"--out={tmp_path}/c.webp")
        assert rnngen("complete", f"--workdir={tmp_path}/run", *one) == 0
        with Image.open(tmp_path / "c.webp") as picture:
            assert picture.n_frames == shape[0]
            picture.seek(1)
            middle = np.asarray(picture.convert("RGB"))
        laid = pictures.layout(3, 2, *shape[1:3])
        top, left = laid.corner(1, 0)
        cell = middle[top : top + laid.height, left : left + laid.width]
        assert (cell == pictures.MISSING_COLOUR).all()


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        (
            {"image": np.full((30, 2, 2), 1024), "levels": 1024},
            "levels of train must be .*, got 1024",
        ),
        (
            {"image": np.full((30, 2, 2), -1), "levels": 1024},
            r"levels must be in \[0, 1023\], got -1",
        ),
        ({"image": np.zeros((30, 2, 2)), "levels": 1024}, "dtype must be integer, got 'float64'"),
        ({"image": np.zeros((30, 2, 2), int)}, "dtype must be uint8, got 'int64'"),
        (
            {"image": np.zeros((30, 2, 2, 2, 1), np.uint8)},
            r"'image' must be .*, got \(30, 2, 2, 2, 1",
        ),
        ({"frames": np.zeros((30, 2, 2, 1), np.uint8)}, r"'frames' must be \[N, T, H, W, C\], got"),
        (
            {"image": np.zeros((30, 2, 2), np.uint8), "levels": 2**21},
            r"integer in \[2, 1048576\], got 2097152",
        ),
    ],
)
def test_what_is_no_item_is_refused(toys, tmp_path, capsys, arrays, said):
    np.savez(tmp_path / "data.npz", **arrays)
    (tmp_path / "tiny.py").write_text(CONFIG)
    flags = (f"--config={tmp_path}/tiny.py:bigram_toy", f"--workdir={tmp_path}/run")
    assert rnngen("train", *flags, f"--config.data.name=npz:{tmp_path}/data.npz") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(said, error), error
    assert not (tmp_path / "run").exists()


def test_codes_are_not_binarised(toys, tmp_path, capsys):
    np.savez(tmp_path / "data.npz", image=items("codes", 30), levels=1024)
    (tmp_path / "tiny.py").write_text(CONFIG)
    flags = (f"--config={tmp_path}/tiny.py:bigram_toy", f"--workdir={tmp_path}/run")
    more = (f"--config.data.name=npz:{tmp_path}/data.npz", "--config.data.binarisation=static")
    assert rnngen("train", *flags, *more) == 2
    assert "config.data.binarisation must be 'none' for the 1024 codes" in capsys.readouterr().err


def test_the_protocol_and_meta_name_the_levels(toys, tmp_path):
    """So that the figures of codes are never taken for those of pixels."""
    np.savez(tmp_path / "data.npz", image=items("codes", 30), levels=1024)
    (tmp_path / "tiny.py").write_text(CONFIG)
    flags = (f"--config={tmp_path}/tiny.py:bigram_toy", f"--workdir={tmp_path}/run")
    assert rnngen("train", *flags, f"--config.data.name=npz:{tmp_path}/data.npz") == 0
    assert rg.load(tmp_path / "run").protocol["levels"] == 1024
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["model"] == {"name": "bigram_toy", "rank": 4}
