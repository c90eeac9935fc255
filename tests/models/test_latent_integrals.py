"""Latent-variable models whose latents can be integrated: bounds, samples and completion."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from latent_models import batch_of, built, completed, sampled
from scipy import special, stats

from rnngen_jax.models.latent import Objective, latent_model
from rnngen_jax.models.latent_networks import Inference, Network, independent
from rnngen_jax.ops import likelihoods
from rnngen_jax.ops.gaussians import Gaussian
from rnngen_jax.shapes import ImageSpec

KEY = jax.random.key(7)

# Two latent variables in all, over which p(x|z) p(z) is integrated on a grid. A binary 2x2 image
# has 16 states.
BINARY = ImageSpec(2, 2, levels=2)
IMAGES = np.array(list(itertools.product(range(2), repeat=4)), np.uint8).reshape(16, 2, 2, 1)
TINY = [
    ("vae", {"readout": "bernoulli"}, 0, 1.0, 3.0),
    ("draw", {"readout": "bernoulli", "steps": 2, "latents": 1}, 2, 2.0, 2.0),
]
AT = np.linspace(-6.5, 6.5, 61)
GRID = np.stack(np.meshgrid(AT, AT), -1).reshape(-1, 2)
PRIOR = stats.norm.pdf(GRID).prod(1) * (AT[1] - AT[0]) ** 2


def tamed(params, strong):
    """A posterior not too far from the prior, and a decoder that depends on its latents."""

    def scaled(path, leaf):
        path = jax.tree_util.keystr(path)
        if "posterior" in path:  # DRAW's mean and log-scale, side by side
            half = leaf.shape[-1] // 2
            return leaf * jnp.repeat(jnp.array([0.6, 0.3]), half)
        factors = {"log_scale": 0.3, "mean": 0.6, "Double": strong, "['write']": strong}
        return leaf * next((factor for part, factor in factors.items() if part in path), 1.0)

    return jax.tree_util.tree_map_with_path(scaled, params)


@pytest.fixture(scope="module", params=TINY, ids=lambda case: case[0])
def tiny(request):
    """A model, its parameters, and the probabilities of all images."""
    name, fields, seed, gain, strong = request.param
    model, params, _ = built((name, fields, BINARY), seed, gain)
    params = tamed(params, strong)
    latents = np.float32(GRID).reshape(-1, *model.latent.shape)
    light = np.float64(jax.jit(model.latent.decode)(params, {}, latents))
    given_z = np.where(IMAGES[:, None] == 1, light, 1 - light).prod((2, 3, 4))
    return model, params, given_z @ PRIOR


def test_bounds_rise_to_the_integral_over_the_latents(tiny):
    model, params, p = tiny
    np.testing.assert_allclose(p.sum(), 1.0, atol=1e-6)
    found, weigh = [], jax.jit(model.latent.importance, static_argnums=(4, 5))
    for samples, num, chunk in [(1, 300, 1), (64, 20, 16), (1000, 2, 250)]:
        batch = batch_of(np.repeat(IMAGES, num, axis=0))
        bound = np.float64(weigh(params, {}, batch, KEY, samples, chunk)).reshape(16, num)
        found.append((bound.mean(1), bound.std(1) / np.sqrt(num)))
    batch = batch_of(np.repeat(IMAGES, 300, axis=0), first=10_000)
    elbo = np.float64(jax.jit(model.log_prob)(params, {}, batch, KEY)).reshape(16, 300)
    (one, error), (many, small), (last, _) = found
    both = np.hypot(error, elbo.std(1) / np.sqrt(300))
    assert (np.abs(elbo.mean(1) - one) < 4.5 * both).all()
    assert (many - one > -3 * np.hypot(error, small)).all()
    for mean, error in found[:2]:
        assert (mean < np.log(p) + 4.5 * error).all()
    gap, narrow = np.log(p) - one, np.log(p) - many
    assert gap.mean() > 10 * narrow.mean() > 0
    assert gap.mean() > 0.5
    np.testing.assert_allclose(last, np.log(p), atol=0.12)
    np.testing.assert_allclose(last.mean(), np.log(p).mean(), atol=0.02)


def test_samples_are_drawn_from_the_integral_over_the_latents(tiny):
    model, params, p = tiny
    assert stats.chisquare(sampled(model, params, 4000), 4000 * p / p.sum()).pvalue > 1e-3


@pytest.mark.parametrize("tiny", TINY[:1], ids=lambda case: case[0], indirect=True)
def test_completing_draws_from_the_conditional_distribution(tiny):
    model, params, p = tiny
    counts, wanted = completed(model, params, p, 1500)
    assert stats.chisquare(counts.ravel(), wanted.ravel(), ddof=7).pvalue > 1e-3


def test_completing_does_not_depend_on_how_good_the_encoder_is():
    """Its means are off the posterior's, and its scales are a third too large."""
    temperature = 0.7
    out = np.array([[4.0, 3.0, 4.0, -2.0], [-2.0, 3.0, 1.0, 4.0]])
    bias = np.array([0.3, 0, -0.5, 0])

    def joint(temperature):
        """p(x, z), with the temperature applied to each pixel's logit and the prior's scale."""
        light = special.expit((temperature * GRID @ out + bias) / temperature)
        return np.where(IMAGES.reshape(16, 1, 4) == 1, light, 1 - light).prod(2) * PRIOR

    posterior = joint(1.0) / joint(1.0).sum(1, keepdims=True)
    mean = posterior @ GRID
    scale = np.sqrt(posterior @ GRID**2 - mean**2)
    mean += 0.7 * np.random.default_rng(0).standard_normal(mean.shape)
    table = np.float32([mean, np.log(1.35 * scale)])

    def decode(params, latents, label):
        return (latents[:, 0] @ np.float32(out) + np.float32(bias)).reshape(-1, 2, 2, 1, 1)

    def infer(params, image, label, noise, train, pick):
        state = image.reshape(-1, 4) @ np.array([8, 4, 2, 1])
        posterior = Gaussian(*(jnp.asarray(part)[state][:, None] for part in table))
        latents = pick(posterior, noise)
        return Inference(latents, posterior, decode(params, latents, label))

    network = Network(lambda key: ({}, {}), infer, independent(decode))
    readout = likelihoods.bernoulli()
    model = latent_model("toy", BINARY, False, network, readout, (1, 2), Objective())
    options = {"temperature": temperature, "candidates": 4}
    counts, wanted = completed(model, {}, joint(temperature).sum(1), 2000, **options)
    distances = np.abs(counts - wanted).sum(1) / 2 / 2000  # total variation
    assert distances.max() < 0.03
