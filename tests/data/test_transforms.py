"""Binarisation and augmentation: their statistics, their order, their independence of layout."""

import jax
import numpy as np
import pytest

from rnngen_jax.data import binarise, load
from rnngen_jax.data.base import DataConfig, Dataset, Split
from rnngen_jax.data.transforms import evaluation_transform, training_transform
from rnngen_jax.errors import UserError
from rnngen_jax.shapes import ImageSpec

KEY = jax.random.key(0)


def dataset(binarisation="none", levels=17, side=8):
    spec = ImageSpec(side, side, 1, levels if binarisation == "none" else 2)
    nothing = Split(0, lambda indices: (indices, indices))
    splits = dict.fromkeys(("train", "validation", "test"), nothing)
    return Dataset("given", spec, splits, binarisation, levels)


def batch_of(image, first=0):
    num = len(image)
    return {
        "image": np.asarray(image),
        "label": np.arange(num, dtype=np.int32),
        "index": np.arange(first, first + num, dtype=np.int32),
    }


def ramp(num, levels=17):
    """Images `[num, 1, levels, 1]`, each with every grey level once."""
    return np.broadcast_to(np.arange(levels, dtype=np.uint8)[None, None, :, None], (num, 1, 17, 1))


def check_bernoulli(drawn, levels=17):
    """Each column of `drawn` `[N, 1, L, 1]` is Bernoulli(level / (L - 1)), within 5 sigma."""
    assert drawn.dtype == np.uint8
    assert set(np.unique(drawn)) == {0, 1}
    p = np.arange(levels) / (levels - 1)
    sigma = np.sqrt(p * (1 - p) / len(drawn))
    assert (np.abs(drawn[:, 0, :, 0].mean(0) - p) <= 5 * sigma).all()


def test_static_draws_follow_the_brightness():
    drawn = binarise.static(ramp(4000), np.arange(4000), "train", 17)
    check_bernoulli(drawn)
    correlation = np.corrcoef(drawn[:, 0, 4:13, 0].T)
    assert np.abs(correlation[~np.eye(9, dtype=bool)]).max() < 0.1, "pixels are independent"


def test_static_draws_depend_on_split_and_index_alone():
    indices = np.array([5, 3, 5])
    drawn = binarise.static(ramp(10), np.arange(10), "train", 17)
    np.testing.assert_array_equal(binarise.static(ramp(3), indices, "train", 17), drawn[indices])
    assert (drawn[3] != drawn[5]).any()
    assert (binarise.static(ramp(10), np.arange(10), "test", 17) != drawn).any()


def test_static_draws_are_pinned():
    # Published numbers depend on these images: they must never change.
    drawn = binarise.static(ramp(2), np.arange(2), "test", 17)[:, 0, :, 0]
    assert ["".join(map(str, row)) for row in drawn.tolist()] == PINNED


PINNED = ["00011000101111111", "00000000011100111"]


@pytest.mark.parametrize(
    ("levels", "last_dark"), [(2, 0), (17, 8), (256, 127)], ids=["2", "17", "256"]
)
def test_threshold_cuts_at_half_brightness(levels, last_dark):
    every = np.arange(levels, dtype=np.uint8)
    expected = (every > last_dark).astype(np.uint8)
    np.testing.assert_array_equal(binarise.threshold(every, levels), expected)


@pytest.mark.parametrize("binarisation", ["static", "threshold", "dynamic", "none"])
def test_the_door_binarises(binarisation):
    raw = load(DataConfig())
    data = load(DataConfig(binarisation=binarisation))
    assert data.binarisation == binarisation
    assert data.spec.levels == (17 if binarisation == "none" else 2)
    assert data.raw_levels == (17 if binarisation in ("none", "dynamic") else 2)
    images, _ = data.splits["test"].read(np.arange(300))
    grey, _ = raw.splits["test"].read(np.arange(300))
    assert images.max() == data.raw_levels - 1
    if binarisation == "threshold":
        np.testing.assert_array_equal(images, grey > 8)
    if binarisation == "static":
        np.testing.assert_array_equal(images, binarise.static(grey, range(300), "test", 17))
        assert images.mean() == pytest.approx(grey.mean() / 16, abs=0.01)


