"""What the verbs make of codes: tiny runs of a VQ-VAE of two depths and of a prior with classes."""

import dataclasses
import functools
import os

import jax
import numpy as np
import pytest
from PIL import Image
from tiny_runs import rnngen, tree

from rnngen_jax.commands import base, codebook, reconstruct, sample
from rnngen_jax.evaluation import animations, codes, pictures

CONFIG = """
from rnngen_jax import experiment

def get_config(arg="vqvae"):
    config = experiment.default(arg)
    own = config.model
    if arg == "code_rnn":
        config.model.update(features=8, input_features=8, class_conditional=True)
        own = config.vqvae
    own.update(quantiser="codebook:codes=7", features=4, vectors=4, blocks=0, depth=2)
    config.training.update(seed=3, steps=2, batch_size=8, steps_per_call=2)
    config.training.update(validate_every=0, sample_every=0)
    return config
"""
PICTURES = ["codes_1.png", "codes_2.png", "maps.png", "usage.png"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A tokenizer's run, and a prior's."""
    root = tmp_path_factory.mktemp("codes")
    (root / "tiny.py").write_text(CONFIG)
    config, tokenizer = f"--config={root}/tiny.py", f"--config.tokenizer={root}/vqvae"
    assert rnngen("train", config, f"--workdir={root}/vqvae") == 0
    assert rnngen("train", f"{config}:code_rnn", tokenizer, f"--workdir={root}/prior") == 0
    return root


# A run is restored, and its model's functions are compiled, once for all tests.
opened = functools.cache(base.open_run)


@pytest.fixture
def call(made, tmp_path, monkeypatch, capsys):
    """`call(verb, run, *flags) -> lines`, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    for verb in (codebook, sample, reconstruct):
        monkeypatch.setattr(verb, "open_run", opened)

    def call(verb, run, *flags):
        capsys.readouterr()
        assert rnngen(verb, f"--workdir={made / run}", *flags) == 0, capsys.readouterr().err
        return capsys.readouterr().out.splitlines()

    return call


def arrays(path):
    with np.load(path) as stored:
        return dict(stored)


def frames_of(path):
    with Image.open(path) as image:
        found = []
        for number in range(image.n_frames):
            image.seek(number)
            found.append(np.asarray(image.convert("RGB")))
        return np.stack(found)


def test_a_codebook_is_that_of_the_whole_split(call):
    run = "prior"
    *said, out = call("codebook", run, "--out=book.npz", "--most=3", "--shown=2")
    assert out == "book.npz"
    stored = arrays("book.npz")
    call("reconstruct", run, "--num=300", "--out=all.npz")
    rebuilt = arrays("all.npz")
    np.testing.assert_array_equal(stored["image"], rebuilt["image"][:2])
    assert stored["levels"] == 17
    np.testing.assert_allclose(stored["reconstruction"], rebuilt["reconstruction"][:2], atol=1e-6)
    assert stored["counts"].shape == (2, 7)
    assert (stored["counts"].sum(1) == 300 * 16).all()
    assert stored["codes"].shape == (2, 4, 4, 2)
    assert stored["alone"].shape == stored["surrounded"].shape == (2, 3, 6, 6, 1)
    used = codes.usage_of(stored["counts"])
    assert said[0] == (
        f"codes:          perplexity {used.perplexity:.1f}, {used.share:.1%} in use, "
        f"{used.dead} dead"
    )
    call("codebook", run, "--out=book.npz", "--num=1")
    few = arrays("book.npz")
    assert (few["counts"].sum(1) == 16).all()
    for depth, count in enumerate(few["counts"]):
        own = np.bincount(few["codes"][0, ..., depth].ravel(), minlength=7)
        np.testing.assert_array_equal(count, own)
    assert few["alone"].shape == (2, 7, 6, 6, 1)


def test_a_prior_has_the_codebook_of_its_tokenizer(call):
    for run in ("vqvae", "prior"):
        assert call("codebook", run, f"--out={run}/")[-1] == f"{run}/"
        assert sorted(os.listdir(run)) == PICTURES
    for name in PICTURES:
        both = [np.asarray(Image.open(f"{run}/{name}")) for run in ("vqvae", "prior")]
        np.testing.assert_array_equal(*both)


def test_images_of_ones_own_are_counted_too(call):
    images = np.random.default_rng(0).integers(0, 17, (3, 8, 8, 1), np.uint8)
    np.savez("own.npz", image=images, levels=np.int32(17))
    call("codebook", "prior", "--input=own.npz", "--label=1", "--out=book.npz")
    stored = arrays("book.npz")
    np.testing.assert_array_equal(stored["image"], images)
    assert (stored["counts"].sum(1) == 3 * 16).all()


def test_a_film_ends_at_the_expected_images_of_the_seed(call):
    """Sixteen places one after another, each expected image beside its map."""
    flags = ("--num=2", "--seed=3", "--label=4")
    assert call("sample", "prior", *flags, "--out=film.gif") == ["film.gif"]
    frames = frames_of("film.gif")
    assert len(frames) == 1 + 16 + 1
    call("sample", "prior", *flags, "--pixels=mean", "--out=mean.npz")
    means = pictures.to_pixels(arrays("mean.npz")["image"], 256).repeat(6, 1).repeat(6, 2)
    for n, want in enumerate(means):
        left = 2 + 50 * (2 * n + 1)
        # A palette of 256 colours has all greys of so few pixels.
        assert abs(frames[-1][2:50, left : left + 48].astype(int) - want).max() <= 1
    box = (frames == animations.WRITE_COLOUR).all(-1).any((1, 2))
    assert box.tolist() == [False] + [True] * 16 + [False]


@pytest.mark.parametrize("run", ["vqvae", "prior"])
def test_a_film_of_images_ends_at_their_reconstructions(call, run):
    said = call("reconstruct", run, "--num=2", "--out=film.gif")
    assert said == [call("reconstruct", run, "--num=2", "--out=r.npz")[0], "film.gif"]
    frames, stored = frames_of("film.gif"), arrays("r.npz")
    assert len(frames) == {"vqvae": 1 + 4 + 1, "prior": 1 + 16 + 1}[run]
    want = pictures.reconstructions(stored["image"], stored["reconstruction"], 17)
    assert abs(frames[-1][:51].astype(int) - want[:51]).max() <= 1
    assert abs(frames[-1][101:].astype(int) - want[51:]).max() <= 1
    # Its maps are those of the codebook.
    call("codebook", run, "--num=2", "--out=book/")
    maps = np.asarray(Image.open("book/maps.png"))
    assert abs(frames[-1][51:101].astype(int) - maps[51:101]).max() <= 6  # by 256 colours


REFUSED = {
    "codebook --out=new.png": "--out must be a file that ends in .npz, or a folder/, got 'new.png'",
    "codebook --most=0 --out=new/": "--most must be ≥ 1, got 0",
    "codebook --shown=0 --out=new/": "--shown must be ≥ 1, got 0",
    "codebook --num=0 --out=new/": "--num must be ≥ 1, got 0",
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_cannot_be_shown_is_refused(call, made, capsys, words):
    verb, *flags = words.split()
    assert rnngen(verb, f"--workdir={made}/vqvae", *flags) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert REFUSED[words] in line
    assert os.listdir() == []


def test_a_model_without_codes_is_refused_in_one_line(call, made, capsys, monkeypatch):
    def open_run(which):
        run = opened(which)
        return dataclasses.replace(run, model=run.model._replace(codes=None))

    for verb in (codebook, sample):
        monkeypatch.setattr(verb, "open_run", open_run)
    assert rnngen("codebook", f"--workdir={made}/vqvae", "--out=new/") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        "error: vqvae has no codes to show; use a model with a codebook, such as vqvae or code_rnn."
    )
    assert rnngen("sample", f"--workdir={made}/vqvae", "--out=new.gif") == 2
    assert "vqvae has no canvases for a .gif" in capsys.readouterr().err
    assert os.listdir() == []


def test_of_several_processes_the_first_writes_and_prints(call, tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    assert call("codebook", "prior", "--out=new/") == []
    assert tree(tmp_path) == {}
