"""A learned prior over latents: its density, its draws, and bounds, against sums over a grid."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from latent_models import batch_of, built, completed, sampled
from scipy import special, stats

from rnngen_jax import models
from rnngen_jax.models import latent_priors
from rnngen_jax.shapes import ImageSpec

KEY = jax.random.key(7)
BINARY = ImageSpec(2, 2, levels=2)
IMAGES = np.array(list(itertools.product(range(2), repeat=4)), np.uint8).reshape(16, 2, 2, 1)
AT = np.linspace(-7, 7, 141)
GRID = np.float32(np.stack(np.meshgrid(AT, AT, indexing="ij"), -1)).reshape(-1, 1, 2)
CELL = (AT[1] - AT[0]) ** 2


@pytest.fixture(scope="module")
def tiny():
    """A VAE with two latents and a learned prior, and p(x) of all binary 2x2 images."""
    fields = {"readout": "bernoulli", "prior": "recurrent:features=4,components=2"}
    model, params, _ = built(("vae", fields, BINARY), 0)
    factors = {"log_scale": 0.3, "mean": 0.6, "Double": 3.0}  # a decoder that reads its latents

    def scaled(path, leaf):
        path = jax.tree_util.keystr(path)
        strength = next((factor for part, factor in factors.items() if part in path), 1.0)
        wider = 0.5 * ("log_scale" in path and "bias" in path)  # posteriors, for their weights
        return leaf if "prior" in path else leaf * strength + wider

    params = jax.tree_util.tree_map_with_path(scaled, params)
    own = params["model"]["prior"]
    own["readout"]["kernel"] = 3 * own["readout"]["kernel"]  # variables that depend on one another
    own["bias"] = own["bias"] - np.repeat(np.float32([0, 1]), [4, 2])

    @jax.jit
    def run(params):
        light = model.latent.decode(params, {}, GRID)
        return light, model.latent.log_prior(params, {}, GRID)

    light, log_p = (np.float64(x) for x in run(params))
    p_z = np.exp(log_p) * CELL
    given_z = np.where(IMAGES[:, None] == 1, light, 1 - light).prod((2, 3, 4))
    return model, params, given_z @ p_z, p_z


def test_the_density_is_one_and_not_the_standard_normal(tiny):
    *_, p_z = tiny
    assert p_z.sum() == pytest.approx(1, abs=2e-4)
    normal = stats.norm.pdf(GRID[:, 0]).prod(1) * CELL
    assert np.abs(p_z - normal).sum() / 2 > 0.2
    table = p_z.reshape(141, 141)  # the variables depend on one another
    alone = table.sum(1, keepdims=True) * table.sum(0, keepdims=True)
    assert np.abs(table - alone).sum() / 2 > 0.05


def test_draws_follow_the_density_step_by_step(tiny):
    """Counts in five by five groups of the grid's cells."""
    model, params, _, p_z = tiny
    drawn = np.asarray(jax.jit(model.latent.prior, static_argnums=3)(params, {}, KEY, 4000))
    table, edges = p_z.reshape(141, 141) / p_z.sum(), AT[:-1] + 0.5 * (AT[1] - AT[0])
    group = [np.int64(5 * np.cumsum(table.sum(1 - axis)) * 0.9999) for axis in (0, 1)]
    counts, wanted = np.zeros((5, 5)), np.zeros((5, 5))
    np.add.at(wanted, tuple(np.meshgrid(*group, indexing="ij")), table)
    cells = [np.searchsorted(edges, drawn[:, 0, axis]) for axis in (0, 1)]
    np.add.at(counts, (group[0][cells[0]], group[1][cells[1]]), 1)
    assert stats.chisquare(counts.ravel(), 4000 * wanted.ravel()).pvalue > 1e-3


def test_bounds_rise_to_the_integral_over_the_latents(tiny):
    model, params, p, _ = tiny
    assert p.sum() == pytest.approx(1, abs=2e-4)
    batch = batch_of(np.repeat(IMAGES, 300, axis=0))
    elbo = np.float64(jax.jit(model.log_prob)(params, {}, batch, KEY)).reshape(16, 300)
    error = elbo.std(1) / np.sqrt(300)
    assert (elbo.mean(1) < np.log(p) + 4.5 * error).all()
    weigh = jax.jit(model.latent.importance, static_argnums=(4, 5))
    last = np.float64(weigh(params, {}, batch_of(np.repeat(IMAGES, 4, axis=0)), KEY, 1000, 250))
    last = last.reshape(16, 4).mean(1)
    np.testing.assert_allclose(last, np.log(p), atol=0.1)
    np.testing.assert_allclose(last.mean(), np.log(p).mean(), atol=0.02)
    assert (np.log(p) - elbo.mean(1)).mean() > 0.1


