"""A judge's features of images, its accuracy, and its comparison of samples with data."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from rnngen_jax import keys
from rnngen_jax.data import binarise
from rnngen_jax.data.base import Dataset, Split
from rnngen_jax.data.transforms import evaluation_transform
from rnngen_jax.errors import UserError
from rnngen_jax.evaluation import classifying, fidelity
from rnngen_jax.evaluation.batching import split_batches
from rnngen_jax.models.base import Model
from rnngen_jax.shapes import ImageSpec

SPEC = ImageSpec(2, 3, levels=4, classes=3)
CLASSES = np.array([0.6, 0.3, 0.1])
PARAMS = {"model": jnp.float32(2.0)}
DIGEST = "1a2b3c4d5e6f7081"


def split(seed, num):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, SPEC.levels, (num, *SPEC.shape), np.uint8)
    labels = rng.choice(3, num, p=CLASSES).astype(np.int32)
    return Split(num, lambda index: (images[index], labels[index]))


SPLITS = {"train": split(0, 480), "validation": split(1, 50), "test": split(2, 230)}


def dataset(binarisation="none"):
    spec = SPEC if binarisation == "none" else SPEC._replace(levels=2)
    splits = {
        name: binarise.binarised(name, images, binarisation, SPEC.levels)
        for name, images in SPLITS.items()
    }
    raw = 2 if binarisation == "static" else SPEC.levels
    return Dataset("toys", spec, splits, binarisation, raw)


def features_of(image, scale=2.0):
    """Each pixel's brightness, and logits that are the first three of them."""
    flat = np.asarray(image, np.float32).reshape(len(image), -1) * scale
    return flat, flat[:, :3]


def classify(params, extra, image):
    flat = params["model"] * image.reshape(len(image), -1).astype(jnp.float32)
    return flat, flat[:, :3]


TOY = Model("toy", SPEC, True, None, {}, classify=classify)


def judge(data):
    model = TOY._replace(spec=data.spec)
    accuracy = {"train": 1.0, "test": 0.9}
    return classifying.make_judge(model, PARAMS, {}, data.name, data.binarisation, DIGEST, accuracy)


def sampling_model(choose):
    """Draws `choose(key, num, label)`."""

    def sample(params, extra, key, num, label=None, temperature=1.0):
        return choose(key, num, label)

    return Model("generator", SPEC, False, None, {}, sample=sample)


@pytest.mark.parametrize(
    ("name", "binarisation", "expected"),
    [
        ("digits", "none", "digits-classifier-1a2b3c4d"),
        ("idx:datasets/mnist", "static", "mnist-static-classifier-1a2b3c4d"),
        ("idx:/data/mnist/", "none", "mnist-classifier-1a2b3c4d"),
        ("npz:my.images.npz", "none", "my.images-classifier-1a2b3c4d"),
        ("tfds:mnist:3.0.1", "dynamic", "mnist-3.0.1-dynamic-classifier-1a2b3c4d"),
    ],
)
def test_a_judge_is_named_by_its_data_and_digest(name, binarisation, expected):
    assert classifying.name_of(name, binarisation, DIGEST) == expected


@pytest.mark.parametrize("num", [1, classifying.BATCH, classifying.BATCH + 3])
def test_every_image_counts_once_in_its_place(num):
    images, _ = split(5, num).read(np.arange(num))
    got = classifying.of_images(judge(dataset()).classify, images)
    for mine, want in zip(got, features_of(images), strict=True):
        np.testing.assert_array_equal(mine, want)


@pytest.mark.parametrize("binarisation", ["none", "static", "dynamic"])
def test_a_splits_images_are_what_a_model_sees(binarisation):
    data = dataset(binarisation)
    index = np.random.default_rng(0).permutation(230)[:210]
    got = classifying.of_split(judge(data).classify, classifying.reader(data, "test"), index)
    image, label = data.splits["test"].read(index)
    given = {"image": image, "label": label, "index": index.astype(np.int32)}
    key = keys.named(jax.random.key(0), "transform")
    seen = np.asarray(evaluation_transform(data)(given, key)["image"])
    assert (seen.max() == 1) == (binarisation != "none")
    np.testing.assert_array_equal(got.features, features_of(seen)[0])
    pieces = list(classifying.pool(classifying.reader(data, "test"), 230))
    assert [start for start, _ in pieces] == [0, 200]
    whole = np.concatenate([images for _, images in pieces])
    np.testing.assert_array_equal(whole[index], seen)


