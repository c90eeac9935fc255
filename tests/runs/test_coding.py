"""Images by their codes alone: from Python and by the verbs, and files that are refused."""

import dataclasses
import json
import math
import pathlib

import constriction
import jax
import numpy as np
import pytest
from parameters import moved
from PIL import Image
from tiny_runs import rnngen, tree

from rnngen_jax import continuing, data, experiment
from rnngen_jax.commands import compress, decompress, rate_distortion
from rnngen_jax.errors import RunError, UserError
from rnngen_jax.evaluation import codec, container, lossy_formats, pictures
from rnngen_jax.evaluation.container import Grid
from rnngen_jax.evaluation.distortion import distortion
from rnngen_jax.runs import Run

GRID = Grid((4, 4, 2), 5)
NUM = 9
TINY = {"quantiser": "codebook:codes=5", "features": 4, "vectors": 4, "blocks": 0, "depth": 2}
PRIOR = {"features": 5, "input_features": 4, "deep_features": 4, "class_conditional": True}
STEP = 4


def made_of(name, levels=1):
    """An untrained run, whose parameters are random enough for all codes to occur."""
    config = experiment.default(name)
    (config.model if name == "vqvae" else config.vqvae).update(TINY | {"levels": levels})
    if name == "code_rnn":
        config.model.update(PRIOR)
    settings = continuing.resolve(experiment.check(config))
    model = experiment.build(settings, data.load(settings.data).spec)
    params, extra = jax.jit(model.init)(jax.random.key(1))
    params = moved(params)
    return Run(pathlib.Path("runs") / name, settings, model, params, extra, STEP)


@pytest.fixture(scope="module")
def runs():
    """A tokenizer's run, one of a class-conditional prior over its codes, and one of two levels."""
    tokenizer, prior = made_of("vqvae"), made_of("code_rnn")
    own = {"params": tokenizer.params, "extra": tokenizer.extra}
    prior = dataclasses.replace(prior, extra={**prior.extra, "tokenizer": own})
    return {"vqvae": tokenizer, "code_rnn": prior, "levels": made_of("vqvae", levels=2)}


@pytest.fixture
def call(runs, tmp_path, monkeypatch):
    """`call(verb, *flags) -> code`, which opens these runs by their names."""
    for verb in (compress, decompress, rate_distortion):
        monkeypatch.setattr(verb, "open_run", lambda which: runs[which.workdir.rpartition("/")[2]])
    monkeypatch.chdir(tmp_path)
    return rnngen


@pytest.fixture(scope="module")
def images(runs):
    return runs["vqvae"].dataset.splits["test"].read(np.arange(NUM))


@pytest.fixture(scope="module")
def packed(runs, images):
    """The images' files."""
    labels = {"code_rnn": images[1]}
    return {
        name: run.compress(images[0], labels=labels.get(name), lossy=True)
        for name, run in runs.items()
    }


NAMES = pytest.mark.parametrize("name", ["vqvae", "code_rnn", "levels"])


@NAMES
def test_the_expected_images_of_the_codes_come_back(runs, images, packed, name):
    """Of a tokenizer and of its prior the same images, in whatever stream."""
    run, tokenizer = runs[name], runs["levels" if name == "levels" else "vqvae"]
    back, labels = run.decompress(packed[name])
    codes = tokenizer.model.codes
    own = tokenizer.params, tokenizer.extra

    @jax.jit
    def expected(image):
        return codes.likelihood.mean(codes.raw(*own, codes.encode(*own, image)))

    wanted = np.rint(np.float64(expected(images[0])) * 16)
    assert back.dtype == np.uint8
    np.testing.assert_array_equal(back, wanted)
    assert len(np.unique(back)) > 3
    if name == "code_rnn":
        np.testing.assert_array_equal(labels, images[1])
    else:
        assert labels is None
    again, _ = run.decompress(packed[name])
    np.testing.assert_array_equal(again, back)


@NAMES
def test_the_payload_is_as_long_as_the_codes_are_unlikely(runs, images, packed, name):
    """Codes of 5 under the uniform prior; under the other, its nats and the labels."""
    run, content = runs[name], container.unpack(packed[name], "f")
    assert packed[name][4] == 5
    grids = (GRID._replace(shape=(2, 2, 2)), GRID) if name == "levels" else (GRID,)
    assert (content.shape, content.levels, content.grids) == ((8, 8, 1), 17, grids)
    assert content.labelled == (name == "code_rnn")
    bits = NUM * sum(math.prod(grid.shape) for grid in grids) * math.log2(5)
    if name == "code_rnn":
        tokenizer = runs["vqvae"]
        codes = tokenizer.model.codes.encode(tokenizer.params, tokenizer.extra, images[0])
        row = np.reshape(codes, (NUM, 1, 32, 1))
        batch = {"image": row, "label": images[1], "index": np.arange(NUM)}
        log_prob = jax.jit(run.model.lossy.rows.log_prob)
        log_p = log_prob(run.params, run.extra, batch, jax.random.key(0))
        bits = -float(log_p.sum()) / math.log(2) + NUM * math.log2(10)
    assert bits - 1 <= 8 * sum(map(len, content.streams)) <= bits + 64


