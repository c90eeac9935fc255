"""The terms of a bound against plain means over a split, for any batch size."""

import jax
import numpy as np
import pytest

from rnngen_jax import keys, models
from rnngen_jax.data.base import Split
from rnngen_jax.errors import UserError
from rnngen_jax.evaluation import latents, likelihood
from rnngen_jax.evaluation.batching import split_batches
from rnngen_jax.models.base import Inspection, Latent, Model
from rnngen_jax.shapes import ImageSpec

SPEC = ImageSpec(3, 2, 1, levels=4, classes=5)
SHAPE, NUM = (2, 3), 23
# Standard deviations of the posterior's means; a variable is active above a variance of 0.01.
SPREAD = np.array([[0.0, 0.09, 0.2], [0.11, 3.0, 0.02]])
ACTIVE = np.array([[0, 0, 1], [1, 1, 0]], bool)
PARAMS = {"model": {"spread": SPREAD.astype(np.float32)}}


def standardised(num, seed=1):
    """Values of mean 0 and variance 1 over the images, `[num, S, Z]`."""
    values = np.random.default_rng(seed).standard_normal((num, *SHAPE))
    return (values - values.mean(0)) / values.std(0)


def toy_split(num=NUM):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 4, (num, *SPEC.shape), dtype=np.uint8)
    labels = rng.integers(0, 5, num).astype(np.int32)
    return Split(num, lambda index: (images[index], labels[index]))


def identity(batch, key):
    return batch


def toy_model(generative=True, num=NUM):
    """Each part of an inspection differs between images, and one has noise of its own."""
    values = standardised(num).astype(np.float32)

    def inspect(params, extra, batch, key):
        index = batch["index"]
        noise = jax.vmap(jax.random.uniform)(keys.per_example(key, index))
        brightness = batch["image"].reshape(-1, 6).sum(1) / 18
        mean = 5 + params["model"]["spread"] * jax.numpy.asarray(values)[index]
        kl = abs(mean) * batch["label"][:, None, None] if generative else None
        return Inspection(-10 * brightness - noise, kl, mean, brightness**2)

    return Model("toy", SPEC, False, None, {}, latent=Latent(SHAPE, None, None, inspect))


def direct(num_images=NUM):
    """All images at once, in float64."""
    image, label = toy_split().read(np.arange(num_images))
    key = keys.named(jax.random.key(likelihood.SEED), "log_prob")
    noise = [float(jax.random.uniform(jax.random.fold_in(key, i))) for i in range(num_images)]
    brightness = image.reshape(-1, 6).sum(1) / 18
    mean = 5 + SPREAD * standardised(NUM)[:num_images]
    return {
        "reconstruction_nats": (10 * brightness + noise).mean(),
        "squared_error": (brightness**2).mean(),
        "kl": (np.abs(mean) * label[:, None, None]).mean(0),
        "variance": mean.var(0),
    }


def measure(batch_size, num_images=0, **changes):
    inspect = latents.inspector(toy_model(**changes), identity)
    return latents.measure(inspect, PARAMS, {}, split_batches(toy_split(), batch_size, num_images))


@pytest.mark.parametrize("batch_size", [1, 4, 22, 23, 50])
def test_every_image_counts_once_at_any_batch_size(batch_size):
    got = measure(batch_size)
    for name, value in direct().items():
        np.testing.assert_allclose(getattr(got, name), value, rtol=1e-5, atol=1e-6)


def test_num_images_takes_the_first():
    got = measure(4, num_images=10)
    for name, value in direct(10).items():
        np.testing.assert_allclose(getattr(got, name), value, rtol=1e-5, atol=1e-6)


def test_active_units_are_those_whose_mean_moves_with_the_image():
    got = measure(5)
    np.testing.assert_allclose(got.variance, SPREAD**2, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(got.active, ACTIVE)
    metrics, wanted = got.metrics(), direct()
    assert metrics["active_units"] == 3.0
    assert metrics["kl"] == pytest.approx(wanted["kl"].sum(), rel=1e-5)
    assert metrics["reconstruction_nats"] == pytest.approx(wanted["reconstruction_nats"], rel=1e-5)
    assert metrics["mean_squared_error"] == pytest.approx(wanted["squared_error"], rel=1e-5)
    assert next(iter(metrics)) == "reconstruction_nats"  # decides which checkpoint is best
    assert all(type(value) is float for value in metrics.values())


def test_a_deterministic_code_has_no_divergence():
    got = measure(5, generative=False)
    assert got.kl is None
    assert set(got.metrics()) == {"reconstruction_nats", "mean_squared_error", "active_units"}
    np.testing.assert_array_equal(got.active, ACTIVE)


def test_the_transform_comes_first_and_the_progress_is_told():
    shown = []

    def dark(batch, key):
        return {**batch, "image": 0 * batch["image"]}

    inspect = latents.inspector(toy_model(), dark)
    batches = split_batches(toy_split(), 8, track=lambda r: shown.append(r) or r)
    got = latents.measure(inspect, PARAMS, {}, batches)
    assert got.squared_error == 0
    assert [len(starts) for starts in shown] == [3]


def test_a_model_without_latents_is_refused():
    with pytest.raises(UserError, match="toy has no latents"):
        latents.inspector(toy_model()._replace(latent=None), identity)


def test_its_bound_is_that_of_the_ruler():
    """At the same draw of the latents, with evaluation noise in the images, too."""
    fields = {"features": 2, "hidden": 4, "latents": 2, "kernel": 2, "stages": 1}
    model = models.build("vae", fields, SPEC)
    params, extra = jax.jit(model.init)(jax.random.key(0))
    params = jax.tree.map(lambda leaf: 3 * leaf + 0.1, params)

    def noisy(batch, key):
        flips = jax.vmap(lambda k: jax.random.bernoulli(k, 0.5, SPEC.shape))(
            keys.per_example(key, batch["index"])
        )
        return {**batch, "image": jax.numpy.where(flips, 3 - batch["image"], batch["image"])}

    score, inspect = likelihood.scorer(model, noisy), latents.inspector(model, noisy)
    eights, tens = split_batches(toy_split(), 8), split_batches(toy_split(), 10)
    nats = likelihood.evaluate(score, params, extra, eights, SPEC.dims).nats_per_image
    metrics = latents.measure(inspect, params, extra, tens).metrics()
    assert metrics["kl"] > 0.1
    assert metrics["reconstruction_nats"] + metrics["kl"] == pytest.approx(nats, rel=1e-5)
    assert 0 < metrics["mean_squared_error"] < 1
