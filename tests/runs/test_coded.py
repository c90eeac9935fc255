"""Runs on the codes of another run: the codes, their cache, and what is refused."""

import itertools
import json
import math
import shutil

import jax
import numpy as np
import pytest
from parameters import moved
from PIL import Image
from tiny_runs import evaluated, rnngen, tree

import rnngen_jax as rg
from rnngen_jax import data, models
from rnngen_jax.data import codes as stored
from rnngen_jax.data.base import SPLITS, DataConfig
from rnngen_jax.errors import UserError
from rnngen_jax.runs import coded
from rnngen_jax.shapes import ImageSpec

CONFIG = """
from rnngen_jax import experiment

def get_config(arg):
    config = experiment.default(arg)
    if arg == "vqvae":
        config.model.update(quantiser="codebook:codes=5", features=4, vectors=4, blocks=0, depth=2)
    elif arg == "code_prior":
        config.model.prior = "pixel_cnn:features=4,layers=1,first_kernel=3"
    elif arg != "code_rnn":
        config.model.update(features=4, layers=1, readout_hidden=0, first_kernel=3)
    config.training.update(seed=3, steps=2, batch_size=8, steps_per_call=2, log_every=2)
    config.training.update(validate_every=2, checkpoint_every=2, sample_every=0)
    config.evaluation.num_images = 20
    return config
"""
PRIORS = ("row_lstm", "diagonal_bilstm", "pixel_cnn")
SHAPE, CODES = (4, 4, 2), 5
SLOW = pytest.mark.slow


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A tokenizer's run, and the config file of all."""
    root = tmp_path_factory.mktemp("coded")
    (root / "tiny.py").write_text(CONFIG)
    assert rnngen("train", f"--config={root}/tiny.py:vqvae", f"--workdir={root}/vqvae") == 0
    return root


@pytest.fixture
def tokenizer(made, tmp_path):
    """A copy of the tokenizer's run, without codes."""
    missing = shutil.ignore_patterns(stored.FOLDER)
    shutil.copytree(made / "vqvae", tmp_path / "vqvae", ignore=missing)
    return tmp_path / "vqvae"


def train(made, name, workdir, source, *flags):
    config = f"--config={made}/tiny.py:{name}"
    return rnngen("train", config, f"--workdir={workdir}", f"--config.data.name={source}", *flags)


def everything(split):
    return split.read(np.arange(split.num))


def name_of(workdir):
    return json.loads((workdir / "config.json").read_text())["data"]["name"]


def test_the_codes_are_those_of_the_tokenizer_to_the_bit(made):
    """Of all splits, in order, with the labels; and they are codes, as they decode alike."""
    run = rg.load(made / "vqvae")
    config = coded.pinned(DataConfig(name=f"codes:{made}/vqvae"))
    assert config.name == f"codes:{made}/vqvae@{run.digest.hex()}"
    found = data.load(config)
    assert found.spec == ImageSpec(*SHAPE, levels=CODES, classes=10)
    assert set(found.splits) == set(SPLITS)
    encode = jax.jit(run.model.codes.encode)
    for name, split in found.splits.items():
        images, labels = everything(run.dataset.splits[name])
        codes, own = everything(split)
        assert codes.dtype == np.uint8
        np.testing.assert_array_equal(codes, encode(run.params, run.extra, images))
        np.testing.assert_array_equal(own, labels)
    assert len(np.unique(codes)) > 1
    vectors = run.model.codes.vectors(run.params, run.extra, codes)
    np.testing.assert_allclose(np.reshape(vectors, (300, 16, 4)), run.encode(images), atol=1e-6)


def test_one_draw_of_a_dynamic_binarisation_is_that_of_evaluation(made, tmp_path):
    from rnngen_jax.evaluation import inputs

    shutil.copytree(made / "vqvae", tmp_path / "run")
    path = tmp_path / "run" / "config.json"
    path.write_text(path.read_text().replace('"binarisation": "none"', '"binarisation": "dynamic"'))
    run = rg.load(tmp_path / "run")
    run.__dict__["dataset"] = data.load(run.experiment.data)  # of two levels, beside a net of 17
    codes, _ = coded.encoded(run, "test")
    images, _ = inputs.read_split(run.dataset, "test", None)
    assert images.max() == 1
    np.testing.assert_array_equal(
        codes, jax.jit(run.model.codes.encode)(run.params, run.extra, images)
    )


