"""A run from Python: opened without its data, it draws, completes, scores and encodes."""

import math
import shutil

import jax
import numpy as np
import pytest
from PIL import Image
from tiny_runs import evaluated, rnngen

import rnngen_jax as rg
from rnngen_jax import data, experiment
from rnngen_jax.errors import UserError
from rnngen_jax.evaluation import sampling


@pytest.fixture(scope="module")
def root(tmp_path_factory, config):
    """A folder of colour images, and runs of it and of digits: copied, the images gone."""
    root = tmp_path_factory.mktemp("made")
    rng = np.random.default_rng(0)
    for split, num in (("train", 30), ("test", 12)):
        (root / "images" / split).mkdir(parents=True)
        for n in range(num):
            pixels = rng.integers(0, 256, (4, 4, 3), np.uint8)
            Image.fromarray(pixels).save(root / "images" / split / f"{n}.png")
    mine = (f"--config.data.name=folder:{root}/images", "--config.training.sample_every=0")
    flags = ("--config.model.readout=logistic_mixture", "--config.model.mixtures=2")
    assert rnngen("train", f"--config={config}", f"--workdir={root}/photos", *mine, *flags) == 0
    evaluated(root / "photos")
    shutil.copytree(root / "images", root / "kept")
    shutil.move(root / "photos", root / "elsewhere")
    shutil.rmtree(root / "images")
    return root


@pytest.fixture
def photos(root):
    return root / "elsewhere"


def test_a_run_opens_without_its_data(photos, root):
    run = rg.load(photos)
    images = run.sample(3, seed=5)
    assert (images.shape, images.dtype) == ((3, 4, 4, 3), np.uint8)
    np.testing.assert_array_equal(run.sample(70, seed=5)[:3], images)
    assert not np.array_equal(run.sample(3, seed=6), images)
    known = np.arange(4) < 2
    completed = run.complete(images, np.broadcast_to(known[:, None], (4, 4)), seed=1)
    np.testing.assert_array_equal(completed[:, known], images[:, known])
    assert not np.array_equal(completed, images)
    with pytest.raises(UserError, match="there is no such folder"):
        _ = run.dataset


def test_nats_are_those_of_the_ruler(photos, root):
    """On images that were read from a copy of the folder, the mean is what `evaluate` found."""
    run = rg.load(photos)
    paths = sorted((root / "kept" / "test").iterdir())
    images = np.stack([np.asarray(Image.open(path)) for path in paths])
    nats = run.nats(images)
    assert (nats.shape, nats.dtype) == ((12,), np.float64)
    record = evaluated_record(photos)
    assert nats.mean() == pytest.approx(record["metrics"]["nats_per_image"], rel=1e-6)
    bits = nats.mean() / run.spec.dims / math.log(2)
    assert bits == pytest.approx(record["metrics"]["bits_per_dim"], rel=1e-6)
    assert run.protocol.items() <= record["protocol"].items()
    assert run.step == record["step"]
    assert run.digest.hex() == record["digest"]


def evaluated_record(folder):
    from rnngen_jax.evaluation import records

    return records.read(folder)[-1]


@pytest.mark.parametrize(
    ("verb", "flags"),
    [
        ("sample", ["--num=2", "--out=a.png"]),
        ("complete", ["--input=IMAGE", "--out=b.png"]),
        ("compress", ["--input=IMAGE", "--out=c.rnn"]),
        ("decompress", ["--input=c.rnn", "--out=d.npz"]),
    ],
)
def test_the_verbs_do_without_it_too(photos, root, tmp_path_factory, monkeypatch, verb, flags):
    place = root / "verbs"
    place.mkdir(exist_ok=True)
    monkeypatch.chdir(place)
    image = root / "kept" / "test" / "0.png"
    flags = [flag.replace("IMAGE", str(image)) for flag in flags]
    assert rnngen(verb, f"--workdir={photos}", *flags) == 0
    if verb == "decompress":
        with np.load("d.npz") as arrays:
            np.testing.assert_array_equal(arrays["image"][0], np.asarray(Image.open(image)))


@pytest.mark.parametrize("verb", ["complete", "compress"])
def test_what_needs_the_data_says_so_in_one_line(photos, verb, capsys):
    assert rnngen(verb, f"--workdir={photos}") == 2
    error = capsys.readouterr().err
    assert "there is no such folder" in error
    assert "Or give images of your own with --input." in error
    assert error.count("\n") == 1


def test_other_data_in_their_place_are_refused(photos, tmp_path):
    moved = shutil.copytree(photos, tmp_path / "run")
    settings = moved / "config.json"
    settings.write_text(settings.read_text().replace(rg.load(moved).experiment.data.name, "digits"))
    run = rg.load(moved)
    assert run.sample(1).shape == (1, 4, 4, 3)
    with pytest.raises(UserError, match=r"'digits' must have the images that .*run was trained on"):
        _ = run.dataset


@pytest.fixture
def run(runs):
    """A run of digits with classes."""
    return rg.load(runs / "row")


