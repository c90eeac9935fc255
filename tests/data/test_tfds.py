"""`prepare` writes what `tfds:` reads: any source exactly, or nothing."""

import json
import os
import pathlib
import sys

import numpy as np
import pytest
from PIL import Image

from rnngen_jax.data import load, tfds
from rnngen_jax.data import prepare as preparing
from rnngen_jax.data.base import DataConfig
from rnngen_jax.data.feed import make_feed
from rnngen_jax.data.prepare import prepare
from rnngen_jax.errors import UserError


def assert_same(one, other):
    assert one.spec == other.spec
    assert one.raw_levels == other.raw_levels
    assert list(one.splits) == list(other.splits)
    for name, split in one.splits.items():
        assert split.num == other.splits[name].num
        every = np.arange(split.num)
        for a, b in zip(split.read(every), other.splits[name].read(every), strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder of data sets with the digits."""
    folder = tmp_path_factory.mktemp("home")
    assert prepare(DataConfig(), "my_digits", folder) == folder / "my_digits"
    return folder


@pytest.fixture(autouse=True)
def _at_home(home, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(home))


def test_the_digits_come_back_by_name_and_by_path(home):
    digits = load(DataConfig())
    for argument in ("my_digits", "my_digits:1.0.0", home / "my_digits", home / "my_digits/1.0.0"):
        assert_same(digits, load(DataConfig(name=f"tfds:{argument}")))
    assert "tensorflow" not in sys.modules
    metadata = json.loads((home / "my_digits/1.0.0/metadata.json").read_text())
    assert metadata["levels"] == 17
    assert metadata["source"] == "digits"
    assert os.listdir(home) == ["my_digits"], "no temporary folders stay behind"


def test_binarisation_belongs_to_training_not_to_the_files(tmp_path):
    folder = prepare(DataConfig(binarisation="static", shift=1, flip=True), "other", tmp_path)
    for binarisation in ("none", "static", "threshold", "dynamic"):
        assert_same(
            load(DataConfig(binarisation=binarisation)),
            load(DataConfig(name=f"tfds:{folder}", binarisation=binarisation)),
        )


def test_a_folder_comes_back(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(20):
        path = tmp_path / "pictures" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (5, 4, 3), np.uint8)).save(path)
    config = DataConfig(name=f"folder:{tmp_path / 'pictures'}", validation_fraction=0.2)
    made = prepare(config, "pictures", tmp_path / "new" / "home")
    assert made == tmp_path / "new" / "home" / "pictures"
    assert_same(load(config), load(DataConfig(name=f"tfds:{made}")))


def test_images_without_labels_come_back(tmp_path):
    np.savez(tmp_path / "x.npz", image=np.arange(300, dtype=np.uint8).reshape(20, 5, 3) % 251)
    config = DataConfig(name=f"npz:{tmp_path / 'x.npz'}")
    made = prepare(config, "x", tmp_path)
    assert load(config).spec.classes == 0
    assert_same(load(config), load(DataConfig(name=f"tfds:{made}")))


def test_order_is_kept_over_many_shards(tmp_path, monkeypatch):
    import tensorflow_datasets

    build = tensorflow_datasets.core.GeneratorBasedBuilder.download_and_prepare

    def sharded(self):
        config = tensorflow_datasets.download.DownloadConfig(num_shards=7)
        build(self, download_config=config)

    monkeypatch.setattr(
        tensorflow_datasets.core.GeneratorBasedBuilder, "download_and_prepare", sharded
    )
    made = prepare(DataConfig(), "sharded", tmp_path)
    assert len(list((made / "1.0.0").glob("*-train.array_record*"))) == 7
    assert_same(load(DataConfig()), load(DataConfig(name=f"tfds:{made}")))


def test_it_streams(home):
    split = load(DataConfig(name="tfds:my_digits")).splits["train"]
    calls = [(i, i + 3) for i in range(0, 30, 3)]
    streamed = list(make_feed(split, 50, 0, "stream").chunks(calls))
    embedded = load(DataConfig()).splits["train"]
    for chunk in streamed:
        images, labels = embedded.read(chunk["index"].reshape(-1))
        np.testing.assert_array_equal(chunk["image"].reshape(images.shape), images)
        np.testing.assert_array_equal(chunk["label"].reshape(-1), labels)


@pytest.mark.parametrize("name", ["Digits", "my-digits", "", "../up", "9x", "a/b"])
def test_names_that_do_not_fit(name, tmp_path):
    with pytest.raises(UserError, match=r"name must be lower-case"):
        prepare(DataConfig(), name, tmp_path)
    assert os.listdir(tmp_path) == []


def contents(folder):
    return {p: p.read_bytes() for p in sorted(pathlib.Path(folder).rglob("*")) if p.is_file()}


def test_an_existing_data_set_is_left_as_it_is(home):
    before = contents(home)
    with pytest.raises(UserError, match="my_digits: exists already and is left as it is"):
        prepare(DataConfig(), "my_digits", home)
    assert contents(home) == before


def test_a_bad_source_leaves_nothing(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        prepare(DataConfig(name="folder:/nowhere"), "x", tmp_path / "home")
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt, UserError, RuntimeError])
def test_an_interrupted_preparation_leaves_nothing(tmp_path, monkeypatch, error):
    digits = load(DataConfig())

    def read(indices):
        if 1200 in indices:
            raise error("stop")
        return digits.splits["train"].read(indices)

    splits = {**digits.splits, "train": digits.splits["train"]._replace(read=read)}
    monkeypatch.setattr(preparing, "load", lambda config: digits._replace(splits=splits))
    with pytest.raises(error):
        prepare(DataConfig(), "broken", tmp_path)
    assert os.listdir(tmp_path) == []


def test_what_a_kill_leaves_is_not_taken_for_a_data_set(tmp_path, monkeypatch):
    monkeypatch.setattr(preparing.shutil, "rmtree", lambda *args, **kwargs: None)
    monkeypatch.setattr(pathlib.Path, "rename", lambda *args: (_ for _ in ()).throw(SystemExit))
    with pytest.raises(SystemExit):
        prepare(DataConfig(), "killed", tmp_path)
    monkeypatch.undo()
    assert len(os.listdir(tmp_path)) == 1, "the hidden folder stays after a kill"
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    assert tfds.prepared(tmp_path) == []
    with pytest.raises(UserError, match="no prepared data set"):
        load(DataConfig(name="tfds:killed"))
    assert prepare(DataConfig(), "killed", tmp_path) == tmp_path / "killed"


def test_data_sets_that_are_not_there(home, tmp_path, monkeypatch):
    for name, message in (
        ("my_digit", "no prepared data set in .*; did you mean 'my_digits'"),
        ("my_digits:2.0.0", "my_digits: has no version '2.0.0'.*Allowed: 1.0.0"),
        (f"{tmp_path}/x", "x: there is no such folder"),
        (f"{tmp_path}", "holds no prepared data set; make one with `prepare`"),
    ):
        with pytest.raises(UserError, match=message):
            load(DataConfig(name=f"tfds:{name}"))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "empty"))
    with pytest.raises(UserError, match="make one with `prepare`"):
        load(DataConfig(name="tfds:my_digits"))


def copy(home, folder):
    import shutil

    shutil.copytree(home / "my_digits", folder / "copy")
    return folder / "copy" / "1.0.0"


def test_the_newest_complete_version_is_taken(home, tmp_path, monkeypatch):
    version = copy(home, tmp_path)
    for other in ("0.9.0", "10.0.0", "9.0.0", "11.0.0", "12.0.0.incomplete"):
        (tmp_path / "copy" / other).mkdir()
    version.rename(version.parent / "x")
    for other in ("0.9.0", "10.0.0", "9.0.0"):
        for file in (version.parent / "x").iterdir():
            (tmp_path / "copy" / other / file.name).write_bytes(file.read_bytes())
    (tmp_path / "copy/10.0.0/metadata.json").write_text('{"levels": 99}')
    assert load(DataConfig(name=f"tfds:{tmp_path / 'copy'}")).raw_levels == 99


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("features.json", lambda text: "", "features.json: is missing or damaged"),
        ("features.json", lambda text: text[:50], "features.json: is missing or damaged"),
        ("features.json", lambda text: '{"type": "x.Y"}', "features.json: has an old format"),
        (
            "features.json",
            lambda text: text.replace("image", "picture"),
            "must have a feature 'image' or 'frames', got label, picture",
        ),
        (
            "features.json",
            lambda text: text.replace("uint8", "float32"),
            "dtype of 'image' must be uint8, got 'float32'",
        ),
        ("features.json", lambda text: text.replace('"8"', '"-1"'), "must have one size"),
        ("dataset_info.json", lambda text: text[:50], "cannot be read"),
        (
            "dataset_info.json",
            lambda text: text.replace("array_record", "tfrecord"),
            "file format must be array_record, got tfrecord",
        ),
        (
            "dataset_info.json",
            lambda text: text.replace('"train"', '"learn"'),
            "must have a split 'train', got .*learn",
        ),
        (
            "features.json",
            lambda text: text.replace('"10"', '"5"'),
            r"label of train must be in \[0, 4\], got \(., .\)",
        ),
        (
            "metadata.json",
            lambda text: text.replace("17", '"x"'),
            r"levels in .* must be an integer in \[2, 256\], got 'x'",
        ),
        (
            "metadata.json",
            lambda text: text.replace("17", "5"),
            r"levels of train must be in \[0, 4\]",
        ),
    ],
)
def test_damaged_descriptions(home, tmp_path, file, change, message):
    folder = copy(home, tmp_path)
    path = folder / file
    changed = change(path.read_text())
    assert changed != path.read_text()
    path.write_text(changed)
    with pytest.raises(UserError, match=message) as caught:
        load(DataConfig(name=f"tfds:{folder}")).splits["train"].read(np.arange(1297))
    assert len(str(caught.value).splitlines()) <= 2


def test_so_many_classes_that_no_model_can_tell_them_apart(home, tmp_path):
    """A class-conditional model would allocate what a few bytes of a description claim."""
    folder = copy(home, tmp_path)
    path = folder / "features.json"
    text = path.read_text()
    path.write_text(text.replace('"10"', f'"{2**16}"'))
    data = load(DataConfig(name=f"tfds:{folder}"))
    assert data.spec.classes == 2**16, "declared classes may be without images"
    path.write_text(text.replace('"10"', f'"{2**24}"'))
    with pytest.raises(UserError, match=r"classes must be ≤ 65536, got 16777216\.") as caught:
        load(DataConfig(name=f"tfds:{folder}"))
    assert "\n" not in str(caught.value)


def test_missing_and_truncated_record_files(home, tmp_path):
    folder = copy(home, tmp_path)
    records = next(folder.glob("*-train.array_record*"))
    whole = records.read_bytes()
    for content in (whole[: len(whole) // 2], b"", None):
        records.unlink(missing_ok=True)
        if content is not None:
            records.write_bytes(content)
        with pytest.raises(UserError, match=r"1\.0\.0: cannot be read"):
            load(DataConfig(name=f"tfds:{folder}"))


@pytest.mark.parametrize("name", ["features.json", "metadata.json", "*-train.array_record*"])
def test_a_named_pipe_among_the_files_is_not_waited_for(home, tmp_path, name):
    (path,) = copy(home, tmp_path).glob(name)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(UserError, match=r"is a named pipe, not a file; prepare the data set again"):
        load(DataConfig(name=f"tfds:{path.parent}"))


@pytest.mark.parametrize("key", ["pythonClassName", "python_class_name"])
def test_a_data_set_cannot_name_code_to_run(home, tmp_path, monkeypatch, key):
    folder = copy(home, tmp_path)
    (tmp_path / "evil.py").write_text("raise SystemExit('ran')")
    monkeypatch.syspath_prepend(tmp_path)
    own = "tensorflow_datasets.core.features.tensor_feature.Tensor"
    path = folder / "features.json"
    changed = path.read_text().replace(own, "evil.Tensor").replace("pythonClassName", key)
    path.write_text(changed)
    with pytest.raises(UserError, match=r"'evil\.Tensor' is not allowed; only TFDS's own"):
        load(DataConfig(name=f"tfds:{folder}"))
    nested = {"feature": {"jsonFeature": {"json": '{"type": "evil.Tensor", "content": {}}'}}}
    path.write_text(json.dumps(nested))
    with pytest.raises(UserError, match=r"jsonFeature .* is not allowed"):
        load(DataConfig(name=f"tfds:{folder}"))
    assert "evil" not in sys.modules