def test_they_are_written_once_and_mapped(tokenizer, monkeypatch):
    lines = []
    config = coded.pinned(DataConfig(name=f"codes:{tokenizer}"), lines.append)
    assert len(lines) == 1
    assert lines[0].startswith("codes: 1297 train, 200 validation, 300 test, by ")
    before = tree(tokenizer)

    def refuse(*_):
        raise AssertionError("the encoder ran")

    monkeypatch.setattr(coded, "encoded", refuse)
    assert coded.pinned(DataConfig(name=f"codes:{tokenizer}"), lines.append) == config
    monkeypatch.setattr(coded, "load", refuse)
    assert coded.pinned(config) == config
    assert len(lines) == 1
    assert tree(tokenizer) == before
    folder = stored.origin(config.name).folder
    array = stored._array(folder / "train_image.npy", stored._facts(folder)[2])
    assert isinstance(array, np.memmap)
    assert not array.flags.writeable


def test_a_tokenizer_that_trained_on_gives_new_codes_to_new_runs_alone(
    made, tokenizer, tmp_path, capsys
):
    assert train(made, "pixel_cnn", tmp_path / "old", f"codes:{tokenizer}") == 0
    first = name_of(tmp_path / "old")
    longer = ("--config.training.steps=40", "--config.training.validate_every=40")
    config = f"--config={made}/tiny.py:vqvae"
    assert rnngen("train", config, f"--workdir={tokenizer}", *longer) == 0
    second = coded.pinned(DataConfig(name=f"codes:{tokenizer}")).name
    assert second != first
    assert data.canonical(second) != data.canonical(first)
    one, other = (
        everything(data.load(DataConfig(name=n)).splits["test"])[0] for n in (first, second)
    )
    assert not np.array_equal(one, other)
    more = "--config.training.steps=4"
    assert train(made, "pixel_cnn", tmp_path / "old", f"codes:{tokenizer}", more) == 0
    assert name_of(tmp_path / "old") == first
    assert train(made, "pixel_cnn", tmp_path / "old", second, more) == 2
    # Nor with codes of another depth, whether by another name or in the place of its own.
    flat = dict.fromkeys(SPLITS, lambda codes: np.tile(codes[..., :1], (2, 1, 1, 1)))
    where, config = written(tmp_path, **flat)
    before = tree(tmp_path / "old")
    assert train(made, "pixel_cnn", tmp_path / "old", config.name, more) == 2
    shutil.rmtree(stored.origin(first).folder)
    shutil.copytree(where.folder, stored.origin(first).folder)
    assert train(made, "pixel_cnn", tmp_path / "old", first, "--config.training.steps=6") == 2
    error = capsys.readouterr().err.splitlines()
    assert "belongs to another model: spec.channels is 2 there and 1 here" in error[-1]
    assert rnngen("evaluate", f"--workdir={tmp_path}/old") == 2
    assert "must have the images that" in capsys.readouterr().err
    assert tree(tmp_path / "old") == before


def test_a_run_goes_on_where_the_tokenizer_has_moved(made, tokenizer, tmp_path):
    assert train(made, "pixel_cnn", tmp_path / "run", f"codes:{tokenizer}") == 0
    digest = stored.origin(name_of(tmp_path / "run")).digest
    tokenizer.rename(tmp_path / "moved")
    moved = f"codes:{tmp_path}/moved@{digest}"
    more = "--config.training.steps=4"
    assert train(made, "pixel_cnn", tmp_path / "run", moved, more) == 0
    assert rg.load(tmp_path / "run", "latest").step == 4