def test_dynamic_draws_follow_the_brightness_and_change_with_the_key():
    transform = jax.jit(evaluation_transform(dataset("dynamic")))
    batch = batch_of(ramp(4000))
    one, other = transform(batch, KEY), transform(batch, jax.random.key(1))
    check_bernoulli(np.asarray(one["image"]))
    assert (one["image"] != other["image"]).any()
    np.testing.assert_array_equal(one["image"], transform(batch, KEY)["image"])


@pytest.mark.parametrize("binarisation", ["none", "static", "threshold"])
def test_evaluation_leaves_other_images_alone(binarisation):
    batch = batch_of(ramp(3))
    assert evaluation_transform(dataset(binarisation))(batch, KEY) is batch


def test_training_without_augmentation_is_evaluation():
    batch = batch_of(ramp(5))
    data = dataset("dynamic")
    one = training_transform(DataConfig(), data)(batch, KEY)
    other = evaluation_transform(data)(batch, KEY)
    np.testing.assert_array_equal(one["image"], other["image"])


def test_noise_does_not_depend_on_how_a_batch_is_cut():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 17, (12, 8, 8, 1), np.uint8)
    config = DataConfig(shift=2, flip=True)
    transform = jax.jit(training_transform(config, dataset("dynamic")))
    whole = transform(batch_of(image), KEY)["image"]
    parts = [transform(batch_of(image[i : i + 4], i), KEY)["image"] for i in range(0, 12, 4)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    spread = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    sharded = transform(jax.device_put(batch_of(image), spread), KEY)["image"]
    np.testing.assert_array_equal(sharded, whole)


def test_shift_moves_images_by_every_offset_and_fills_with_zeros():
    image = np.zeros((2000, 8, 8, 1), np.uint8)
    image[:, 4, 3] = 9
    transform = jax.jit(training_transform(DataConfig(shift=2), dataset()))
    moved = transform(batch_of(image), KEY)
    assert moved["image"].dtype == np.uint8
    assert moved["image"].shape == image.shape
    which, row, column, _ = np.nonzero(np.asarray(moved["image"]))
    np.testing.assert_array_equal(which, np.arange(2000))
    counts = np.zeros((8, 8), int)
    np.add.at(counts, (row, column), 1)
    np.testing.assert_array_equal(counts.nonzero()[0].min(), 2)
    within = counts[2:7, 1:6]
    assert within.sum() == 2000
    assert (np.abs(within - 80) < 5 * np.sqrt(80)).all(), "25 offsets, equally likely"
    full = np.ones((2000, 8, 8, 1), np.uint8)
    left = transform(batch_of(full), KEY)["image"].sum((1, 2, 3))
    assert set(np.asarray(left)) == {a * b for a in (6, 7, 8) for b in (6, 7, 8)}


def test_flip_mirrors_left_and_right_half_of_the_time():
    image = np.zeros((1000, 4, 6, 3), np.uint8)
    image[:, 1, 2, 0] = 5
    out = np.asarray(
        training_transform(DataConfig(flip=True), dataset())(batch_of(image), KEY)["image"]
    )
    mirrored = out[:, 1, 3, 0] == 5
    np.testing.assert_array_equal(out[mirrored], image[mirrored][:, :, ::-1])
    np.testing.assert_array_equal(out[~mirrored], image[~mirrored])
    assert 420 < mirrored.sum() < 580


def test_dynamic_binarisation_comes_after_augmentation():
    batch = batch_of(np.full((64, 8, 8, 1), 8, np.uint8))
    shift = training_transform(DataConfig(shift=3), dataset("none"))
    binarise = evaluation_transform(dataset("dynamic"))
    drawn = training_transform(DataConfig(shift=3), dataset("dynamic"))(batch, KEY)["image"]
    np.testing.assert_array_equal(drawn, binarise(shift(batch, KEY), KEY)["image"])
    assert (drawn != shift(binarise(batch, KEY), KEY)["image"]).any()


def test_labels_and_indices_pass_through():
    batch = batch_of(ramp(5), first=7)
    config = DataConfig(flip=True)
    out = jax.jit(training_transform(config, dataset("dynamic")))(batch, KEY)
    np.testing.assert_array_equal(out["label"], batch["label"])
    np.testing.assert_array_equal(out["index"], batch["index"])


def test_a_shift_as_wide_as_the_image():
    with pytest.raises(UserError, match=r"config.data.shift must be in \[0, 7\].*got 8"):
        training_transform(DataConfig(shift=8), dataset())
