"""Training of VQ-VAE and VQ-GAN on one device and eight, and going on to the bit."""

import functools
import itertools

import jax
import numpy as np
import pytest
import training_toys as toys

from rnngen_jax import models
from rnngen_jax.data.feed import fetch, make_feed
from rnngen_jax.shapes import ImageSpec
from rnngen_jax.training.config import OptimizerConfig
from rnngen_jax.training.optimizers import make_optimizer
from rnngen_jax.training.parallel import make_parallel
from rnngen_jax.training.state import create
from rnngen_jax.training.step import train_step

BATCH = 16
PLACES = {"one": ("jit", 1), "jit": ("jit", 8), "pmap": ("pmap", 8)}
FIELDS = {"features": 4, "stages": 1, "kernel": 2, "blocks": 0, "vectors": 3}
# With so few vectors in a batch codes die, and are revived.
QUANTISER = "codebook:codes=24,decay=0.5,revive=0.5"


SPEC = ImageSpec(2, 2, 1, 17)
ADVERSARIAL = {"discriminator_features": 3, "discriminator_kernel": 2, "adversarial_start": 1}


@functools.cache
def vqvae(quantiser=QUANTISER, **fields):
    return models.build("vqvae", {**FIELDS, **fields, "quantiser": quantiser}, SPEC)


@functools.cache
def vqgan():
    return models.build("vqgan", {**FIELDS, **ADVERSARIAL, "quantiser": QUANTISER}, SPEC)


def train(model, kind, devices, stops=(0, 3, 6), state=None):
    """The state after the last of the calls' steps, on the host, and the last call's metrics."""
    chain = make_optimizer(OptimizerConfig(name="adam", learning_rate=0.01))
    optimizers = dict.fromkeys(model.losses, chain)
    step = train_step(model, optimizers, 0.9, toys.keep)
    parallel = make_parallel(kind, step, fetch, 0, BATCH, jax.devices()[:devices])
    state = state or jax.jit(functools.partial(create, model, optimizers, 0, True))()
    feed = make_feed(toys.split(), BATCH, 0, "device")
    state, resident = parallel.place(state), parallel.place_resident(feed.resident)
    for chunk in feed.chunks(list(itertools.pairwise(stops)), 0, 1):
        placed = parallel.place_chunk(chunk)
        state, metrics = parallel.compiled(state, resident, placed)(state, resident, placed)
    return parallel.host(state), parallel.host(metrics)


@functools.cache
def trained(place, stop):
    """The state after so many steps, in calls of three steps each."""
    return train(vqvae(), *PLACES[place], tuple(range(0, stop + 1, 3)))[0]


def test_one_device_jit_and_pmap_agree():
    """The codebook after its start, its moving averages and its revivals included."""
    one, *others = (trained(place, 6) for place in PLACES)
    counts = np.stack([state.extra["quantiser"]["count"] for state in (trained("one", 3), one)])
    assert np.isclose(counts, BATCH / 24).any()  # of a code that is revived at the last step
    assert np.ptp(counts[1]) > 0
    for other in others:
        jax.tree.map(
            functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), other, one
        )


def test_the_adaptive_weight_is_the_same_on_all_devices_and_on_one():
    """And so are both players after it."""
    (one, told), *others = (train(vqgan(), *place, (0, 3)) for place in PLACES.values())
    weights = told["adaptive_weight"]
    assert weights[0] == 0  # before its start
    assert np.all((weights[1:] > 1e-2) & (weights[1:] < 1e3))
    for other, metrics in others:
        np.testing.assert_allclose(metrics["adaptive_weight"], weights, rtol=1e-4)
        jax.tree.map(
            functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-4), other, one
        )


@pytest.mark.parametrize("place", ["one", "jit"])
def test_going_on_is_to_the_bit(place):
    again, _ = train(vqvae(), *PLACES[place], (3, 6), trained(place, 3))
    jax.tree.map(np.testing.assert_array_equal, again, trained(place, 6))
