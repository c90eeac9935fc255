"""VQ-GAN's adaptive weight and losses, against NumPy in float64 and against the whole graph."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rnngen_jax import models
from rnngen_jax.errors import UserError
from rnngen_jax.models import vqgan, vqvae
from rnngen_jax.models.adversarial_losses import adversarial_losses
from rnngen_jax.models.frozen import Frozen, Perceptual
from rnngen_jax.modules.adversarial import Discriminator
from rnngen_jax.modules.dcgan import Body
from rnngen_jax.ops import perceptual
from rnngen_jax.shapes import ImageSpec

B, START = 4, 5
KEY = jax.random.key(1)
# One code per image of 2x2 pixels, and a decoder of two layers.
SMALLEST = ImageSpec(2, 2, levels=3)
CLOSED = {
    **{"quantiser": "fsq:levels=3x3", "vectors": 2, "features": 3, "stages": 1, "kernel": 2},
    **{"blocks": 0, "discriminator_features": 2, "discriminator_kernel": 2},
}
SPEC = ImageSpec(4, 4, levels=3, classes=2)
FIELDS = {
    **{"quantiser": "codebook:codes=5", "vectors": 3, "features": 3, "kernel": 2, "levels": 2},
    **{"loss": "relativistic", "penalty": "r1", "dropout": 0.3, "augmentation": "cutout"},
    **{"discriminator_features": 2, "adversarial_weight": 0.7, "perceptual_weight": 0.5},
    "adversarial_start": START,
}
CODING = ("quantiser", "vectors", "features", "kernel", "levels")
JUDGE = {"features": 3, "stages": 1, "kernel": 2, "hidden": 4}


def batch_of(spec):
    rng = np.random.default_rng(0)
    return {
        "image": rng.integers(0, spec.levels, (B, *spec.shape), np.uint8),
        "label": np.zeros(B, np.int32),
        "index": np.arange(B, dtype=np.int32),
    }


def filled(shapes, seed=0):
    """Arrays that are as large as trained ones."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: 0.5 * rng.standard_normal(x.shape, np.float32), shapes)


def judge():
    model = models.build("classifier", JUDGE, SPEC)
    params, extra = jax.eval_shape(model.init, KEY)
    return Perceptual(model, Frozen(filled(params, 7), extra))


def softmax(x):
    return np.exp(x) / np.exp(x).sum(-1, keepdims=True)


def elu(x):
    return np.where(x > 0, x, np.expm1(x))


def test_the_adaptive_weight_in_closed_form():
    """All slopes by hand: of the likelihood, of the hinge loss, and of the last layer."""
    model = models.build("vqgan", CLOSED, SMALLEST)
    shapes, extra = jax.eval_shape(model.init, KEY)
    params, batch = filled(shapes), batch_of(SMALLEST)

    @jax.jit
    def run(params):
        codes = model.codes.encode(params, {"quantiser": {}}, batch["image"])
        vectors = model.codes.vectors(params, {"quantiser": {}}, codes)
        own = extra | {"quantiser": {}}
        return vectors, model.losses["model"](params, own, batch, KEY, jnp.int32(0))

    vectors, (value, aux) = run(params)
    p = jax.tree.map(np.float64, params)
    decoder, judging = p["model"]["decoder"], p["discriminator"]
    middle = decoder["Same_0"]["kernel"][4 * 2 : 5 * 2]  # of a map of one place
    h = elu(np.float64(vectors)[:, 0, 0] @ middle + decoder["Same_0"]["bias"])
    last = decoder["Double_0"]
    raw = (h @ last["kernel"]).reshape(B, 4, 3) + last["bias"]
    prob, told = softmax(raw), np.eye(3)[batch["image"].reshape(B, 4)]
    nats = -(told * np.log(prob)).sum((1, 2)).mean()
    slope = (prob - told) / (B * 4)

    levels = np.array([0, 0.5, 1])
    mean = prob @ levels
    first, score = judging["body"]["Halve_0"], judging["score"]
    inner = (2 * mean - 1) @ first["kernel"] + first["bias"]
    leaky = np.where(inner > 0, 1, 0.2)
    adversarial = -((inner * leaky) @ score["kernel"][:, 0] + score["bias"]).mean()
    of_image = -2 / B * (leaky * score["kernel"][:, 0]) @ first["kernel"].T
    adversarial_slope = of_image[..., None] * prob * (levels - mean[..., None])

    def norm(slope):
        of_kernel = np.einsum("bf,bkp->fkp", h, slope)
        return np.sqrt((of_kernel**2).sum() + (slope.sum((0, 1)) ** 2).sum())

    weight = norm(slope) / (norm(adversarial_slope) + 1e-4)
    assert 0.1 < weight < 1e3
    np.testing.assert_allclose(aux.metrics["adaptive_weight"], weight, rtol=1e-4)
    np.testing.assert_allclose(aux.metrics["adversarial"], adversarial, rtol=1e-4)
    np.testing.assert_allclose(value, nats / 4 + weight * adversarial, rtol=1e-4)


