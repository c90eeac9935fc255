"""The recurrent autoencoder: bounds, samples and completions against integrals over its latents."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from autoencoders import TOLD, made, name_of
from latent_models import batch_of, completed, sampled
from scipy import stats

from rnngen_jax.models.base import Given
from rnngen_jax.shapes import ImageSpec

BINARY = ImageSpec(2, 2, levels=2)
KEY = jax.random.key(7)
# Two latent variables at most, over which p(x|z) p(z) is integrated on a grid.
TINY = [
    {**TOLD, "latents": 1, "readout": "bernoulli"},
    {**TOLD, "latents": 1, "readout": "bernoulli", "attention": "additive"},
]
IMAGES = np.array(list(itertools.product(range(2), repeat=4)), np.uint8).reshape(16, 2, 2, 1)


@pytest.fixture(scope="module", params=TINY, ids=name_of)
def tiny(request):
    """A model and p(x) of the 16 images, from every point of the grid step by step."""
    model, network, params = made(request.param, BINARY, seed=3, gain=1.8)
    # A posterior close to the prior, so that few draws suffice.
    params["model"]["head"] = jax.tree.map(lambda leaf: 0.4 * leaf, params["model"]["head"])
    codes = model.latent.shape[0]
    at = np.linspace(-5.5, 5.5, 97 if codes == 1 else 49)
    grid = np.stack(np.meshgrid(*[at] * codes), -1).reshape(-1, codes, 1)
    prior = stats.norm.pdf(grid).prod((1, 2)) * (at[1] - at[0]) ** codes
    known, label = np.ones((len(grid), 2, 2), bool), np.zeros(len(grid), np.int32)

    @jax.jit
    def given_z(params, image):
        given = Given(jnp.broadcast_to(image, (len(grid), 2, 2, 1)), known)
        latents = jnp.asarray(grid, jnp.float32)
        raw, _ = network.draw(params, latents, label, KEY, lambda key, raw: 0, given)
        return jax.nn.sigmoid(jnp.where(given.image == 1, raw[..., 0], -raw[..., 0]))

    light = np.stack([np.float64(given_z(params, np.int32(image))) for image in IMAGES])
    return model, params, (light.prod((2, 3, 4)) * prior).sum(1)


def test_bounds_rise_to_the_integral_over_the_latents(tiny):
    model, params, p = tiny
    np.testing.assert_allclose(p.sum(), 1.0, atol=1e-5)
    assert p.max() > 3 * p.min()
    num, exact = 100, np.log(p)
    batch = batch_of(np.repeat(IMAGES, num, axis=0))
    weigh = jax.jit(model.latent.importance, static_argnums=(4, 5))

    def found(nats):
        each = np.asarray(nats, np.float64).reshape(16, num)
        return each.mean(1), each.std(1) / np.sqrt(num)

    less, one = found(jax.jit(model.log_prob)(params, {}, batch, KEY))
    more, other = found(weigh(params, {}, batch, KEY, 200, 50))
    assert (less < more + 4.5 * np.hypot(one, other)).all()
    assert (more < exact + 4.5 * other).all()
    assert (exact - less).mean() > 0.1
    np.testing.assert_allclose(more, exact, atol=0.15)
    assert (exact - more).mean() < 0.03


def test_samples_are_drawn_from_the_integral_over_the_latents(tiny):
    model, params, p = tiny
    assert stats.chisquare(sampled(model, params, 4000), 4000 * p / p.sum()).pvalue > 1e-3


@pytest.mark.parametrize("tiny", TINY[:1], ids=name_of, indirect=True)
def test_completing_draws_from_the_conditional_distribution(tiny):
    """Also of the first row given the second, which the decoder does not see before it draws."""
    model, params, p = tiny
    counts, wanted = completed(model, params, p, 400)
    assert stats.chisquare(counts.ravel(), wanted.ravel(), ddof=7).pvalue > 1e-3
