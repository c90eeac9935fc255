"""What is measured on the validation split, of models of every kind."""

import jax.numpy as jnp
import numpy as np
import pytest

from rnngen_jax.data.base import Dataset, Split
from rnngen_jax.evaluation import latents, likelihood
from rnngen_jax.evaluation.validation import validator
from rnngen_jax.models.base import Inspection, Latent, Model
from rnngen_jax.shapes import ImageSpec

SPEC = ImageSpec(3, 2, 1, levels=4)
CONFIG = likelihood.EvaluationConfig(batch_size=4, num_images=5)
PARAMS = {"model": jnp.float32(2.0)}
LIKELIHOOD = ["bits_per_dim", "nats_per_image"]
LATENTS = ["reconstruction_nats", "mean_squared_error", "active_units"]


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
        result = likelihood.evaluate(score, PARAMS, {}, validation, SPEC.dims, 4, 5)
        wanted = {name: getattr(result, name) for name in LIKELIHOOD}
    if latent:
        inspect = latents.inspector(toy, identity)
        wanted |= latents.measure(inspect, PARAMS, {}, validation, 4, 5).metrics()
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