@functools.cache
def built():
    """A model with all its losses, and arrays that its quantiser has begun with."""
    model = models.build("vqgan", FIELDS, SPEC, judge())
    params, extra = jax.jit(model.init)(KEY)
    for level in extra["quantiser"].values():
        level["started"] = jnp.float32(1)
    return model, filled(params), extra


@functools.cache
def stepped():
    """`run(params, step)`: the loss of the player "model" and its gradient."""
    model, _, extra = built()

    def loss(own, params, step):
        return model.losses["model"](
            {**params, "model": own}, extra, batch_of(SPEC), KEY, jnp.int32(step)
        )

    both = jax.value_and_grad(loss, has_aux=True)
    return jax.jit(lambda params, step: both(params["model"], params, step))


@functools.cache
def whole():
    """The same by automatic differentiation through all of it, as the equations are written."""
    _, params, extra = built()
    config = vqgan.Config(**FIELDS)
    parts, batch = vqvae.parts(config, SPEC), batch_of(SPEC)
    body = Body(
        stages=0, features=2, kernel=4, attention=False, grow=False, **config.discriminator_layers()
    )
    game = adversarial_losses(config, Discriminator(body))
    classifier, frozen = judge()
    image = batch["image"] / np.float32(2)

    def losses(own):
        every = {**params, "model": own}
        found = parts.rebuilt(every, extra, batch, KEY)
        raw = parts.codes.decode(every, extra, found.vectors)
        mean = parts.codes.likelihood.mean(raw)
        apart = perceptual.distance(
            classifier.activations(*frozen, image), classifier.activations(*frozen, mean)
        ).mean()
        fake = game.generator(every, extra, 2 * image - 1, 2 * mean - 1, batch, KEY).value
        nats = parts.nats(raw, batch["image"])
        return nats / SPEC.dims + 0.5 * apart, fake, sum(found.losses.values()), apart

    def norm_of(number, own):
        decoder = jax.grad(lambda own: losses(own)[number])(own)["decoder"]
        return jnp.sqrt(sum(jnp.square(x).sum() for x in jax.tree.leaves(decoder["Double_1"])))

    @jax.jit
    def run(own):
        weight = jnp.clip(norm_of(0, own) / (norm_of(1, own) + 1e-4), 0, 1e4)

        def total(own):
            rebuilt, fake, quantiser, _ = losses(own)
            return rebuilt + 0.7 * weight * fake + quantiser

        return weight, losses(own), jax.value_and_grad(total)(own)

    return run(params["model"])


def test_the_adaptive_weight_and_the_gradient_are_those_of_the_whole_graph():
    weight, (_, fake, _, apart), (value, gradient) = whole()
    (found, aux), own = stepped()(built()[1], START)
    assert 1e-2 < weight < 1e3
    np.testing.assert_allclose(aux.metrics["adaptive_weight"], weight, rtol=1e-4)
    np.testing.assert_allclose(aux.metrics["adversarial"], fake, rtol=1e-5)
    np.testing.assert_allclose(aux.metrics["perceptual"], apart, rtol=1e-5)
    np.testing.assert_allclose(found, value, rtol=1e-5)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5), own, gradient)
    assert all(np.abs(leaf).sum() > 0 for leaf in jax.tree.leaves(own["features"]))


def test_before_its_start_the_discriminator_has_no_part_to_the_bit():
    _, params, extra = built()
    other = {**params, "discriminator": jax.tree.map(lambda x: 3 * x + 1, params["discriminator"])}
    before, changed = (stepped()(each, START - 1) for each in (params, other))
    assert before[0][1].metrics["adaptive_weight"] == 0
    assert before[0][1].metrics["adversarial"] != changed[0][1].metrics["adversarial"]
    jax.tree.map(np.testing.assert_array_equal, before[1], changed[1])
    assert before[0][0] == changed[0][0]
    after = [stepped()(each, START)[1] for each in (params, other)]
    assert not np.array_equal(*(each["decoder"]["Double_1"]["bias"] for each in after))
    # Without its perceptual loss it is a VQ-VAE by then.
    fields = {name: FIELDS[name] for name in CODING}
    plain = models.build("vqvae", fields, SPEC)
    also = {"adversarial_start": 1, "discriminator_features": 2}
    own = models.build("vqgan", fields | also, SPEC)

    def gradient(model):
        def loss(own):
            return model.losses["model"](
                {**params, "model": own}, extra, batch_of(SPEC), KEY, jnp.int32(0)
            )[0]

        return jax.jit(jax.grad(loss))(params["model"])

    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-7),
        gradient(own),
        gradient(plain),
    )


