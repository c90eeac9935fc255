"""Opening data sets, the embedded digits and npz files: splits and errors."""

import importlib
import os
import pickle
import pkgutil

import numpy as np
import pytest

from rnngen_jax import data as package
from rnngen_jax.data import canonical, load, names
from rnngen_jax.data.base import SPLITS, DataConfig
from rnngen_jax.data.source import cut, from_arrays, permutation
from rnngen_jax.errors import UserError


def everything(split):
    return split.read(np.arange(split.num))


def numbered(num):
    """Images `[num, 3, 2]` with their index in every pixel."""
    return np.broadcast_to(np.arange(num).astype(np.uint8)[:, None, None], (num, 3, 2))


def test_names_are_the_modules_that_load_a_source_and_nothing_else():
    """Read from syntax trees; here by importing each."""
    modules = [module.name for module in pkgutil.iter_modules(package.__path__)]
    imported = {name: importlib.import_module(f"{package.__name__}.{name}") for name in modules}
    loading = [name for name, module in imported.items() if hasattr(module, "load_source")]
    assert names() == sorted(loading)
    assert "digits" in names()
    assert "feed" in imported.keys() - set(names())


def test_digits_have_their_published_sizes_levels_and_classes():
    data = load(DataConfig())
    assert data.spec == (8, 8, 1, 17, 10, 0)
    assert {name: split.num for name, split in data.splits.items()} == {
        "train": 1297,
        "validation": 200,
        "test": 300,
    }
    for split in data.splits.values():
        images, labels = everything(split)
        assert images.dtype == np.uint8
        assert images.shape == (split.num, 8, 8, 1)
        assert labels.dtype == np.int32
        assert images.max() == 16
        assert set(labels) == set(range(10))


def test_a_histogram_of_the_digits_gives_2_42_bits_per_dimension():
    data = load(DataConfig())
    train = everything(data.splits["train"])[0].reshape(-1, 64)
    test = everything(data.splits["test"])[0].reshape(-1, 64)
    counts = np.stack([np.bincount(train[:, p], minlength=17) + 1 for p in range(64)])
    probability = counts / counts.sum(1, keepdims=True)
    bits = -np.log2(probability[np.arange(64), test]).mean()
    assert bits == pytest.approx(2.42, abs=0.005)


def test_the_splits_of_the_digits_share_no_image():
    # A few of the 1,797 images are equal; a wrong cut would repeat hundreds.
    data = load(DataConfig())
    seen = [{image.tobytes() for image in everything(data.splits[s])[0]} for s in SPLITS]
    assert len(seen[0] | seen[1] | seen[2]) == sum(len(s) for s in seen) == 1797


@pytest.mark.parametrize("own", [("train",), ("train", "test"), ("train", "validation"), SPLITS])
def test_missing_splits_are_cut_from_the_end_of_train(own):
    source = from_arrays({n: (numbered(40), None) for n in own}, 256, "here")
    splits = cut(source.splits, 0.1, "here")
    whole = np.arange(40)
    sizes = {name: split.num for name, split in splits.items()}
    cuts = [name for name in SPLITS if name not in own]
    assert list(splits) == list(SPLITS)
    assert sizes["train"] == 40 - 4 * len(cuts)
    assert all(sizes[name] == 4 for name in cuts)
    assert all(sizes[name] == 40 for name in own if name != "train")
    parts = [everything(splits[n])[0][:, 0, 0, 0] for n in ["train", *cuts]]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


@pytest.mark.parametrize(("num", "count"), [(1, "1 image is"), (2, "2 images are")])
def test_too_few_images_to_cut(num, count):
    source = from_arrays({"train": (numbered(num), None)}, 256, "here")
    with pytest.raises(UserError, match=f"here: {count} too few to cut validation and test"):
        cut(source.splits, 0.1, "here")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "digit",
            r"'digit' is not a data source; did you mean 'digits'\? Allowed: .*digits, folder",
        ),
        ("feed", r"'feed' is not a data source"),
        ("base:x", r"not a data source"),
        ("os.path", r"not a data source"),
        ("", r"not a data source"),
        ("digits:x", r"config.data.name must be 'digits', got 'digits:x'"),
        ("idx", r"lacks its FOLDER; give 'idx:FOLDER'"),
        ("folder:", r"lacks its FOLDER"),
        ("npz", r"lacks its FILE"),
        ("tfds", r"lacks its NAME"),
        ("npz:/nowhere/x.npz", r"/nowhere/x.npz: there is no such file"),
        ("npz:/dev/null", "/dev/null: is a device, not a file; give an npz"),
        ("npz:~no_such_user/x.npz", "~no_such_user/x.npz: there is no such file"),
    ],
)
def test_names_that_fit_no_source(name, message):
    with pytest.raises(UserError, match=message) as caught:
        load(DataConfig(name=name))
    assert len(str(caught.value).splitlines()) <= 2


