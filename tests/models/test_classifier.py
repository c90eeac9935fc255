"""The classifier against NumPy in float64, and its loss against SciPy."""

import jax
import numpy as np
import pytest
from scipy import special

from rnngen_jax import models
from rnngen_jax.errors import UserError
from rnngen_jax.shapes import ImageSpec

SPEC = ImageSpec(4, 6, channels=2, levels=5, classes=3)
SMALL = {"features": 3, "stages": 1, "kernel": 2, "hidden": 7}
B = 6


def built(**fields):
    model = models.build("classifier", SMALL | fields, SPEC)
    rng = np.random.default_rng(0)
    shapes, extra = jax.eval_shape(model.init, jax.random.key(0))
    params = jax.tree.map(lambda a: rng.standard_normal(a.shape).astype(np.float32), shapes)
    return model, params, extra


def batch():
    rng = np.random.default_rng(1)
    return {
        "image": rng.integers(0, SPEC.levels, (B, *SPEC.shape), np.uint8),
        "label": np.array([0, 1, 2, 0, 1, 2], np.int32),
        "index": np.arange(B, dtype=np.int32),
    }


def elu(x):
    return np.where(x > 0, x, np.expm1(x))


def expected(params, image):
    """With a kernel of 2, the convolution is over separate blocks of 2x2 pixels."""
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), params["model"])
    blocks = image.astype(np.float64).reshape(B, 2, 2, 3, 2, 2) / (SPEC.levels - 1)
    blocks = blocks.transpose(0, 1, 3, 2, 4, 5).reshape(B, 2, 3, 8)
    x = elu(blocks @ p["Halve_0"]["kernel"] + p["Halve_0"]["bias"]).reshape(B, -1)
    features = elu(x @ p["Dense_0"]["kernel"] + p["Dense_0"]["bias"])
    return features, features @ p["Dense_1"]["kernel"] + p["Dense_1"]["bias"]


def test_features_are_the_hidden_layers_and_logits_follow_from_them():
    model, params, extra = built(dropout=0.5)
    image = batch()["image"]
    got = model.classify(params, extra, image)
    for mine, want in zip(got, expected(params, image), strict=True):
        assert mine.dtype == np.float32
        np.testing.assert_allclose(mine, want, rtol=1e-5, atol=1e-5)
    assert [part.shape for part in got] == [(B, 7), (B, 3)]


def test_the_loss_is_the_cross_entropy_of_the_labels():
    model, params, extra = built(dropout=0.0)
    given = batch()
    value, aux = model.losses["model"](params, extra, given, jax.random.key(0), 0)
    _, logits = expected(params, given["image"])
    nats = -special.log_softmax(logits, axis=1)[np.arange(B), given["label"]]
    np.testing.assert_allclose(value, nats.mean(), rtol=1e-5)
    right = logits.argmax(1) == given["label"]
    assert 0 < right.mean() < 1, logits.argmax(1)
    np.testing.assert_allclose(aux.metrics["accuracy"], right.mean())
    assert aux.extra == extra


def test_dropout_depends_on_an_examples_index_and_acts_in_training_alone():
    model, params, extra = built(dropout=0.5)
    loss = jax.jit(lambda given: model.losses["model"](params, extra, given, jax.random.key(3), 0))
    given = batch()
    whole = loss(given)[0]
    halves = [loss(jax.tree.map(lambda x, s=s: x[s], given))[0] for s in np.split(np.arange(B), 2)]
    np.testing.assert_allclose(np.mean(halves), whole, rtol=1e-5)
    moved = {**given, "index": given["index"] + 1}
    assert abs(loss(moved)[0] - whole) > 1e-3
    plain, *_ = built(dropout=0.0)
    assert abs(plain.losses["model"](params, extra, given, jax.random.key(3), 0)[0] - whole) > 1e-3


@pytest.mark.parametrize("classes", [0, 1])
def test_data_without_labels_are_refused(classes):
    with pytest.raises(UserError, match="cannot be trained on data without labels") as error:
        models.build("classifier", {}, SPEC._replace(classes=classes))
    assert "\n" not in str(error.value)


def test_it_is_sized_from_the_image():
    deep = models.build(
        "classifier", {"features": 2, "kernel": 2}, SPEC._replace(height=28, width=28)
    )
    shapes, _ = jax.eval_shape(deep.init, jax.random.key(0))
    assert [name for name in shapes["model"] if name.startswith("Halve")] == ["Halve_0", "Halve_1"]
    assert shapes["model"]["Dense_0"]["kernel"].shape == (7 * 7 * 4, 64)
