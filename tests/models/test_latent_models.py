"""The contract of latent-variable models, whatever their networks are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from latent_models import (
    COLOUR,
    LABELLED,
    batch_of,
    built,
    case_name,
    network_of,
    noise_of,
    random_images,
)
from scipy import special, stats

from rnngen_jax import cells
from rnngen_jax.models.latent import Objective, latent_model
from rnngen_jax.models.latent_networks import Inference, Network, independent
from rnngen_jax.ops import gaussians, likelihoods
from rnngen_jax.ops.gaussians import Gaussian, reparameterised
from rnngen_jax.shapes import ImageSpec

KEY = jax.random.key(7)
BOUND = Objective()

# Each model with each readout, on images of every kind, and each kind of cell for DRAW.
CASES = [
    ("vae", {"readout": "gaussian", "class_conditional": True}, LABELLED),
    ("vae", {"readout": "logistic_mixture", "mixtures": 2}, COLOUR),
    ("draw", {"readout": "bernoulli"}, ImageSpec(4, 3, levels=2)),
    ("draw", {"readout": "categorical", "read_size": 3, "write_size": 0}, COLOUR),
    (
        "draw",
        {"readout": "logistic_mixture", "class_conditional": True, "read_size": 0, "cell": "gru"},
        LABELLED,
    ),
]
NUM = 6


class Programs:
    """A model at fixed parameters, and all its outputs for a batch as one program."""

    def __init__(self, case):
        self.model, self.params, extra = built(case)
        self.spec, latent = case[2], self.model.latent

        def told(params, batch, key):
            image, label = batch["image"], batch["label"]
            latents = latent.encode(params, extra, image, label)
            return {
                "bound": self.model.log_prob(params, extra, batch, key),
                "weighted": latent.importance(params, extra, batch, key, 5, 2),
                "found": latent.inspect(params, extra, batch, key),
                "latents": latents,
                "decoded": latent.decode(params, extra, latents, label),
                "moved": latent.decode(params, extra, latents + 1, label),
                "relabelled": latent.decode(params, extra, latents, label + 1),
            }

        def drawn(params, temperature):
            label = jnp.ones(40, jnp.int32)
            return self.model.sample(params, extra, KEY, 40, label, temperature)

        compiled, drawing = jax.jit(told), jax.jit(drawn)
        self.told = lambda batch, key=KEY: compiled(self.params, batch, key)
        self.drawn = lambda temperature: np.asarray(drawing(self.params, temperature))


@pytest.fixture(scope="module", params=CASES, ids=case_name)
def programs(request):
    return Programs(request.param)


def test_the_loss_is_minus_the_bound_and_trains_every_parameter(programs):
    model, spec = programs.model, programs.spec
    batch = batch_of(random_images(spec), 1)

    @jax.jit
    def both(params):
        return jax.value_and_grad(model.losses["model"], has_aux=True)(params, {}, batch, KEY, 0)

    (value, aux), slope = both(programs.params)
    told, metrics = programs.told(batch), aux.metrics
    bound, found = told["bound"], told["found"]
    kl = found.kl.sum((1, 2))
    assert found.kl.shape == (NUM, *model.latent.shape)
    np.testing.assert_allclose(found.log_likelihood - kl, bound, rtol=1e-5)
    wanted = {
        "nats_per_image": -bound.mean(),
        "kl": kl.mean(),
        "reconstruction_nats": -found.log_likelihood.mean(),
        "bits_per_dim": -bound.mean() / np.log(2) / spec.dims,
        "beta": 1.0,
    }
    assert set(metrics) == set(wanted)
    for name, number in wanted.items():
        np.testing.assert_allclose(metrics[name], number, rtol=1e-5, err_msg=name)
    np.testing.assert_allclose(value, -bound.mean() / spec.dims, rtol=1e-5)
    for path, leaf in jax.tree_util.tree_leaves_with_path(slope):
        assert np.isfinite(leaf).all(), path
        assert np.abs(leaf).max() > 0, path


def test_what_is_said_of_an_image_does_not_depend_on_its_batch(programs):
    batch = batch_of(random_images(programs.spec), 1, first=30)
    whole = programs.told(batch)
    # Three of the images at other positions of another batch.
    part = batch_of(random_images(programs.spec, seed=1), 1, first=90)
    part = {name: np.concatenate([x[[4, 1, 3]], part[name][:3]]) for name, x in batch.items()}
    moved = programs.told({**batch, "index": batch["index"] + 1})
    told, other = programs.told(part), programs.told(batch, jax.random.key(8))
    for name in ("bound", "weighted"):
        np.testing.assert_array_equal(programs.told(batch)[name], whole[name])
        np.testing.assert_allclose(told[name][:3], whole[name][np.array([4, 1, 3])], rtol=1e-5)
        # Another key or number gives other noise.
        for elsewhere in (moved, other):
            assert (np.abs(elsewhere[name] - whole[name]) > 1e-6).all()
    np.testing.assert_allclose(moved["latents"], whole["latents"], rtol=1e-6)


def test_images_are_encoded_and_decoded(programs):
    model, images = programs.model, random_images(programs.spec)
    told, other = (programs.told(batch_of(images, label)) for label in (1, 0))
    got, latents = told["decoded"], told["latents"]
    assert latents.shape == (NUM, *model.latent.shape)
    assert got.shape == images.shape
    assert ((got >= 0) & (got <= 1)).all()
    # `inspect` reports the posterior's mean, and the error of its decoding.
    np.testing.assert_allclose(told["found"].mean, latents, rtol=1e-5, atol=1e-6)
    error = np.square(got - images / (programs.spec.levels - 1)).mean((1, 2, 3))
    np.testing.assert_allclose(told["found"].squared_error, error, rtol=1e-4)
    # The latents matter; the label matters for conditional models only.
    assert (np.abs(told["moved"] - got).max((1, 2, 3)) > 1e-4).all()
    differ = np.abs(told["relabelled"] - got).max((1, 2, 3)) > 1e-4
    assert (differ == model.conditional).all()
    assert ((np.abs(other["bound"] - told["bound"]) > 1e-5) == model.conditional).all()


def test_samples_are_grey_levels_and_temperature_matters(programs):
    drawn = programs.drawn(1.0)
    assert drawn.dtype == np.uint8
    assert drawn.shape == (40, *programs.spec.shape)
    assert drawn.max() < programs.spec.levels
    assert len({image.tobytes() for image in drawn}) > 5
    # Near temperature 0 all samples are one image, the most likely values at the prior's mode.
    cold = programs.drawn(1e-5)
    assert (cold == cold[:1]).all()


@pytest.mark.parametrize("case", [CASES[2], CASES[4]], ids=case_name)
def test_the_last_canvas_is_the_decoded_image(case):
    model, params, extra = built(case)
    images, label = random_images(case[2]), jnp.ones(NUM, jnp.int32)

    @jax.jit
    def both(params, images):
        latents = model.latent.encode(params, extra, images, label)
        seen = model.latent.canvases(params, extra, latents, label)
        return model.latent.decode(params, extra, latents, label), seen

    decoded, seen = both(params, images)
    steps = model.latent.shape[0]
    assert seen.mean.shape == (steps, *images.shape)
    np.testing.assert_allclose(seen.mean[-1], decoded, atol=1e-6)
    assert (np.abs(np.diff(seen.mean, axis=0)).max((1, 2, 3, 4)) > 1e-3).all()
    assert seen.write.shape == (steps, NUM, 4)
    assert (seen.read is None) == (case is CASES[4])  # which reads the whole image


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_draw_with_one_step_and_without_attention_is_a_vae_of_its_parts(cell):
    spec, features = ImageSpec(3, 2, levels=3), 5
    fields = {"steps": 1, "read_size": 0, "write_size": 0, "cell": cell}
    model, params, _ = built(("draw", fields, spec))
    p, batch = params["model"], batch_of(random_images(spec), first=9)
    part = cells.build(cell, features, learned=True)

    def linear(name, x):
        return x @ p[name]["kernel"] + p[name]["bias"]

    def one_step(name, x):
        carry = part.learned(p[name], (NUM,), jnp.float32)
        return part.step(p[name], carry, part.inputs(p[name], x))[1]

    @jax.jit
    def composed(noise):
        image = batch["image"] / 2.0
        canvas = 10 * p["blank"].reshape(*spec.shape, 3)
        error = image - jax.nn.softmax(canvas) @ jnp.array([0, 0.5, 1])
        patch = jnp.concatenate([image.reshape(NUM, -1), error.reshape(NUM, -1)], axis=-1)
        seen = jnp.broadcast_to(p["seen"], (NUM, features))
        h = one_step("encoder", jnp.concatenate([patch, seen], axis=-1))
        mean, log_scale = jnp.split(linear("posterior", h), 2, axis=-1)
        h = one_step("decoder", mean + jnp.exp(log_scale) * noise)
        return canvas + linear("write", h).reshape(NUM, *spec.shape, 3), mean, log_scale

    noise = noise_of(KEY, batch["index"], model.latent.shape)
    raw, mean, log_scale = composed(noise[:, 0])
    log_p, kl, _ = by_hand(raw, batch["image"], noise, mean[:, None], log_scale[:, None])
    told = jax.jit(model.latent.inspect)(params, {}, batch, KEY)
    np.testing.assert_allclose(told.log_likelihood, log_p, rtol=1e-5)
    np.testing.assert_allclose(told.kl.sum((1, 2)), kl, rtol=1e-4)
    np.testing.assert_allclose(
        jax.jit(model.log_prob)(params, {}, batch, KEY), log_p - kl, rtol=1e-5
    )


def weighted(model, params, batch, samples, chunk):
    run = jax.jit(model.latent.importance, static_argnums=(4, 5))
    return np.asarray(run(params, {}, batch, KEY, samples, chunk))


def by_hand(raw, images, noise, mean, log_scale):
    """log p(x|z), KL and log-weight of each image in float64, from categorical raw outputs."""
    log_p = special.log_softmax(np.float64(raw), axis=-1)
    log_p = np.take_along_axis(log_p, images[..., None].astype(int), -1).sum((1, 2, 3, 4))
    mean, scale = np.float64(mean), np.exp(np.float64(log_scale))
    z = mean + scale * noise
    kl = (0.5 * (mean**2 + scale**2 - 1) - np.log(scale)).sum((1, 2))
    ratio = (stats.norm.logpdf(z) - stats.norm.logpdf(z, mean, scale)).sum((1, 2))
    return log_p, kl, log_p + ratio


def toy(objective=BOUND):
    """A linear encoder and decoder, with 2 latents in each of 3 steps."""
    spec, shape = ImageSpec(2, 3, levels=3), (3, 2)
    rng = np.random.default_rng(0)
    into = [rng.standard_normal((6, 6)).astype(np.float32) for _ in range(2)]
    out = rng.standard_normal((6, 18)).astype(np.float32)

    def infer(params, image, label, noise, train, pick):
        x = image.reshape(len(image), -1).astype(jnp.float32) - 1
        posterior = Gaussian(*((x @ w / 4).reshape(-1, *shape) for w in into))
        latents = pick(posterior, noise)
        return Inference(latents, posterior if objective else None, decode(params, latents, label))

    def decode(params, latents, label):
        return (latents.reshape(len(latents), -1) @ out).reshape(-1, *spec.shape, 3)

    network = Network(lambda key: ({"model": {}}, {}), infer, independent(decode))
    readout = likelihoods.categorical(3)
    model = latent_model("toy", spec, False, network, readout, shape, objective)
    images = random_images(spec, 1, 7)

    def facts(noise):
        x = np.float64(images.reshape(7, -1)) - 1
        mean, log_scale = ((x @ w / 4).reshape(-1, *shape) for w in into)
        z = mean + np.exp(log_scale) * noise
        raw = (z.reshape(len(z), -1) @ out).reshape(-1, *spec.shape, 3)
        return by_hand(raw, images, noise, mean, log_scale)

    return model, batch_of(images, first=50), facts


def test_bounds_are_those_of_noise_drawn_by_hand():
    model, batch, facts = toy()
    log_p, kl, _ = facts(noise_of(KEY, batch["index"], (3, 2)))
    np.testing.assert_allclose(jax.jit(model.log_prob)({}, {}, batch, KEY), log_p - kl, rtol=1e-5)
    weights = np.stack(
        [facts(noise_of(jax.random.fold_in(KEY, i), batch["index"], (3, 2)))[2] for i in range(5)]
    )
    np.testing.assert_allclose(weighted(model, {}, batch, 1, 1), weights[0], rtol=1e-5)
    wanted = special.logsumexp(weights, axis=0) - np.log(5)
    for chunk in (1, 2, 5, 64):
        np.testing.assert_allclose(weighted(model, {}, batch, 5, chunk), wanted, rtol=1e-5)


@pytest.mark.parametrize(
    ("objective", "step", "weight"),
    [
        (Objective(beta=0.5), 0, 0.5),
        (Objective(beta=4.0, beta_warmup=10), 4, 2.0),
        (Objective(beta=4.0, beta_warmup=10, free_bits=0.3), 50, 4.0),
    ],
)
def test_the_objective_weighs_the_divergence_and_pays_for_free_bits(objective, step, weight):
    model, batch, facts = toy(objective)
    value, aux = jax.jit(model.losses["model"])({}, {}, batch, KEY, step)
    each = jax.jit(model.latent.inspect)({}, {}, batch, KEY).kl
    log_p, kl, _ = facts(noise_of(KEY, batch["index"], (3, 2)))
    np.testing.assert_allclose(each.sum((1, 2)), kl, rtol=1e-5)
    paid = np.maximum(np.float64(each), objective.free_bits).sum((1, 2))
    assert (paid.sum() > kl.sum() + 0.1) == (objective.free_bits > 0)
    np.testing.assert_allclose(value, (weight * paid - log_p).mean() / 6, rtol=1e-5)
    # Whatever the objective, the metrics report the bound.
    np.testing.assert_allclose(aux.metrics["nats_per_image"], (kl - log_p).mean(), rtol=1e-5)
    np.testing.assert_allclose(aux.metrics["kl"], kl.mean(), rtol=1e-5)
    assert aux.metrics["beta"] == weight


def test_a_deterministic_code_has_neither_a_prior_nor_a_bound():
    model, batch, facts = toy(None)
    log_p, *_ = facts(noise_of(KEY, batch["index"], (3, 2)))
    value, aux = jax.jit(model.losses["model"])({}, {}, batch, KEY, 0)
    np.testing.assert_allclose(value, -log_p.mean() / 6, rtol=1e-5)
    assert list(aux.metrics) == ["reconstruction_nats"]
    for missing in ("likelihood", "log_prob", "sample", "complete"):
        assert getattr(model, missing) is None
    for missing in ("prior", "importance", "completion"):
        assert getattr(model.latent, missing) is None
    assert jax.jit(model.latent.inspect)({}, {}, batch, KEY).kl is None


def test_the_prior_is_standard_normal_times_the_temperature():
    model, *_ = toy()
    drawn = model.latent.prior({}, {}, KEY, 500)
    assert drawn.shape == (500, 3, 2)
    assert stats.kstest(np.ravel(drawn), "norm").pvalue > 1e-3
    correlation = np.corrcoef(np.reshape(drawn, (500, -1)).T) - np.eye(6)
    assert np.abs(correlation).max() < 4.5 / np.sqrt(500)
    cold = model.latent.prior({}, {}, KEY, 500, None, 0.5)
    np.testing.assert_allclose(cold, 0.5 * drawn, rtol=1e-6)


@pytest.mark.parametrize("case", [CASES[0], CASES[3]], ids=case_name)
def test_given_latents_are_inferred_as_if_noise_had_made_them(case):
    _, params, _ = built(case)
    network, spec = network_of(case), case[2]
    image, label = np.int32(random_images(spec)), np.ones(6, np.int32)
    shape = built(case)[0].latent.shape
    noise = np.random.default_rng(1).standard_normal((6, *shape)).astype(np.float32)
    infer = jax.jit(network.infer, static_argnums=5)
    found = infer(params, image, label, noise, None, reparameterised)

    @jax.jit
    def given(params, latents):
        return network.infer(params, image, label, latents, None, lambda _, latents: latents)

    same = given(params, found.latents)
    np.testing.assert_array_equal(same.latents, found.latents)
    close = {"rtol": 1e-4, "atol": 1e-5}
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **close), same, found)
    np.testing.assert_allclose(
        gaussians.standardised(same.posterior, same.latents), noise, rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize("case", [CASES[0], CASES[3]], ids=case_name)
def test_completing_keeps_what_is_known(case):
    model, params, extra = built(case)
    spec, images = case[2], random_images(case[2])
    known = np.random.default_rng(3).random((6, spec.height, spec.width)) < 0.5
    known[0], known[1] = True, False
    label = jnp.ones(6, jnp.int32)
    complete = jax.jit(model.complete)
    found = complete(params, extra, KEY, images, known, label)
    got = np.asarray(found.image)
    np.testing.assert_array_equal(got[known], images[known])
    assert got.max() < spec.levels
    assert (got[1] != images[1]).any()
    # The values at unknown pixels make no difference.
    blank = np.where(known[..., None], images, 0)
    np.testing.assert_array_equal(complete(params, extra, KEY, blank, known, label).image, got)
    assert found.effective is None
    assert ((found.moved >= 0) & (found.moved <= 1)).all()
    assert "rounds" in model.latent.completion


def test_completing_finds_the_latents_that_explain_what_is_known():
    """The sign of one latent selects one of two opposite images; a quarter of it is known."""
    spec, half = ImageSpec(2, 4, levels=2), np.array([1, 0] * 4).reshape(2, 4, 1)

    def decode(params, latents, label):
        sign = jnp.sign(latents[:, 0, 0])[:, None, None, None, None]
        return 12 * sign * (2.0 * half[..., None] - 1)

    def infer(params, image, label, noise, train, pick):
        agree = jnp.where(image == half, 1.0, -1.0).mean((1, 2, 3))[:, None, None]
        posterior = Gaussian(2 * agree, jnp.zeros_like(agree))
        latents = pick(posterior, noise)
        return Inference(latents, posterior, decode(params, latents, label))

    network = Network(lambda key: ({}, {}), infer, independent(decode))
    readout = likelihoods.bernoulli()
    model = latent_model("toy", spec, False, network, readout, (1, 1), Objective())
    wanted = np.concatenate([[half] * 30, [1 - half] * 30]).astype(np.uint8)
    known = np.zeros((60, 2, 4), bool)
    known[:, 0, :2] = True
    got = jax.jit(model.complete)({}, {}, KEY, np.where(known[..., None], wanted, 0), known)
    np.testing.assert_array_equal(got.image, wanted)


def test_dropout_masks_both_hidden_layers_in_training_alone():
    """At a rate near 1, codes do not depend on images, nor raw outputs on codes."""
    spec = ImageSpec(4, 4, levels=3)
    model, params, extra = built(("vae", {"dropout": 0.99999}, spec))
    images = random_images(spec)
    loss = jax.jit(model.losses["model"])

    def metrics(batch, seed):
        return loss(params, extra, batch, jax.random.key(seed), 0)[1].metrics

    one, other = metrics(batch_of(images), 0), metrics(batch_of(images), 1)
    inverted = metrics(batch_of(2 - images), 0)
    assert one["kl"] == inverted["kl"]
    assert one["reconstruction_nats"] == other["reconstruction_nats"]
    assert one["reconstruction_nats"] != inverted["reconstruction_nats"]
    found = jax.jit(model.latent.inspect)(params, extra, batch_of(images), KEY)
    assert len(np.unique(found.kl.sum((1, 2)))) == NUM