def test_images_are_chosen_by_chance_without_replacement():
    chosen = classifying.chosen(1000, 300)
    assert len(set(chosen.tolist())) == 300
    assert 400 < chosen.mean() < 600
    np.testing.assert_array_equal(classifying.chosen(1000, 20), chosen[:20])
    np.testing.assert_array_equal(np.sort(classifying.chosen(7, 300)), np.arange(7))


def test_a_judge_of_other_images_is_refused():
    classifying.require_fit(judge(dataset()), dataset(), "--classifier=a")
    others = [
        dataset("static"),
        dataset()._replace(binarisation="dynamic"),
        dataset()._replace(name="others"),
        dataset()._replace(spec=SPEC._replace(width=4)),
    ]
    for other in others:
        with pytest.raises(UserError, match=r"^--classifier=a is of toys") as error:
            classifying.require_fit(judge(dataset()), other, "--classifier=a")
        want = f"--config.data.name={other.name} --config.data.binarisation={other.binarisation}."
        assert str(error.value).endswith(want)
        assert "\n" not in str(error.value)


def test_a_judge_of_the_same_images_under_another_spelling_is_taken(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    spellings = ["idx:sets/mnist", "idx:./sets/mnist/", f"idx:{tmp_path}/sets/mnist"]
    other = dataset()._replace(name="idx:sets/fashion")
    for mine in spellings:
        one = judge(dataset()._replace(name=mine))
        for theirs in spellings:
            classifying.require_fit(one, dataset()._replace(name=theirs), "--classifier=a")
        with pytest.raises(UserError, match=r"the run of idx:sets/fashion"):
            classifying.require_fit(one, other, "--classifier=a")


@pytest.mark.parametrize(("batch_size", "num"), [(7, 0), (300, 0), (20, 33)])
def test_accuracy_and_cross_entropy_of_a_split(batch_size, num):
    score = classifying.scorer(TOY, lambda batch, key: batch)
    got = classifying.measure(score, PARAMS, {}, split_batches(SPLITS["test"], batch_size, num))
    images, labels = SPLITS["test"].read(np.arange(num or 230))
    logits = features_of(images)[1].astype(np.float64)
    nats = -special.log_softmax(logits, axis=1)[np.arange(len(labels)), labels]
    assert list(got) == ["cross_entropy", "accuracy"]
    assert got["cross_entropy"] == pytest.approx(nats.mean(), rel=1e-6)
    assert got["accuracy"] == pytest.approx((logits.argmax(1) == labels).mean(), abs=1e-12)


def test_a_generator_is_no_classifier():
    with pytest.raises(UserError, match=r"^generator is not a classifier"):
        classifying.scorer(sampling_model(None), None)
    with pytest.raises(UserError, match=r"^toy cannot draw samples"):
        classifying.sampler(TOY, dataset())


@pytest.mark.parametrize("num", [100, 700])
def test_conditional_samples_have_the_classes_of_the_data(num):
    def labels_as_images(key, num, label):
        return jnp.broadcast_to(label[:, None, None, None], (num, *SPEC.shape)).astype(jnp.uint8)

    model = sampling_model(labels_as_images)._replace(conditional=True)
    images = classifying.sampler(model, dataset())(PARAMS, {}, num, 0, 1.0)
    assert images.shape == (num, *SPEC.shape)
    share = np.bincount(images[:, 0, 0, 0], minlength=3) / num
    np.testing.assert_allclose(share, CLASSES, atol=0.12)


def test_the_baseline_is_what_real_images_get_in_the_samples_place():
    """A generator that returns the training images of the baseline has the same figures."""
    data = dataset()
    stored, _ = data.splits["train"].read(classifying.chosen(480, 64))

    def copies(key, num, label):
        return jnp.asarray(stored)

    sample = classifying.sampler(sampling_model(copies), data)
    one = judge(data).classify
    got = classifying.judge_samples(one, sample, [(PARAMS, {})] * 2, data, "test", 64, 0, 1.0)
    assert got.counts == {"num_samples": 64, "num_real": 230, "num_baseline": 64}
    real, _ = data.splits["test"].read(np.arange(230))
    want = fidelity.compare(
        fidelity.Features(*features_of(real)), fidelity.Features(*features_of(stored))
    ).metrics()
    for found in (*got.samples, got.baseline):
        assert found.metrics() == pytest.approx(want, rel=1e-12)
    # By default as many as the split has; for the train split the baseline is from test.
    got = classifying.judge_samples(
        one,
        lambda *how: np.resize(stored, (how[2], *SPEC.shape)),
        [(PARAMS, {})],
        data,
        "train",
        None,
        0,
        1.0,
    )
    assert got.counts == {"num_samples": 480, "num_real": 480, "num_baseline": 230}