def test_without_loss_all_comes_back_in_a_file_of_an_older_version(runs, images, packed):
    run = runs["vqvae"]
    whole = run.compress(images[0])
    back, labels = run.decompress(whole)
    np.testing.assert_array_equal(back, images[0])
    assert labels is None
    assert whole[4] == 2
    assert container.unpack(whole, "f").grids == ()
    bits = 8 * sum(map(len, container.unpack(whole, "f").streams))
    assert bits == pytest.approx(run.nats(images[0]).sum() / math.log(2), abs=64)


def test_the_verbs_write_and_read_the_same(call, runs, images, packed, capsys):
    assert call("compress", "--workdir=vqvae", f"--num={NUM}", "--out=f.rnn", "--lossy") == 0
    said = capsys.readouterr().out
    assert pathlib.Path("f.rnn").read_bytes() == packed["vqvae"]
    back, _ = runs["vqvae"].decompress(packed["vqvae"])
    size, lost = len(packed["vqvae"]), distortion(back, images[0], 17)
    assert f"file:           {size:,} bytes, {8 * size / NUM / 64:.4f} bits per pixel, " in said
    assert f"PSNR {lost.psnr:.2f} dB, SSIM {lost.ssim:.4f} in windows of 7x7\n" in said
    payload = sum(map(len, container.unpack(packed["vqvae"], "f").streams))
    assert f"payload:        {payload:,} bytes, {8 * payload / NUM / 64:.4f} bits per pixel" in said
    likelihood = 32 * math.log2(5) / 64
    assert f"likelihood:     {likelihood:.4f} bits per pixel, of 4x4x2 codes of 5 per image" in said
    assert "PNG" not in said
    assert call("decompress", "--workdir=vqvae", "--input=f.rnn", "--out=f.npz") == 0
    with np.load("f.npz") as arrays:
        assert sorted(arrays) == ["image", "levels"]
        assert arrays["levels"] == 17
        np.testing.assert_array_equal(arrays["image"], back)


def test_pictures_between_the_levels_come_back_under_their_names(call, runs, images, capsys):
    """They are rounded to the model's levels, which without loss is refused."""
    pixels = pictures.to_pixels(images[0][:2], 17)[..., 0]
    pathlib.Path("in").mkdir()
    for name, image in zip("ba", pixels, strict=True):
        Image.fromarray(np.minimum(image, 253)).save(f"in/{name}.png")
    given = ("--workdir=vqvae", "--input=in", "--out=f.rnn")
    assert call("compress", *given) == 2
    assert "so it cannot be compressed without loss" in capsys.readouterr().err
    assert call("compress", *given, "--lossy") == 0
    assert call("decompress", "--workdir=vqvae", "--input=f.rnn", "--out=out/") == 0
    back, _ = runs["vqvae"].decompress(pathlib.Path("f.rnn").read_bytes())
    for name, image in zip("ab", pictures.to_pixels(back, 17)[..., 0], strict=True):
        with Image.open(f"out/{name}.png") as picture:
            np.testing.assert_array_equal(np.asarray(picture), image)


def outside(num):
    """A stream of codes of which some are not among 5, as of a tokenizer with 9."""
    codes = np.random.default_rng(0).integers(0, 9, num * 32).astype(np.int32)
    encoder = constriction.stream.queue.RangeEncoder()
    encoder.encode(codes, constriction.stream.model.Uniform(9))
    rows = codes.reshape(num, 1, 32, 1).astype(np.uint8)
    return {
        "pixels": (codec.digest(rows, None),),
        "streams": (encoder.get_compressed().astype("<u4").tobytes(),),
    }


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"model": b"notmodel"}, "was made with the model 6e6f746d6f64656c; step 4 of"),
        ({"grids": (GRID._replace(codes=9),)}, "as 4x4x2 codes of 9; those of the model in"),
        ({"grids": (Grid((2, 4, 2), 5),)}, "as 2x4x2 codes of 5; those of the model in"),
        ({"grids": (GRID, GRID)}, "4x4x2 codes of 5 and 4x4x2 codes of 5; those of the model"),
        ({"levels": 16}, "(8, 8, 1) with 16 levels; those of the model"),
        ({"grids": ()}, "come out than went in|ends before"),
        ({"labelled": True}, "this model would not write such a file"),
        (outside(NUM), "values come out than went in. It was forged|ends before"),
        ({"streams": (bytes(8),)}, "its stream of 8 bytes ends before its images. It was forged"),
        ({"pixels": (bytes(8),)}, "other values come out than went in. It was forged"),
        ({"num": 10}, "It was forged"),
    ],
)
def test_a_file_that_lies_gives_nothing(call, packed, capsys, fields, said):
    content = container.unpack(packed["vqvae"], "f")
    pathlib.Path("f.rnn").write_bytes(container.pack(content._replace(**fields)))
    refused(call, capsys, said)


