"""Validation of every kind of model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rnngen_jax.data.base import Dataset, Split
from rnngen_jax.errors import UserError
from rnngen_jax.evaluation import classifying, fidelity, latents, likelihood
from rnngen_jax.evaluation.batching import split_batches
from rnngen_jax.evaluation.validation import collapse, validator
from rnngen_jax.models.base import Inspection, Latent, Model
from rnngen_jax.shapes import ImageSpec

SPEC = ImageSpec(3, 2, 1, levels=4)
CONFIG = likelihood.EvaluationConfig(batch_size=4, num_images=5)
PARAMS = {"model": jnp.float32(2.0)}
LIKELIHOOD = ["bits_per_dim", "nats_per_image"]
LATENTS = ["reconstruction_nats", "mean_squared_error", "active_units"]
JUDGED = ["frechet", "precision", "recall", "confidence", "missing_classes"]
SHARES = [f"class_share/{k}" for k in range(3)]


def split(seed):
    images = np.random.default_rng(seed).integers(0, 4, (9, *SPEC.shape), dtype=np.uint8)
    return Split(9, lambda index: (images[index], np.zeros(len(index), np.int32)))


SPLITS = {name: split(seed) for seed, name in enumerate(("train", "validation", "test"))}
DATASET = Dataset("toys", SPEC, SPLITS, "none", 4)


def identity(batch, key):
    return batch


def model(scored, latent):
    """A toy; `latent` is "gaussian", "deterministic" or `None`."""

    def brightness(params, batch):
        return params["model"] * batch["image"].sum((1, 2, 3)).astype(jnp.float32)

    def log_prob(params, extra, batch, key):
        return -brightness(params, batch)

    def inspect(params, extra, batch, key):
        light = brightness(params, batch)
        mean = light[:, None, None] * jnp.array([[0.0, 1.0]])
        return Inspection(-light / 2, mean if latent == "gaussian" else None, mean, light / 99)

    return Model(
        "toy",
        SPEC,
        False,
        None,
        {},
        likelihood="exact" if scored else None,
        log_prob=log_prob if scored else None,
        latent=None if latent is None else Latent((1, 2), None, None, inspect),
    )


@pytest.mark.parametrize(
    ("scored", "latent", "names"),
    [
        (True, None, LIKELIHOOD),
        (True, "gaussian", [*LIKELIHOOD, *LATENTS, "kl"]),
        (False, "deterministic", LATENTS),
    ],
)
def test_the_validation_split_is_measured(scored, latent, names):
    """The first metric decides which checkpoint is best."""
    toy = model(scored, latent)
    got = validator(toy, identity, DATASET, CONFIG)(PARAMS, {})
    assert list(got) == names
    wanted, validation = {}, SPLITS["validation"]
    if scored:
        score = likelihood.scorer(toy, identity)
        batches = split_batches(validation, 4, 5)
        result = likelihood.evaluate(score, PARAMS, {}, batches, SPEC.dims)
        wanted = {name: getattr(result, name) for name in LIKELIHOOD}
    if latent:
        inspect = latents.inspector(toy, identity)
        wanted |= latents.measure(inspect, PARAMS, {}, split_batches(validation, 4, 5)).metrics()
    assert got == wanted
    # The first five images of that split, and no others.
    light = 2.0 * validation.read(np.arange(5))[0].sum((1, 2, 3))
    if scored:
        assert got["nats_per_image"] == pytest.approx(light.mean(), rel=1e-6)
        assert got["bits_per_dim"] == pytest.approx(light.mean() / 6 / np.log(2), rel=1e-6)
    if latent:
        assert got["reconstruction_nats"] == pytest.approx(light.mean() / 2, rel=1e-6)
        assert got["mean_squared_error"] == pytest.approx(light.mean() / 99, rel=1e-6)
        assert got["active_units"] == 1.0
    if latent == "gaussian":
        assert got["kl"] == pytest.approx(light.mean(), rel=1e-6)


def test_a_model_with_nothing_to_measure_is_not_validated():
    assert validator(model(False, None), identity, DATASET, CONFIG) is None


def classify(params, extra, image):
    """Features are the pixels; the class is the brightness of the first one, 0 to 2."""
    flat = image.reshape(len(image), -1).astype(jnp.float32)
    bright = jnp.minimum(flat[:, :1], 2)
    return flat, -params["model"] * jnp.square(bright - jnp.arange(3.0))


def judge():
    classifier = model(False, None)._replace(classify=classify)
    return classifying.make_judge(classifier, PARAMS, {}, "toys", "none", "ab" * 8, {})


def sampling(toy, collapsed):
    """A model that samples random pixels, or whose first pixel is always black."""

    def sample(params, extra, key, num, label=None, temperature=1.0):
        images = jax.random.randint(key, (num, *SPEC.shape), 0, 4).astype(jnp.uint8)
        return images.at[:, 0, 0].set(0) if collapsed else images

    return toy._replace(sample=sample)


JUDGING = likelihood.EvaluationConfig(batch_size=4, num_images=7, num_samples=70)


@pytest.mark.parametrize(("scored", "latent"), [(False, None), (True, None), (True, "gaussian")])
def test_samples_are_judged_after_what_else_there_is(scored, latent):
    toy = sampling(model(scored, latent), collapsed=False)
    lines = []
    validate = validator(toy, identity, DATASET, JUDGING, judge(), lines.append)
    got = validate(PARAMS, {})
    others = (LIKELIHOOD if scored else []) + ([*LATENTS, "kl"] if latent else [])
    assert list(got) == [*others, *JUDGED, *SHARES]
    assert validate(PARAMS, {}) == got  # the same noise
    assert lines == []
    images = classifying.sampler(toy, DATASET)(PARAMS, {}, 70, 0, 1.0)
    real = SPLITS["validation"].read(np.arange(7))[0]
    want = fidelity.compare(
        *(fidelity.Features(*map(np.asarray, classify(PARAMS, {}, x))) for x in (real, images))
    ).metrics()
    for name in (*JUDGED, *SHARES):
        assert got[name] == pytest.approx(want[name], rel=1e-6)


def test_missing_classes_are_told_once_a_validation():
    toy = sampling(model(False, None), collapsed=True)
    lines, whole = [], likelihood.EvaluationConfig(num_samples=70)
    validate = validator(toy, identity, DATASET, whole, judge(), lines.append)
    got = validate(PARAMS, {})
    assert [got[name] for name in ("missing_classes", *SHARES)] == [2, 1, 0, 0]
    assert lines == [
        "mode collapse: classes 1, 2 are less than a tenth as frequent in samples as in the data."
    ]
    validate(PARAMS, {})
    assert len(lines) == 2
    assert "class 3 is less than a tenth" in collapse([3])


def test_a_model_that_cannot_sample_is_not_judged():
    with pytest.raises(UserError, match="toy cannot draw samples"):
        validator(model(True, None), identity, DATASET, JUDGING, judge())


def test_a_classifier_is_validated_by_its_cross_entropy():
    toy = model(False, None)._replace(classify=classify)
    got = validator(toy, identity, DATASET, CONFIG)(PARAMS, {})
    assert list(got) == ["cross_entropy", "accuracy"]
    score = classifying.scorer(toy, identity)
    batches = split_batches(SPLITS["validation"], 4, 5)
    assert got == classifying.measure(score, PARAMS, {}, batches)