# Each likelihood sums to one over grids of codes below, and `code_prior` trains each on the grid of
# devices: of runs on codes one kind is enough.
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=SLOW if name != "pixel_cnn" else ()) for name in PRIORS]
)
def test_any_autoregressive_model_is_a_prior(made, tmp_path, capsys, name):
    """Two steps; nats per grid, no image's bits; and samples as codes and as images."""
    run = tmp_path / "run"
    assert train(made, name, run, f"codes:{made}/vqvae") == 0
    capsys.readouterr()
    record = evaluated(run, "--num=20")
    said, metrics = capsys.readouterr().out, record["metrics"]
    opened = rg.load(run)
    codes, _ = opened.dataset.splits["test"].read(np.arange(20))
    nats = opened.nats(codes).mean()
    assert metrics["code_nats"] == pytest.approx(nats, rel=1e-6)
    assert metrics["bits_per_code"] == pytest.approx(nats / 32 / math.log(2), rel=1e-6)
    told = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    for line in ({"split": "test", **metrics}, *told):
        assert not {"bits_per_dim", "nats_per_image"} & line.keys()
        assert line["bits_per_code"] == pytest.approx(line["code_nats"] / 32 / math.log(2))
    assert line["split"] == "validation"
    assert "bits per code:" in said
    assert "of codes alone, not of images, 5 levels" in said
    assert "per dim" not in said
    assert record["protocol"]["codes"] == rg.load(made / "vqvae").digest.hex()

    assert rnngen("sample", f"--workdir={run}", "--num=3", f"--out={tmp_path}/s.npz") == 0
    with np.load(tmp_path / "s.npz") as arrays:
        drawn = arrays["image"]
        assert (drawn.shape, arrays["levels"]) == ((3, *SHAPE), CODES)
    assert rnngen("sample", f"--workdir={run}", "--num=3", f"--out={tmp_path}/s/") == 0
    tokenizer = rg.load(made / "vqvae")
    images = coded.decoded(tokenizer, drawn)
    assert (images.shape, images.dtype) == ((3, 8, 8, 1), np.uint8)
    for n, image in enumerate(images):
        with Image.open(tmp_path / "s" / f"{n:05}.png") as picture:
            shown = np.asarray(picture, np.float32)
        np.testing.assert_allclose(shown, image[..., 0] * (255 / 16), atol=0.51)


def test_expected_images_are_those_of_the_decoder(made):
    run = rg.load(made / "vqvae")
    codes = np.random.default_rng(0).integers(0, CODES, (70, *SHAPE)).astype(np.uint8)
    vectors = run.model.codes.vectors(run.params, run.extra, codes)
    expected = run.decode(np.reshape(vectors, (70, 16, 4)))
    np.testing.assert_allclose(coded.decoded(run, codes, mean=True), expected, atol=1e-5)
    drawn = coded.decoded(run, codes, seed=1)
    np.testing.assert_array_equal(coded.decoded(run, codes[:7], seed=1), drawn[:7])
    assert not np.array_equal(coded.decoded(run, codes, seed=2), drawn)


@pytest.mark.parametrize("name", PRIORS)
def test_the_likelihood_sums_to_one_over_all_grids_of_codes(name):
    spec = ImageSpec(2, 1, channels=2, levels=5)
    fields = {"features": 3, "layers": 1, "readout_hidden": 0, "first_kernel": 3}
    model = models.build(name, fields, spec)
    params, extra = jax.jit(model.init)(jax.random.key(0))
    params = moved(params)
    grids = np.array(list(itertools.product(range(5), repeat=4)), np.uint8).reshape(-1, *spec.shape)
    batch = {"image": grids, "label": np.zeros(625, np.int32), "index": np.arange(625)}
    nats = np.asarray(jax.jit(model.log_prob)(params, extra, batch, jax.random.key(0)), np.float64)
    assert np.exp(nats).sum() == pytest.approx(1, abs=1e-5)
    assert nats.std() > 0.1


@pytest.mark.parametrize(
    ("source", "flags", "said"),
    [
        ("codes", (), "config.data.name='codes' lacks its RUN; give 'codes:RUN'"),
        ("codes:{root}/none", (), "config.data.name='codes:{root}/none': {root}/none holds no run"),
        ("codes:{root}/vqvae@{zeros}", (), "has trained on since, and has the digest"),
        ("codes:{root}/vqvae", ("--config.data.flip=True",), "flip must be False for codes, got"),
        ("codes:{root}/vqvae", ("--config.data.shift=1",), "shift must be 0 for codes, got 1"),
        (
            "codes:{root}/vqvae",
            ("--config.data.binarisation=static",),
            "binarisation must be 'none' for codes, got 'static'",
        ),
    ],
)
def test_what_cannot_be_is_refused(made, tmp_path, capsys, source, flags, said):
    before = tree(made / "vqvae")
    source = source.format(root=made, zeros="0" * 16)
    assert train(made, "pixel_cnn", tmp_path / "run", source, *flags) == 2
    error = capsys.readouterr().err
    assert said.format(root=made) in error
    assert error.count("\n") <= 2
    assert not (tmp_path / "run").exists()
    assert tree(made / "vqvae") == before