@pytest.mark.parametrize("change", [lambda x: x[:-9], lambda x: x[:20] + b"?" + x[21:]])
def test_a_damaged_file_gives_nothing(call, packed, capsys, change):
    pathlib.Path("f.rnn").write_bytes(change(packed["vqvae"]))
    refused(call, capsys, "is damaged or truncated: its checksum differs")


def refused(call, capsys, said):
    """`decompress` refuses the file in one line and writes nothing."""
    before = tree(pathlib.Path())
    assert call("decompress", "--workdir=vqvae", "--input=f.rnn", "--out=out/") == 2
    error = capsys.readouterr().err
    assert any(part in error for part in said.split("|")), error
    assert len(error.strip().splitlines()) == 1
    assert tree(pathlib.Path()) == before


def test_what_decodes_elsewhere_to_other_codes_is_told(runs, packed):
    """As where floating point differs, which the digest of the arithmetic shows."""
    content = container.unpack(packed["vqvae"], "f")
    fields = {"pixels": (bytes(8),), "arithmetic": b"else", "maker": "0.9.9 gpu H200"}
    with pytest.raises(RunError, match=r"other values come out .* made with JAX 0\.9\.9 gpu H200"):
        runs["vqvae"].decompress(container.pack(content._replace(**fields)))


def test_the_other_runs_file_is_refused(runs, packed):
    with pytest.raises(UserError, match="the compressed content was made with the model"):
        runs["vqvae"].decompress(packed["code_rnn"])


def test_a_model_without_codes_neither_writes_nor_reads_them(runs, images, packed):
    run = runs["vqvae"]
    without = dataclasses.replace(run, model=run.model._replace(lossy=None))
    with pytest.raises(UserError, match="vqvae has no codes of images, which alone are kept"):
        without.compress(images[0], lossy=True)
    with pytest.raises(UserError, match=r"holds codes of images, and the model in .*, has none"):
        without.decompress(packed["vqvae"])
    with pytest.raises(UserError, match="images must be integers of shape"):
        run.compress(images[0] / 16, lossy=True)


def test_rate_and_distortion_beside_formats(call, runs, images, packed, capsys):
    flags = ("--workdir=vqvae,runs/code_rnn", f"--num={NUM}", "--out=out")
    assert call("rate_distortion", *flags) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"{NUM} images of digits, 8x8, 17 levels" in lines
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if "|" in line]
    titles = [row[0].split()[0] for row in rows[2:]]
    assert titles == ["vqvae", "JPEG", "WebP", "code_rnn", "JPEG", "WebP"]
    points = json.loads(pathlib.Path("out/rate_distortion.json").read_text())["points"]
    formats = (lossy_formats.JPEG_QUALITIES, lossy_formats.WEBP_QUALITIES)
    assert len(points) == 2 + sum(map(len, formats))
    for name, point in zip(("vqvae", "code_rnn"), points, strict=False):
        payload = sum(map(len, container.unpack(packed[name], "f").streams))
        facts = (point["name"], point["bytes"], point["payload"])
        assert facts == (name, len(packed[name]), payload)
        back, _ = runs[name].decompress(packed[name])
        lost = distortion(*(pictures.to_pixels(x, 17) for x in (back, images[0])), 256)
        assert point["psnr"] == pytest.approx(lost.psnr)
    written = {path.name for path in pathlib.Path("out").iterdir()}
    assert {"original.png", "vqvae.png", "code_rnn_webp.png"} <= written


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--workdir=,", "--workdir must be folders of runs, comma-separated, got ','"),
        ("--workdir=vqvae,runs/vqvae", "have one name, of vqvae, vqvae; rename one"),
        ("--workdir=vqvae --out=file", "--out must be a folder, got 'file'"),
        ("--workdir=vqvae --num=0", "--num must be ≥ 1, got 0"),
        ("--workdir=vqvae,other", "--workdir=runs/vqvae has other images than the first of the"),
        ("--workdir=without", "vqvae has no codes of images"),
    ],
)
def test_what_cannot_be_compared_is_refused(call, runs, capsys, monkeypatch, flags, said):
    run = runs["vqvae"]
    monkeypatch.setitem(
        runs, "without", dataclasses.replace(run, model=run.model._replace(lossy=None))
    )
    other = dataclasses.replace(run)
    other.__dict__["dataset"] = run.dataset._replace(
        splits={"test": run.dataset.splits["validation"]}
    )
    monkeypatch.setitem(runs, "other", other)
    pathlib.Path("file").touch()
    assert call("rate_distortion", *flags.split()) == 2
    error = capsys.readouterr().err
    assert said in error, error
    assert len(error.strip().splitlines()) == 1
