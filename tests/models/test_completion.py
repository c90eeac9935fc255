"""Autoregressive completion, against the exact distribution over all images of a tiny size."""

import functools
import itertools

import jax
import numpy as np
import pytest
from pixel_models import built, case_name, random_images
from scipy import special

from rnngen_jax.models import autoregressive
from rnngen_jax.shapes import ImageSpec

KEY = jax.random.key(5)
TALL, WIDE = ImageSpec(3, 2, levels=2), ImageSpec(2, 2, levels=3)
COLOUR = ImageSpec(2, 1, channels=2, levels=2)
CASES = [
    ("row_rnn", {}, TALL),
    ("pixel_rnn", {"order": "column", "readout": "logistic_mixture"}, WIDE),
    ("pixel_cnn", {"readout": "bernoulli"}, COLOUR),
]
EACH = pytest.mark.parametrize("case", CASES, ids=case_name)


def all_images(spec):
    values = itertools.product(range(spec.levels), repeat=spec.dims)
    return np.array(list(values), np.uint8).reshape(-1, *spec.shape)


def scored(model, params, extra, temperature):
    """All images, and p(x) of each, a product of tempered conditionals, in float64."""
    images = all_images(model.spec)
    raw = np.float64(jax.jit(model.conditionals)(params, extra, images))
    if raw.shape[-1] == 1:
        log_p = -np.logaddexp(0, np.where(images == 1, -1, 1) * raw[..., 0] / temperature)
    elif raw.shape[-1] == model.spec.levels:
        log_p = special.log_softmax(raw / temperature, -1)
        log_p = np.take_along_axis(log_p, np.int64(images)[..., None], -1)[..., 0]
    else:
        logit, mean, log_scale = np.split(raw, 3, -1)
        inverse = np.exp(-log_scale) / temperature
        edges = (2 * np.arange(model.spec.levels - 1) + 1) / (model.spec.levels - 1) - 1
        below = special.expit((edges - mean[..., None]) * inverse[..., None])
        mass = np.diff(below, axis=-1, prepend=0.0, append=1.0)
        mass = (special.softmax(logit / temperature, -1)[..., None] * mass).sum(-2)
        log_p = np.log(np.take_along_axis(mass, np.int64(images)[..., None], -1)[..., 0])
    return images, np.exp(log_p.sum((1, 2, 3)))


def distances(case, candidates, temperature, num=1500):
    """Total variation from p(first row | rest), for four images with all but that row known."""
    model, params, extra = built(case)
    spec = model.spec
    images, p = scored(model, params, extra, temperature)
    np.testing.assert_allclose(p.sum(), 1, atol=1e-5)
    known = np.ones((spec.height, spec.width), bool)
    known[0] = False
    below = spec.levels ** (spec.dims * (spec.height - 1) // spec.height)  # rows under the first
    given = images[np.linspace(0, below - 1, 4).astype(int)]
    fits = (images[None, :, 1:] == given[:, None, 1:]).all((2, 3, 4))
    wanted = fits * p / (fits * p).sum(1, keepdims=True)
    complete = jax.jit(functools.partial(model.complete, candidates=candidates))
    every = np.broadcast_to(known, (4 * num, *known.shape))
    start = np.where(every[..., None], np.repeat(given, num, axis=0), 0)
    got = complete(params, extra, KEY, start, every, temperature=temperature)
    weights = spec.levels ** np.arange(spec.dims)[::-1]
    numbers = np.asarray(got.image).reshape(4, num, -1) @ weights
    seen = np.stack([np.bincount(row, minlength=len(images)) for row in numbers]) / num
    return np.abs(seen - wanted).sum(1) / 2, np.asarray(got.effective)


# An untrained PixelCNN's values hardly depend on each other: one candidate would do for it.
@pytest.mark.parametrize(
    ("case", "temperature"),
    [(CASES[0], 0.7), pytest.param(CASES[1], 1.0, marks=pytest.mark.slow)],
    ids=["row_rnn-0.7", "pixel_rnn-1.0"],
)
def test_many_candidates_are_completed_from_what_comes_later_too(case, temperature):
    one, effective = distances(case, 1, temperature)
    np.testing.assert_array_equal(effective, 1)
    many, effective = distances(case, 128, temperature)
    assert one.max() > 0.3
    assert many.max() < 0.07  # so far are 1,500 draws from what they are drawn from
    assert ((effective >= 1) & (effective <= 128)).all()


@EACH
def test_one_candidate_is_a_single_walk(case):
    model, params, extra = built(case)
    images = random_images(model.spec, 1)
    known = np.random.default_rng(2).random(images.shape[:3]) < 0.5
    one = jax.jit(functools.partial(model.complete, candidates=1))(
        params, extra, KEY, images, known
    )
    walked, _ = jax.jit(model.walk)(params, extra, KEY, images, known)
    np.testing.assert_array_equal(one.image, walked)
    default = jax.jit(model.complete)(params, extra, KEY, images, known)
    np.testing.assert_array_equal(default.image, walked)


def test_what_comes_before_all_that_is_missing_weighs_alike():
    model, params, extra = built(CASES[0])
    images = random_images(model.spec, 1)
    known = np.zeros(images.shape[:3], bool)
    known[:, :2] = True
    complete = jax.jit(functools.partial(model.complete, candidates=7))
    found = complete(params, extra, KEY, images, known)
    np.testing.assert_allclose(found.effective, 7, rtol=1e-5)
    np.testing.assert_array_equal(np.asarray(found.image)[known], images[known])


@pytest.mark.parametrize(
    ("case", "wanted"),
    [
        (("row_rnn", {}, TALL), [0, 0, 1, 1, 2, 2]),
        (("row_rnn", {"within": "autoregressive"}, TALL), [0, 1, 2, 3, 4, 5]),
        (("pixel_rnn", {"order": "serpentine"}, TALL), [0, 1, 3, 2, 4, 5]),
        (("pixel_rnn", {"order": "column"}, COLOUR._replace(width=2)), [0, 1, 4, 5, 2, 3, 6, 7]),
        (("pixel_cnn", {"order": "reverse"}, COLOUR), [2, 3, 0, 1]),
    ],
)
def test_the_turn_of_each_value(case, wanted):
    model, _, _ = built(case)
    np.testing.assert_array_equal(autoregressive.turn_of_each(model.steps), wanted)
