"""The likelihood of a split against plain sums, for any batch size."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rnngen_jax import keys
from rnngen_jax.data.base import DataConfig, Split
from rnngen_jax.errors import UserError
from rnngen_jax.evaluation import likelihood
from rnngen_jax.evaluation.batching import split_batches
from rnngen_jax.models.base import Latent, Model
from rnngen_jax.shapes import ImageSpec

SPEC = ImageSpec(3, 2, 1, levels=4, classes=5)
PARAMS = {"model": {"table": np.linspace(-1, 2, 24, dtype=np.float32).reshape(6, 4)}}


def toy_model(**changes):
    """Independent categorical pixels, plus noise keyed by the image and a term of its label."""

    def log_prob(params, extra, batch, key):
        logits = jax.nn.log_softmax(params["model"]["table"])
        flat = batch["image"].reshape(-1, 6)
        noise = jax.vmap(jax.random.uniform)(keys.per_example(key, batch["index"]))
        return logits[jnp.arange(6), flat].sum(1) - 0.1 * noise - batch["label"]

    fields = {"likelihood": "exact", "log_prob": log_prob, **changes}
    return Model("toy", SPEC, False, lambda key: (PARAMS, {}), {}, **fields)


def toy_split(num, seed=0):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 4, (num, *SPEC.shape), dtype=np.uint8)
    labels = rng.integers(0, 5, num).astype(np.int32)
    return Split(num, lambda index: (images[index], labels[index]))


def identity(batch, key):
    return batch


def measure(num, batch_size, num_images=0, transform=identity):
    return evaluated(likelihood.scorer(toy_model(), transform), num, batch_size, num_images)


def evaluated(score, num, batch_size, num_images=0):
    batches = split_batches(toy_split(num), batch_size, num_images)
    return likelihood.evaluate(score, PARAMS, {}, batches, SPEC.dims)


def direct(num):
    """All images at once, in float64."""
    image, label = toy_split(num).read(np.arange(num))
    table = PARAMS["model"]["table"].astype(np.float64)
    logits = table - np.log(np.exp(table).sum(1, keepdims=True))
    key = keys.named(jax.random.key(likelihood.SEED), "log_prob")
    noise = [float(jax.random.uniform(jax.random.fold_in(key, i))) for i in range(num)]
    return -logits[np.arange(6), image.reshape(num, 6)].sum(1) + 0.1 * np.array(noise) + label


@pytest.mark.parametrize(
    ("batch_size", "num_images", "nums"),
    [(7, 0, [7, 7, 7, 2]), (23, 0, [23]), (50, 0, [23]), (4, 10, [4, 4, 2]), (50, 3, [3])],
)
def test_batches_have_one_shape_and_the_last_is_filled_up(batch_size, num_images, nums):
    shown, split = [], toy_split(23)
    found = list(split_batches(split, batch_size, num_images, lambda r: shown.append(len(r)) or r))
    assert [num for num, _ in found] == nums
    assert shown == [len(nums)]
    for start, (num, batch) in zip(np.cumsum([0, *nums]), found, strict=False):
        wanted = np.arange(start, start + nums[0])
        wanted[num:] = start
        np.testing.assert_array_equal(batch["index"], wanted)
        assert batch["index"].dtype == np.int32
        np.testing.assert_array_equal(batch["image"], split.read(wanted)[0])
        np.testing.assert_array_equal(batch["label"], split.read(wanted)[1])


@pytest.mark.parametrize("batch_size", [1, 4, 7, 22, 23, 50])
def test_every_image_counts_once_at_any_batch_size(batch_size):
    nats = direct(23)
    got = measure(23, batch_size)
    assert got.num_images == 23
    assert got.nats_per_image == pytest.approx(nats.mean(), rel=1e-6)
    assert got.nats_per_image_error == pytest.approx(nats.std(ddof=1) / math.sqrt(23), rel=1e-5)
    bits = 6 * math.log(2)
    assert got.bits_per_dim == pytest.approx(nats.mean() / bits, rel=1e-6)
    assert got.bits_per_dim_error == pytest.approx(got.nats_per_image_error / bits)


def test_one_batch_shape_is_compiled_once():
    traced = []

    def transform(batch, key):
        traced.append(batch["image"].shape)
        return batch

    measure(23, 5, transform=transform)
    assert traced == [(5, 3, 2, 1)]


def test_num_images_takes_the_first():
    assert measure(23, 4, num_images=10).nats_per_image == pytest.approx(
        direct(23)[:10].mean(), rel=1e-6
    )
    assert measure(23, 4, num_images=100).num_images == 23
    assert measure(1, 4).nats_per_image_error == 0.0


def test_noise_of_the_transform_does_not_depend_on_the_batch():
    def transform(batch, key):
        flips = jax.vmap(lambda k: jax.random.bernoulli(k, 0.5, SPEC.shape))(
            keys.per_example(key, batch["index"])
        )
        return {**batch, "image": jnp.where(flips, 3 - batch["image"], batch["image"])}

    values = [measure(23, size, transform=transform).nats_per_image for size in (3, 23)]
    assert values[0] == pytest.approx(values[1], rel=1e-6)
    assert values[0] != pytest.approx(measure(23, 3).nats_per_image, rel=1e-3)


def test_a_likelihood_that_is_not_finite_shows():
    def log_prob(params, extra, batch, key):
        return jnp.where(batch["index"] == 11, -jnp.inf, 0.0)

    score = likelihood.scorer(toy_model(log_prob=log_prob), identity)
    got = evaluated(score, 23, 5)
    assert not math.isfinite(got.nats_per_image)


def test_a_model_without_a_likelihood_is_refused():
    missing = {"log_prob": None, "likelihood": None}
    for samples in (0, 5):
        with pytest.raises(UserError, match="toy has no likelihood here; only its samples"):
            likelihood.scorer(toy_model(**missing), identity, samples)
        code = Latent((1, 2), None, None, None)
        with pytest.raises(UserError, match="have no prior, so only its reconstructions"):
            likelihood.scorer(toy_model(**missing, latent=code), identity, samples)


def test_an_importance_weighted_bound_takes_the_place_of_the_likelihood():
    asked = []

    def importance(params, extra, batch, key, samples, chunk):
        asked.append((samples, chunk))
        return toy_model().log_prob(params, extra, batch, key) + samples

    latent = Latent((1, 2), None, None, None, importance=importance)
    score = likelihood.scorer(toy_model(latent=latent), identity, samples=5)
    got = evaluated(score, 23, 7)
    assert got.nats_per_image == pytest.approx(direct(23).mean() - 5, rel=1e-6)
    assert asked == [(5, likelihood.CHUNK)]
    for exact in (None, latent._replace(importance=None)):
        with pytest.raises(UserError, match="--iw_samples=5: the likelihood of toy is exact"):
            likelihood.scorer(toy_model(latent=exact), identity, samples=5)


def test_a_bound_over_candidates_is_that_of_models_of_codes():
    def over(params, extra, batch, key, count):
        return toy_model().log_prob(params, extra, batch, key) + count

    score = likelihood.scorer(toy_model(log_prob_over=over), identity, candidates=3)
    assert evaluated(score, 23, 7).nats_per_image == pytest.approx(direct(23).mean() - 3, rel=1e-6)
    with pytest.raises(UserError, match="--code_candidates=3: toy has no codes to sum over; leave"):
        likelihood.scorer(toy_model(), identity, candidates=3)


def dataset(binarisation="none"):
    return DataConfig("toys", binarisation)


def test_protocol_says_what_the_number_means():
    facts = likelihood.protocol(toy_model(), dataset(), "test", 9)
    assert facts == {
        "likelihood": "exact",
        "dataset": "toys",
        "levels": 4,
        "binarisation": "none",
        "split": "test",
        "num_images": 9,
    }
    drawn = likelihood.protocol(toy_model(), dataset("dynamic"), "test", 9)
    assert drawn == {**facts, "binarisation": "dynamic", "seed": likelihood.SEED}
    fixed = likelihood.protocol(toy_model(), dataset("static"), "test", 9)
    assert fixed == {**facts, "binarisation": "static", "draw": 2}
    several = likelihood.protocol(toy_model(), dataset(), "test", 9, seeds=3)
    assert several == {**facts, "seeds": 3}
    bound = likelihood.protocol(toy_model(likelihood="ELBO"), dataset(), "test", 9)
    assert bound == {**facts, "likelihood": "ELBO"}
    weighted = likelihood.protocol(toy_model(likelihood="ELBO"), dataset(), "test", 9, samples=50)
    assert weighted == {**facts, "likelihood": "IW-50"}
    tighter = likelihood.protocol(toy_model(likelihood="VQ"), dataset(), "test", 9, candidates=8)
    assert tighter == {**facts, "likelihood": "VQ", "code_candidates": 8}
    none = likelihood.protocol(toy_model(likelihood=None), dataset(), "test", 9)
    assert none == {**facts, "likelihood": None}
    for found, kind in (
        (facts, "exact likelihood"),
        (bound, "ELBO, a bound of the likelihood"),
        (weighted, "IW-50, a bound of the likelihood"),
        (none, "no likelihood"),
    ):
        assert likelihood.describe(found) == (
            f"{kind}, 4 levels, not binarised, 9 images of toys's test split"
        )
    assert likelihood.describe(several).endswith("toys's test split, mean over 3 seeds")
    assert likelihood.describe(drawn) == (
        "exact likelihood, 4 levels, dynamic binarisation with seed 0, "
        "9 images of toys's test split"
    )
    assert likelihood.describe(fixed) == (
        "exact likelihood, 4 levels, static binarisation, draw 2, 9 images of toys's test split"
    )