def activations(p, image):
    """The classifier's two layers in NumPy; its convolution is over separate blocks of pixels."""
    blocks = image.reshape(B, 2, 2, 2, 2).transpose(0, 1, 3, 2, 4).reshape(B, 2, 2, 4)
    maps = elu(blocks @ p["Halve_0"]["kernel"] + p["Halve_0"]["bias"])
    flat = maps.reshape(B, -1)
    return maps, elu(flat @ p["Dense_0"]["kernel"] + p["Dense_0"]["bias"])


def test_the_perceptual_loss_is_the_distance_of_the_classifiers_activations():
    model, params, extra = built()
    p = jax.tree.map(np.float64, judge().frozen.params["model"])
    image = batch_of(SPEC)["image"]

    @jax.jit
    def rebuild(*arrays):
        raw = model.codes.raw(*arrays, model.codes.encode(*arrays, image))
        return model.codes.likelihood.mean(raw)

    rebuilt = rebuild(params, extra)
    # All that a prior keeps is enough for it.
    needed = model.codes.needs(params, extra)
    assert (set(needed[0]), set(needed[1])) == ({"model"}, {"quantiser"})
    np.testing.assert_array_equal(rebuild(*needed), rebuilt)
    pair = [activations(p, np.float64(x)[..., 0]) for x in (image / 2, rebuilt)]

    def unit(x):
        return x / np.linalg.norm(x, axis=-1, keepdims=True)

    each = [((unit(a) - unit(b)) ** 2).sum(-1) for a, b in zip(*pair, strict=True)]
    wanted = each[0].mean((1, 2)) + each[1]
    (_, aux), _ = stepped()(params, 0)
    np.testing.assert_allclose(aux.metrics["perceptual"], wanted.mean(), rtol=1e-4)
    assert wanted.mean() > 0.01


def test_in_all_but_its_training_it_is_a_vqvae():
    """The same traced programs of scores, samples, completions and latents, and the same stages."""
    model, params, extra = built()
    fields = {name: FIELDS[name] for name in CODING}
    plain, batch = models.build("vqvae", fields, SPEC), batch_of(SPEC)
    known = np.ones((B, 4, 4), bool)

    def programs(one, *arrays):
        latents = jnp.zeros((B, *one.latent.shape))
        yield lambda p, e: one.log_prob(p, e, batch, KEY), arrays
        yield lambda p, e: one.sample(p, e, KEY, B), arrays
        yield lambda p, e: one.complete(p, e, KEY, batch["image"], known), arrays
        yield lambda p, e: one.latent.encode(p, e, batch["image"]), arrays
        yield lambda p, e: one.latent.decode(p, e, latents), arrays
        yield lambda p, e: one.latent.inspect(p, e, batch, KEY), arrays
        yield lambda p, e: one.latent.prior(p, e, KEY, B), arrays
        for stage in one.stages[:-1]:
            yield lambda p, e, s=stage: s.values(p, e, batch["image"], batch["label"]), arrays

    def texts(one):
        needed = one.codes.needs(params, extra)
        return [str(jax.make_jaxpr(f)(*arrays)) for f, arrays in programs(one, *needed)]

    assert texts(model) == texts(plain._replace(codes=model.codes))
    assert len(set(texts(model))) == 9
    assert [stage.spec for stage in model.stages] == [stage.spec for stage in plain.stages]
    assert model.likelihood == plain.likelihood


def test_the_classifier_is_kept_and_never_changed():
    _, params, extra = built()
    own = judge()
    jax.tree.map(np.testing.assert_array_equal, extra["perceptual"]["params"], own.frozen.params)
    (_, aux), _ = stepped()(params, 0)
    jax.tree.map(np.testing.assert_array_equal, aux.extra["perceptual"], extra["perceptual"])
    assert jax.tree.structure(aux.extra) == jax.tree.structure(extra)
    untrained = jax.eval_shape(models.build("vqgan", FIELDS, SPEC, own).init, KEY)
    assert jax.tree.map(jnp.shape, untrained) == jax.tree.map(jnp.shape, (params, extra))
    missing = models.build("vqgan", FIELDS, SPEC, own._replace(frozen=None))
    _, found = jax.jit(missing.init)(KEY)
    assert all(np.isnan(leaf).all() for leaf in jax.tree.leaves(found["perceptual"]))


def test_a_perceptual_loss_without_a_classifier_is_refused_when_it_is_trained():
    model, (_, params, extra) = models.build("vqgan", FIELDS, SPEC), built()
    codes = model.codes.encode(params, extra, batch_of(SPEC)["image"])
    assert [grid.shape for grid in codes] == [(B, 1, 1, 1), (B, 2, 2, 1)]
    with pytest.raises(UserError, match=r"perceptual_weight must be 0 without .*, got 0\.5") as e:
        model.losses["model"](params, extra, batch_of(SPEC), KEY, jnp.int32(0))
    assert "\n" not in str(e.value)