def test_the_loss_is_the_negative_bound_and_trains_the_prior(tiny):
    """One draw's KL estimate, uncut where it is below 0; its mean is the bound's."""
    model, params, _, _ = tiny
    batch = batch_of(IMAGES)

    @jax.jit
    def run(params):
        def loss(params):
            return model.losses["model"](params, {}, batch, KEY, 0)

        (value, aux), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        bound = model.log_prob(params, {}, batch, KEY)
        inspected = model.latent.inspect(params, {}, batch, KEY)
        return value, aux.metrics, gradient["model"]["prior"], bound, inspected

    value, metrics, gradient, bound, inspected = run(params)
    np.testing.assert_allclose([value * 4, metrics["nats_per_image"]], -bound.mean(), rtol=1e-5)
    assert (np.asarray(inspected.kl) < 0).any()
    added = inspected.log_likelihood - inspected.kl.sum((1, 2))
    np.testing.assert_allclose(added, bound, rtol=1e-5)
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradient))


def test_samples_and_completions_are_of_the_integral(tiny):
    model, params, p, _ = tiny
    assert stats.chisquare(sampled(model, params, 4000), 4000 * p / p.sum()).pvalue > 1e-3
    counts, wanted = completed(model, params, p, 1500)
    assert stats.chisquare(counts.ravel(), wanted.ravel(), ddof=7).pvalue > 1e-3


def test_a_new_prior_is_near_the_standard_normal():
    prior = latent_priors.recurrent((2, 3), components=1)
    params = prior.init(KEY)
    z = jax.random.normal(KEY, (5, 2, 3))
    label = jnp.zeros(5, jnp.int32)
    found = prior.log_density(params, z, label)
    np.testing.assert_allclose(found, stats.norm.logpdf(z), atol=1e-5)
    assert prior.draw(params, KEY, label, 1.0).shape == z.shape


def test_a_prior_of_classes_and_the_equations_of_its_network():
    """In NumPy, variable by variable."""
    prior = latent_priors.recurrent((1, 3), 2, cell="rnn", features=4, components=2)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: np.float32(rng.standard_normal(x.shape)), prior.init(KEY))
    z, label = np.float32(rng.standard_normal((6, 1, 3))), np.arange(6, dtype=np.int32) % 2
    found = prior.log_density(params, z, label)
    p = jax.tree.map(np.float64, params)
    cell = p["recurrent"]["cell"]
    h = np.zeros((6, 4))
    for t in range(3):
        before = z[:, 0, t - 1 : t] if t else np.zeros((6, 1))
        x = before @ p["before"]["kernel"] + p["before"]["bias"]
        x = np.maximum(x + p["position"]["table"][t] + p["label"]["table"][label], 0)
        h = np.tanh(x @ cell["input"] + h @ cell["recurrent"] + cell["bias"])
        raw = h @ p["readout"]["kernel"] + p["bias"][t]
        logit, mean, log_scale = np.split(raw, 3, axis=1)
        each = stats.norm.logpdf(z[:, 0, t, None], mean, np.exp(log_scale))
        wanted = special.logsumexp(special.log_softmax(logit, 1) + each, axis=1)
        np.testing.assert_allclose(found[:, 0, t], wanted, rtol=1e-4, atol=1e-4)
    other = prior.log_density(params, z, 1 - label)
    assert np.abs(other - found).max() > 0.1


def test_a_deterministic_code_samples_with_a_learned_prior():
    """Which is trained on the codes as they are: its loss does not move the encoder."""
    fields = {"latent": "deterministic", "latents": 2, "features": 4, "input_features": 4}
    plain = models.build("rnn_autoencoder", fields, BINARY)
    model = models.build("rnn_autoencoder", {**fields, "prior": "recurrent:features=3"}, BINARY)
    assert (plain.sample, plain.latent.prior, model.log_prob) == (None, None, None)
    params, _ = jax.jit(model.init)(KEY)

    @jax.jit
    def run(params):
        def loss(params, model):
            return model.losses["model"](params, {}, batch_of(IMAGES), KEY, 0)

        both = [jax.grad(loss, has_aux=True)(params, one) for one in (model, plain)]
        density = -model.latent.log_prior(params, {}, model.latent.encode(params, {}, IMAGES))
        return both, density.mean(), model.sample(params, {}, KEY, 5)

    ((gradient, aux), (alone, _)), density, drawn = run(params)
    own = gradient["model"].pop("prior")
    alone["model"].pop("prior")
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), gradient, alone)
    assert sum(float(jnp.abs(leaf).sum()) for leaf in jax.tree.leaves(own)) > 0
    np.testing.assert_allclose(aux.metrics["latent_nats"], density, rtol=1e-5)
    assert drawn.shape == (5, 2, 2, 1)