def save(path, **arrays):
    np.savez(path, **arrays)
    return DataConfig(name=f"npz:{path}")


def test_npz_without_splits_is_shuffled_and_cut(tmp_path):
    images, labels = numbered(100), np.arange(100) // 10
    data = load(save(tmp_path / "x.npz", image=images, label=labels))
    assert data.spec == (3, 2, 1, 256, 10, 0)
    assert [split.num for split in data.splits.values()] == [80, 10, 10]
    read = [everything(split) for split in data.splits.values()]
    pixels = np.concatenate([r[0][:, 0, 0, 0] for r in read])
    np.testing.assert_array_equal(np.sort(pixels), np.arange(100))
    np.testing.assert_array_equal(np.concatenate([r[1] for r in read]), pixels // 10)
    assert len(set(read[2][1])) > 1, "images sorted by class must not give a test split of one"


def test_npz_with_splits_keeps_them_in_their_order(tmp_path):
    data = load(
        save(
            tmp_path / "x.npz",
            train_image=np.stack([numbered(20) % 5] * 3, -1),
            test_image=np.stack([numbered(7) % 5] * 3, -1),
            levels=5,
        )
    )
    assert data.spec == (3, 2, 3, 5, 0, 0)
    assert [split.num for split in data.splits.values()] == [18, 2, 7]
    images, labels = everything(data.splits["validation"])
    np.testing.assert_array_equal(images[:, 0, 0, 0], [18 % 5, 19 % 5])
    np.testing.assert_array_equal(labels, [0, 0])


IMAGES = np.zeros((10, 4, 4), np.uint8)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"image": IMAGES.astype(np.float32)}, "images' dtype must be uint8, got 'float32'"),
        ({"image": IMAGES[0]}, r"must be \[N, H, W\], \[N, H, W, C\] .* got \(4, 4\)"),
        ({"image": np.uint8(3)}, r"images' shape must be .* got \(\)"),
        (
            {"image": np.zeros((10, 3, 4, 4), np.uint8)},
            r"images' shape must be .* C 1 or 3 .* got \(10, 3, 4, 4\)",
        ),
        ({"image": IMAGES[:0]}, r"no axis of length 0, got \(0, 4, 4, 1\)"),
        (
            {"image": IMAGES, "label": np.zeros(9, int)},
            r"labels' shape must be \(10,\), one label per image, got \(9,\)",
        ),
        ({"image": IMAGES, "label": np.zeros(10)}, "labels' dtype must be integer, got 'float64'"),
        ({"image": IMAGES, "label": -np.ones(10, int)}, r"label must be in .*, got \(-1, -1\)"),
        (
            {"image": IMAGES, "lable": np.zeros(10, int)},
            "unknown array 'lable'; did you mean 'labe",
        ),
        ({"image": IMAGES, "levels": 1}, r"'levels' must be an integer in \[2, 1048576\], got 1"),
        (
            {"image": IMAGES, "levels": np.array([2, 3])},
            r"must be an integer in .* got 'int64 of shape \(2,\)'",
        ),
        ({"image": IMAGES + 9, "levels": 9}, r"levels of train must be in \[0, 8\], got 9"),
        ({"image": IMAGES, "test_image": IMAGES}, "holds 'image' and test_image"),
        ({"label": np.zeros(10, int)}, "holds label without images"),
        ({"train_image": IMAGES, "test_label": np.zeros(10, int)}, "without images"),
        ({"test_image": IMAGES}, "no train split"),
        (
            {"train_image": IMAGES, "test_image": IMAGES[:, :3]},
            "images of all splits must have one shape",
        ),
        (
            {"train_image": IMAGES, "train_label": np.zeros(10, int), "test_image": IMAGES},
            "no labels for test",
        ),
        (
            {
                "train_image": IMAGES,
                "train_label": np.zeros(10, int),
                "test_image": IMAGES,
                "test_label": np.ones(10, int),
            },
            r"labels of test must be in \[0, 0\], as those of train, got 1",
        ),
    ],
)
def test_npz_arrays_that_do_not_fit(tmp_path, arrays, message):
    with pytest.raises(UserError, match=message) as caught:
        load(save(tmp_path / "x.npz", **arrays))
    assert str(tmp_path / "x.npz") in str(caught.value)