def test_a_prior_of_images_takes_the_tokenizer_itself(made, tmp_path):
    """The bits of an image are those of its codes and of its pixels given them."""
    tokenizer, run = made / "vqvae", tmp_path / "run"
    assert train(made, "code_prior", run, "digits", f"--config.tokenizer={tokenizer}") == 0
    metrics = evaluated(run, "--num=20")["metrics"]
    opened = rg.load(run)
    images, _ = opened.dataset.splits["test"].read(np.arange(20))
    bits = opened.nats(images).mean() / 64 / math.log(2)
    assert metrics["bits_per_dim"] == pytest.approx(bits, rel=1e-6)
    assert metrics["recurrent_bits_per_dim"] == pytest.approx(bits, rel=1e-6)
    assert "code_nats" not in metrics
    assert opened.sample(2).shape == (2, 8, 8, 1)


def test_a_prior_of_images_is_not_given_codes(made, tmp_path, capsys):
    assert train(made, "code_rnn", tmp_path / "run", f"codes:{made}/vqvae") == 2
    assert f"give config.tokenizer='{made}/vqvae'" in capsys.readouterr().err


@pytest.mark.parametrize("change", ["edited", "version", "pixels"])
def test_a_tokenizer_that_does_not_fit_is_refused(made, tokenizer, tmp_path, capsys, change):
    path = tokenizer / "config.json"
    old, new, said = {
        "edited": ("codes=5", "codes=9", "codebook:codes=9"),
        "version": ('"vectors"', '"vector_width"', "is not a config of this version"),
        "pixels": ("", "", "must name a run of vqgan or vqvae, got one of pixel_cnn"),
    }[change]
    source = tokenizer
    path.write_text(path.read_text().replace(old, new))
    if change == "pixels":
        assert train(made, "pixel_cnn", tmp_path / "pixels", "digits") == 0
        source = tmp_path / "pixels"
    capsys.readouterr()
    assert train(made, "pixel_cnn", tmp_path / "run", f"codes:{source}") == 2
    error = capsys.readouterr().err
    assert error.startswith("error: config.data.name='codes:")
    assert said in error
    assert error.count("\n") <= 2


def test_without_the_tokenizer_pictures_alone_are_refused(made, tokenizer, tmp_path, capsys):
    run = tmp_path / "run"
    assert train(made, "pixel_cnn", run, f"codes:{tokenizer}") == 0
    shutil.rmtree(tokenizer / "checkpoints")
    assert rnngen("sample", f"--workdir={run}", "--num=2", f"--out={tmp_path}/s.npz") == 0
    evaluated(run, "--num=4")
    capsys.readouterr()
    assert rnngen("compress", f"--workdir={run}", "--num=4", f"--out={tmp_path}/c.rnn") == 0
    said = capsys.readouterr().out
    assert said.count("bits per code") == 2
    assert "dimension" not in said
    assert rnngen("sample", f"--workdir={run}", "--num=2", f"--out={tmp_path}/s.png") == 2
    error = capsys.readouterr().err
    assert "--out=FILE.npz" in error
    assert error.count("\n") <= 2
    shutil.rmtree(tokenizer)
    assert rnngen("evaluate", f"--workdir={run}") == 2
    error = capsys.readouterr().err
    assert "there is no such file; repeat the `rnngen train` on these codes" in error


SPEC = ImageSpec(*SHAPE, levels=CODES)