def test_labels_are_cycled_or_given(run):
    images = run.sample(12, seed=2)
    given = run.sample(12, seed=2, labels=np.arange(12) % 10)
    np.testing.assert_array_equal(images, given)
    zeros = np.zeros(12, int)
    assert not np.array_equal(run.sample(12, seed=2, labels=zeros), images)
    assert not np.array_equal(run.nats(images, labels=zeros), run.nats(images, labels=zeros + 1))
    draw = sampling.sampler(run.model)
    want = draw(run.params, run.extra, jax.random.key(2), 12, np.int32(zeros), 1.0)
    np.testing.assert_array_equal(run.sample(12, seed=2, labels=zeros), want)


def test_scalar_arrays_are_numbers(run):
    first = run.sample(2, seed=1, temperature=0.5)
    again = run.sample(np.int64(2), seed=np.uint8(1), temperature=np.float32(0.5))
    np.testing.assert_array_equal(first, again)


def test_a_run_is_shown_without_its_parameters(run):
    shown = f"Run({str(run.workdir)!r}, model='row_rnn', step={run.step}, seed_index=0)"
    assert repr(run) == shown


def test_what_does_not_fit_is_said(run):
    images = np.zeros((2, 8, 8, 1), np.uint8)
    classes = np.zeros(2, int)
    for call, said in (
        (lambda: run.sample(0), "num must be an integer ≥ 1, got 0"),
        (lambda: run.sample(2.5), "num must be an integer ≥ 1, got 2.5"),
        (lambda: run.sample("3"), "num must be an integer ≥ 1, got '3'"),
        (lambda: run.sample(1, seed=1.5), "seed must be an integer, got 1.5"),
        (lambda: run.sample(1, temperature="1"), "temperature must be a number, got '1'"),
        (
            lambda: run.complete(images, images[..., 0] > 0, labels=classes, candidates=1.5),
            "candidates must be an integer ≥ 1, got 1.5",
        ),
        (lambda: rg.evaluate(str(run.workdir)), r"run must be a Run, such as load\(WORKDIR\)"),
        (lambda: run.sample(1, seed=-1), r"seed must be in \[0, 2147483647\], got -1"),
        (lambda: run.sample(1, temperature=0.0), "temperature must be .*got 0.0"),
        (lambda: run.sample(1, labels=np.array([10])), r"1 integers in \[0, 9\], got 10"),
        (lambda: run.nats(images), r"labels must be 2 integers in \[0, 9\], got none"),
        (lambda: run.nats(images / 2, labels=classes), "float64 of shape"),
        (lambda: run.nats(images[:, :7], labels=classes), r"must be integers of shape \('N', 8"),
        (
            lambda: run.nats(images + 17, labels=classes),
            r"grey levels in \[0, 16\], .* got 17",
        ),
        (lambda: run.nats(images, labels=classes, iw_samples=3), "with no latents to draw"),
        (
            lambda: run.complete(images, images[..., 0], labels=classes),
            "mask must be .* got uint8",
        ),
        (lambda: run.complete(images, np.ones((3, 8, 8), bool), labels=classes), "bool of shape"),
        (lambda: run.encode(images, labels=classes), "row_rnn has no latents"),
        (lambda: rg.load(run.workdir, 3), "there is no checkpoint 3"),
    ):
        with pytest.raises(UserError, match=said):
            call()


def test_what_is_compiled_is_kept(run, monkeypatch):
    made, make = [], sampling.completer
    monkeypatch.setattr(sampling, "completer", lambda *a: made.append(a[2]) or make(*a))
    images, classes = run.sample(2), np.arange(2)
    mask = np.arange(64).reshape(8, 8) < 32
    first, again = (run.complete(images, mask, labels=classes, seed=4) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    run.complete(images, mask, labels=classes, candidates=2)
    assert made == [None, 2]


def test_images_without_an_axis_of_channels(run):
    images = np.zeros((2, 8, 8), np.int64)
    classes = np.zeros(2, int)
    found = run.nats(images, labels=classes)
    np.testing.assert_array_equal(found, run.nats(images[..., None], labels=classes))


def test_training_and_evaluating_from_python(tmp_path, capsys):
    """What a notebook does; the record is what `evaluate` writes."""
    config = experiment.default("pixel_rnn")
    config.model.features = 8
    config.training.update(steps=4, batch_size=8, steps_per_call=2, log_every=2)
    config.training.update(validate_every=0, sample_every=0, checkpoint_every=0)
    outcome = rg.train(config, tmp_path / "run")
    assert (outcome.state, outcome.step, outcome.ended) == ("done", 4, True)
    run = rg.load(tmp_path / "run")
    record = rg.evaluate(run, "validation", num=8)
    assert record == evaluated_record(tmp_path / "run")
    images, _ = data.load(run.experiment.data).splits["validation"].read(np.arange(8))
    nats = run.nats(images)
    assert record["metrics"]["nats_per_image"] == pytest.approx(nats.mean(), rel=1e-6)
    assert "step 4/4" in capsys.readouterr().out