@pytest.mark.parametrize("form", ["", "train_"])
def test_labels_far_beyond_the_number_of_images(tmp_path, form):
    """The greatest label sets the size of a class-conditional model's tables."""
    path = tmp_path / "x.npz"
    for num, greatest, allowed in (
        (100, 999, 999),
        (100, 1000, 999),
        (100, 2**24, 999),
        (100, 2**31 - 2, 999),
        (1500, 1499, 1499),
        (1500, 1500, 1499),
    ):
        label = np.arange(num) % 3
        label[7] = greatest
        arrays = {"image": np.zeros((num, 2, 2), np.uint8), "label": label}
        config = save(path, **{form + name: array for name, array in arrays.items()})
        if greatest <= allowed:
            assert load(config).spec.classes == greatest + 1
            continue
        message = rf"must be in \[0, {allowed}\] for {num} images, got {greatest}\. Number"
        with pytest.raises(UserError, match=message) as caught:
            load(config)
        assert "\n" not in str(caught.value)


def test_more_classes_than_tables_are_made_for(tmp_path):
    label = np.zeros(2**16 + 2, np.int64)
    label[0] = 2**16
    config = save(tmp_path / "x.npz", image=np.zeros((len(label), 1, 1), np.uint8), label=label)
    with pytest.raises(UserError, match=r"classes must be ≤ 65536, got 65537\. Number the lab"):
        load(config)


def test_a_class_may_be_without_images(tmp_path):
    label = np.array([0, 9] * 10)
    assert load(save(tmp_path / "x.npz", image=numbered(20), label=label)).spec.classes == 10


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        import os

        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("form", ["object array", "bare pickle", "bare npy"])
def test_nothing_pickled_is_read(tmp_path, form):
    path, hit = tmp_path / "x.npz", tmp_path / "hit"
    if form == "object array":
        np.savez(path, image=np.array([Bomb(hit)], object))
    elif form == "bare pickle":
        path.write_bytes(pickle.dumps(Bomb(hit)))
    else:
        with open(path, "wb") as file:
            np.save(file, np.array([Bomb(hit)], object), allow_pickle=True)
    with pytest.raises(UserError, match=r"x\.npz: (cannot be read|is damaged, or is not an npz)"):
        load(DataConfig(name=f"npz:{path}"))
    assert not hit.exists()


def test_a_named_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "x.npz")
    with pytest.raises(UserError, match=r"x\.npz: is a named pipe, not a file; give an npz"):
        load(DataConfig(name=f"npz:{tmp_path}/x.npz"))


@pytest.mark.parametrize("kind", ["idx", "folder", "npz", "tfds"])
def test_spellings_of_one_place_are_one_name(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "here" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to("here")
    want = f"{kind}:{tmp_path}/here/x"
    for spelling in ("here/x", "./here/x", "here//x/", "here/deep/../x", "link/x", "~/here/x"):
        assert canonical(f"{kind}:{spelling}") == want
    assert canonical(want) == want
    assert canonical(f"{kind}:here/y") != want
    (tmp_path / "x").symlink_to("x")
    assert canonical(f"{kind}:./x") == f"{kind}:{tmp_path}/x", "a loop is a place, too"


def test_names_of_prepared_sets_are_places_and_other_names_are_themselves(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    assert canonical("tfds:mine") == canonical(f"tfds:{tmp_path}/mine") == f"tfds:{tmp_path}/mine"
    assert canonical("tfds:mine:1.0.0") == canonical(f"tfds:{tmp_path}/mine/1.0.0/")
    assert canonical("tfds:mine:1.0.0") != canonical("tfds:mine")
    for name in ("digits", "idx", "idx:", "none:./x", "feed:./x", ""):
        assert canonical(name) == name


def test_a_truncated_npz(tmp_path):
    config = save(tmp_path / "x.npz", image=IMAGES)
    content = (tmp_path / "x.npz").read_bytes()
    for keep in (0, 10, len(content) // 2, len(content) - 5):
        (tmp_path / "x.npz").write_bytes(content[:keep])
        with pytest.raises(UserError, match="is not an npz file"):
            load(config)


def test_an_npz_of_one_flipped_byte(tmp_path):
    config = save(tmp_path / "x.npz", image=np.arange(160, dtype=np.uint8).reshape(10, 4, 4))
    content = bytearray((tmp_path / "x.npz").read_bytes())
    content[content.index(bytes(range(50, 60)))] ^= 255
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(UserError, match="damaged"):
        load(config)


def test_permutation_is_pinned_and_pure():
    # Pinned: a change would reshuffle the batches of every run that is resumed.
    first = permutation(0, 0, 8)
    np.testing.assert_array_equal(first, permutation.__wrapped__(0, 0, 8))
    assert first.tolist() == PINNED
    assert not first.flags.writeable
    assert permutation(0, 1, 8).tolist() != first.tolist() != permutation(1, 0, 8).tolist()
    assert sorted(permutation(-1, 3, 8).tolist()) == list(range(8))


PINNED = [0, 2, 1, 5, 4, 3, 6, 7]