def written(root, **changes):
    """Codes without labels in a folder of their own, and the data that name them."""
    where = stored.Origin(str(root / "run"), "0" * 16)
    codes = np.random.default_rng(0).integers(0, CODES, (6, *SHAPE)).astype(np.uint8)
    arrays = dict.fromkeys(SPLITS, (codes, None))
    arrays |= {split: (change(codes.copy()), None) for split, change in changes.items()}
    stored.write(where, arrays, SPEC)
    return where, DataConfig(name=where.name)


def out_of_range(codes):
    codes[3, 1, 2, 1] = CODES
    return codes


def test_codes_out_of_range_in_a_file_are_refused(tmp_path):
    _, config = written(tmp_path, validation=out_of_range)
    with pytest.raises(
        UserError, match=r"the grey levels of validation must be in \[0, 4\], got 5"
    ):
        data.load(config)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda codes: codes.astype(np.int64),
            "train: the codes' dtype must be uint8, got 'int64'",
        ),
        (lambda codes: codes[:, :3], "must have one shape"),
    ],
)
def test_codes_of_another_kind_are_refused(tmp_path, change, said):
    _, config = written(tmp_path, train=change)
    with pytest.raises(UserError, match=said):
        data.load(config)


def pickled(folder):
    np.save(folder / "test_image.npy", np.array([{}]), allow_pickle=True)


def truncated(folder):
    path = folder / "test_image.npy"
    path.write_bytes(path.read_bytes()[:-7])


def archived(folder):
    np.savez(folder / "test_image.npz", codes=np.zeros(3))
    (folder / "test_image.npz").rename(folder / "test_image.npy")


def flipped(folder):
    """One bit of one code, which stays in range."""
    codes = np.load(folder / "train_image.npy", mmap_mode="r+")
    codes[2, 1, 3, 0] ^= 1
    assert codes.max() < CODES
    codes.flush()


def version(folder, **facts):
    path = folder / "version.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | facts))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (pickled, "test_image.npy: cannot be read as an array"),
        (truncated, "test_image.npy: cannot be read as an array"),
        (archived, "test_image.npy: is not an npy file"),
        (lambda folder: (folder / "test_image.npy").unlink(), "there is no such file; remove"),
        (lambda folder: (folder / "version.json").write_text("{"), "is not valid JSON; remove"),
        (lambda folder: (folder / "version.json").write_text("3"), "format None, not 2"),
        (lambda folder: version(folder, format=1), "format 1, not 2, so of another version"),
        (
            lambda folder: version(folder, sha256=3),
            "'sha256' must be a digest for each file, got 3",
        ),
        (flipped, r"train_image.npy: has changed since it was written \(its SHA-256 is another\);"),
        (lambda folder: version(folder, levels=1), r"'levels' must be an integer in \[2, 1048576"),
        (lambda folder: version(folder, classes=True), "'classes' must be an integer"),
    ],
)
def test_damaged_codes_are_refused(tmp_path, damage, said):
    where, config = written(tmp_path)
    damage(where.folder)
    with pytest.raises(UserError, match=said) as caught:
        data.load(config)
    assert "\n" not in str(caught.value)


def test_codes_of_256_levels_may_have_any_depth(tmp_path):
    where = stored.Origin(str(tmp_path / "run"), "0" * 16)
    codes = np.arange(256, dtype=np.uint8).reshape(8, 4, 4, 2)
    spec = SPEC._replace(levels=256)
    stored.write(where, dict.fromkeys(SPLITS, (codes, None)), spec)
    found = data.load(DataConfig(name=where.name))
    assert found.spec == spec
    np.testing.assert_array_equal(everything(found.splits["test"])[0], codes)


def test_names():
    assert stored.origin("npz:x") is None
    assert stored.origin("codes:gs://b/r@0123456789abcdef") == ("gs://b/r", "0123456789abcdef")
    assert stored.origin("codes:a@b") == ("a@b", "")
    pinned = "codes:r@0123456789abcdef"
    assert data.continued("codes:./r", pinned) == pinned
    assert data.continued("codes:s", pinned) == "codes:s"
    assert data.continued("digits", pinned) == "digits"
    assert data.continued("codes:r@fedcba9876543210", pinned) == "codes:r@fedcba9876543210"
    with pytest.raises(UserError, match="must end in @DIGEST"):
        data.load(DataConfig(name="codes:r"))
