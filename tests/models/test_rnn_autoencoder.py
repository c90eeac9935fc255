"""The recurrent autoencoder: what each part may see, its equations by hand, and its bounds."""

import itertools
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from latent_models import LABELLED, batch_of, completed, random_images
from scipy import special, stats

from rnngen_jax import models
from rnngen_jax.models import rnn_autoencoder
from rnngen_jax.models.base import Model
from rnngen_jax.models.latent import latent_model
from rnngen_jax.models.latent_networks import Given, Network
from rnngen_jax.shapes import ImageSpec

GREY = ImageSpec(4, 3, levels=3)
COLOUR = ImageSpec(4, 6, channels=3, levels=5, classes=2)
BINARY = ImageSpec(2, 2, levels=2)
KEY, NUM = jax.random.key(7), 3
SMALL = {"cell": "gru", "features": 5, "input_features": 6, "latents": 2}
TOLD = {"decoder": "autoregressive"}
SQUARES = {"sequence": "patches", "patch": 2}
DEEP = {"cell": "lstm", "layers": 2, "residual": True, "learned_carry": True}

AUTOREGRESSIVE = [
    ({**TOLD, **DEEP}, GREY),
    (
        {
            **TOLD,
            **SQUARES,
            "attention": "additive",
            "bidirectional": True,
            "class_conditional": True,
        },
        COLOUR._replace(height=2),
    ),
    (
        {
            **TOLD,
            **DEEP,
            "sequence": "columns",
            "attention": "dot",
            "attend": "embedding",
            "pixels": "onehot",
        },
        GREY,
    ),
]
FREE = [
    ({"cell": "min_gru", "bidirectional": True, "class_conditional": True}, LABELLED),
    ({**DEEP, **SQUARES, "attention": "additive", "bidirectional": True}, COLOUR),
]


def name_of(value):
    if isinstance(value, ImageSpec):
        return f"{value.height}x{value.width}x{value.channels}"
    return "-".join(map(str, value.values())) if isinstance(value, dict) else None


EACH_AUTOREGRESSIVE = pytest.mark.parametrize(("fields", "spec"), AUTOREGRESSIVE, ids=name_of)
EACH = pytest.mark.parametrize(("fields", "spec"), AUTOREGRESSIVE + FREE, ids=name_of)


class Made(NamedTuple):
    """A model with drawn parameters, and the encoder and the decoder that it is made of."""

    model: Model
    network: Network
    params: dict[str, Any]


def made(fields, spec, seed=0, gain=1.5):
    networks = []

    def kept(name, spec, conditional, network, *rest):
        networks.append(network)
        return latent_model(name, spec, conditional, network, *rest)

    with mock.patch.object(rnn_autoencoder, "latent_model", kept):
        model = models.build("rnn_autoencoder", SMALL | fields, spec)
    shapes, _ = jax.eval_shape(model.init, jax.random.key(0))
    rng = np.random.default_rng(seed)

    def draw(leaf):
        scale = 0.4 if leaf.ndim < 2 else gain / np.sqrt(leaf.shape[-2])
        return scale * rng.standard_normal(leaf.shape, np.float32)

    return Made(model, networks[0], jax.tree.map(draw, shapes))


def blind(params):
    """The same parameters, but for an encoder that says the same of every image."""
    own = params["model"]
    head = jax.tree.map(lambda leaf: leaf * (leaf.ndim < 2), own["head"])
    return {"model": {**own, "head": head}}


def patch_of(fields, spec):
    """The number of the patch that each pixel is in, `[H, W]`."""
    row, column = np.indices((spec.height, spec.width))
    sequence = fields.get("sequence", "rows")
    if sequence == "patches":
        return row // 2 * (spec.width // 2) + column // 2
    return row if sequence == "rows" else column


def changed(images, where, spec):
    """Other values in some pixels of each image."""
    return np.where(where[..., None], (images + 1) % spec.levels, images)


def greedy(key, raw):
    return raw.argmax(-1).astype(jnp.int32)


@EACH_AUTOREGRESSIVE
def test_drawing_patch_by_patch_is_what_is_scored_at_once(fields, spec):
    model, network, params = made(fields, spec)
    images, label = np.int32(random_images(spec, num=NUM)), np.array([1, 0, 1])
    noise = np.random.default_rng(1).standard_normal((NUM, *model.latent.shape))
    everything = np.ones((NUM, spec.height, spec.width), bool)
    some = np.random.default_rng(2).random(everything.shape) < 0.5

    @jax.jit
    def draw(params, latents, images, known):
        return network.draw(params, latents, label, KEY, greedy, Given(images, known))

    infer = jax.jit(network.infer, static_argnums=5)
    found = infer(params, images, label, noise, None)
    given = infer(params, images, label, found.latents, None, lambda _, latents: latents)
    np.testing.assert_array_equal(given.latents, found.latents)
    np.testing.assert_allclose(given.raw, found.raw, rtol=1e-4, atol=1e-5)
    # Whatever would be chosen, what is given stands, and is told to the next step.
    raw, image = draw(params, found.latents, images, everything)
    np.testing.assert_array_equal(image, images)
    np.testing.assert_allclose(raw, found.raw, rtol=1e-4, atol=1e-5)
    raw, image = draw(params, found.latents, images, some)
    np.testing.assert_array_equal(image, np.where(some[..., None], images, greedy(None, raw)))
    assert (image != images).any()
    raw, image = draw(params, found.latents, images, ~everything)
    np.testing.assert_array_equal(image, greedy(None, raw))
    assert (np.abs(raw - found.raw) > 1e-3).any()  # since other patches are told
    raw_again, _ = draw(params, found.latents, image, everything)
    np.testing.assert_allclose(raw_again, raw, rtol=1e-4, atol=1e-5)


@EACH
def test_a_decoder_sees_its_latents_and_no_patch_but_those_before(fields, spec):
    """The encoder is blind here, so that images come in through the decoder alone."""
    model, network, params = made(fields, spec)
    images, label = random_images(spec, num=NUM), np.array([1, 0, 1])
    noise = np.random.default_rng(1).standard_normal((NUM, *model.latent.shape))
    where = patch_of(fields, spec)
    infer = jax.jit(network.infer)

    def raw_of(images, noise=noise, label=label):
        return np.asarray(infer(blind(params), np.int32(images), label, noise, None).raw)

    base = raw_of(images)
    assert base.shape[:4] == images.shape
    for t in range(where.max() + 1):
        other = raw_of(changed(images, where == t, spec)) != base
        if "decoder" not in fields:
            assert not other.any()
            continue
        assert not other[:, where <= t].any()
        assert other[:, where == t + 1].any((1, 2, 3)).all() or t == where.max()
    for code in range(model.latent.shape[0]):
        moved = noise + (np.arange(model.latent.shape[0]) == code)[:, None]
        assert (np.abs(raw_of(images, noise=moved) - base).max(-1) > 1e-6).all()
    assert (raw_of(images, label=1 - label) != base).any() == model.conditional


def slope(fields, spec):
    """A model's loss at drawn parameters, its metrics, and its gradient."""
    model, _, params = made(fields, spec)
    loss = jax.jit(jax.value_and_grad(model.losses["model"], has_aux=True))
    (value, aux), found = loss(params, {}, batch_of(random_images(spec, num=NUM), 1), KEY, 0)
    return value, aux.metrics, found


@pytest.mark.parametrize(("fields", "spec"), AUTOREGRESSIVE[1:], ids=name_of)
def test_every_parameter_is_trained(fields, spec):
    _, metrics, found = slope(fields, spec)
    assert metrics["kl"] > 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(found):
        assert np.isfinite(leaf).all(), path
        assert np.abs(leaf).max() > 0, path


def test_memory_is_saved_and_the_gradient_is_the_same():
    fields, spec = {**TOLD, "attention": "additive", "cell": "rnn"}, GREY
    one, other = slope(fields, spec), slope({**fields, "remat": 2}, spec)
    np.testing.assert_allclose(other[0], one[0], rtol=1e-6)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6), other[2], one[2]
    )


TRIANGLE, EVERYTHING, OWN = np.tri(4, dtype=bool), np.ones((4, 4), bool), np.eye(4, dtype=bool)


@pytest.mark.parametrize(
    ("fields", "seen"),
    [
        ({}, EVERYTHING[:1]),
        ({"bidirectional": True, "latent": "deterministic"}, EVERYTHING[:1]),
        ({"attention": "dot"}, TRIANGLE),
        ({"attention": "dot", "bidirectional": True}, EVERYTHING),
        ({"attention": "additive", "attend": "embedding"}, OWN),
    ],
    ids=name_of,
)
def test_codes_are_made_of_the_patches_that_the_encoder_has_seen(fields, seen):
    model, _, params = made(fields, GREY)
    images, encode = random_images(GREY), jax.jit(model.latent.encode)
    base = encode(params, {}, images)
    where = patch_of(fields, GREY)
    differ = [
        np.any(encode(params, {}, changed(images, where == t, GREY)) != base, axis=(0, 2))
        for t in range(4)
    ]
    np.testing.assert_array_equal(np.stack(differ, 1), seen)


def test_a_code_comes_from_the_last_state_of_either_direction():
    model, _, params = made({"bidirectional": True}, GREY)
    images, encode = random_images(GREY), jax.jit(model.latent.encode)
    for half in (slice(0, 5), slice(5, 10)):
        kernel = params["model"]["head"]["mean"]["kernel"]
        saved, kernel[half] = kernel[half].copy(), 0.0
        base = encode(params, {}, images)
        for t in (0, 3):
            moved = encode(params, {}, changed(images, patch_of({}, GREY) == t, GREY)) - base
            assert (np.abs(moved).max((1, 2)) > 1e-6).any()
        kernel[half] = saved


def dense(params, x):
    return x @ params["kernel"] + params.get("bias", 0.0)


def elman(params, x, h):
    return np.tanh(x @ params["input"] + h @ params["recurrent"] + params["bias"])


def by_hand(p, fields, spec, image, label, noise):
    """Codes `[S, Z]`, their mean and log-scale, and raw outputs of one image, with Elman cells."""
    where, sequence = patch_of(fields, spec), []
    for t in range(where.max() + 1):
        scaled = 2 * image[where == t].ravel() / (spec.levels - 1) - 1
        sequence.append(np.concatenate([scaled, np.ones_like(scaled)]))
    embedded = [np.maximum(dense(p["embed"], x), 0) for x in sequence]

    def states(name, xs):
        h, found = np.zeros(5), []
        for x in xs:
            h = elman(p[name], x, h)
            found.append(h)
        return found

    attention = fields.get("attention", "none")
    if attention != "none" and fields.get("attend") == "embedding":
        seen = embedded
    else:
        forward, backward = states("encoder_forward", embedded), [np.zeros(0)] * len(embedded)
        if fields.get("bidirectional"):
            backward = states("encoder_backward", embedded[::-1])[::-1]
        seen = [np.concatenate(pair) for pair in zip(forward, backward, strict=True)]
        if attention == "none":
            seen = [np.concatenate([forward[-1], backward[0]])]
    if fields.get("latent") == "deterministic":
        mean, log_scale = dense(p["head"], np.stack(seen)), None
        codes = mean
    else:
        mean, log_scale = (dense(p["head"][part], np.stack(seen)) for part in ("mean", "log_scale"))
        codes = mean + np.exp(log_scale) * noise
    told = dense(p["code"], codes)

    h, raw = np.zeros(5), np.zeros((*image.shape, spec.levels))
    for t in range(len(sequence)):
        x = p["place"]["table"][t].copy()
        if fields.get("class_conditional"):
            x += p["label"]["table"][label]
        if fields.get("decoder") == "autoregressive" and t:
            x += dense(p["before"], sequence[t - 1])
        if attention == "none":
            x += told[0]
        else:
            query = dense(p["query"], h)
            keys = dense(p["key"], told)
            if attention == "additive":
                scores = [p["score"] @ np.tanh(query + key) for key in keys]
            else:
                scores = [query @ key / np.sqrt(len(key)) for key in keys]
            x += special.softmax(scores) @ told
        h = elman(p["decoder"], x, h)
        raw[where == t] = dense(p["readout"], h).reshape(-1, spec.channels, spec.levels)
    return codes, mean, log_scale, raw


EXAMPLES = [
    ({"bidirectional": True, "class_conditional": True}, LABELLED),
    ({**TOLD, **SQUARES, "attention": "additive", "class_conditional": True}, COLOUR),
    ({**TOLD, "attention": "dot", "attend": "embedding", "sequence": "columns"}, GREY),
    ({"attention": "dot", "bidirectional": True, "latent": "deterministic"}, GREY),
]


@pytest.mark.parametrize(("fields", "spec"), EXAMPLES, ids=name_of)
def test_it_is_what_its_equations_say(fields, spec):
    fields = {**fields, "cell": "rnn"}
    model, network, params = made(fields, spec)
    p = jax.tree.map(np.float64, params["model"])
    images, label = random_images(spec, num=NUM), np.array([1, 0, 1])
    noise = np.random.default_rng(1).standard_normal((NUM, *model.latent.shape))
    found = jax.jit(network.infer)(params, np.int32(images), label, noise, None)
    close = {"rtol": 1e-4, "atol": 1e-5}
    nats = []
    for n in range(NUM):
        codes, mean, log_scale, raw = by_hand(p, fields, spec, images[n], label[n], noise[n])
        np.testing.assert_allclose(found.latents[n], codes, **close)
        np.testing.assert_allclose(found.raw[n], raw, **close)
        if log_scale is not None:
            np.testing.assert_allclose(found.posterior.mean[n], mean, **close)
            np.testing.assert_allclose(found.posterior.log_scale[n], log_scale, **close)
        log_p = special.log_softmax(raw, -1)
        nats.append(-np.take_along_axis(log_p, images[n][..., None].astype(int), -1).sum())
    if fields.get("latent") != "deterministic":
        return
    # A deterministic code: noise makes no difference, and the likelihood alone is trained.
    assert found.posterior is None
    batch = {**batch_of(images), "label": label}
    value, aux = jax.jit(model.losses["model"])(params, {}, batch, KEY, 0)
    np.testing.assert_allclose(value, np.mean(nats) / spec.dims, rtol=1e-5)
    assert list(aux.metrics) == ["reconstruction_nats"]
    missing = (model.likelihood, model.log_prob, model.sample, model.complete)
    assert {*missing, model.latent.prior, model.latent.importance} == {None}


def test_dropout_is_for_training_alone():
    batch, fields = batch_of(random_images(GREY)), {**TOLD, "attention": "dot"}
    (dry, _, params), (wet, *_) = (made({**fields, "dropout": rate}, GREY) for rate in (0.0, 0.5))
    dry, other = (
        jax.jit(model.losses["model"])(params, {}, batch, KEY, 0)[0] for model in (dry, wet)
    )
    bound = jax.jit(wet.log_prob)(params, {}, batch, KEY).mean()
    np.testing.assert_allclose(-bound / GREY.dims, dry, rtol=1e-5)
    assert abs(other - dry) > 1e-3


# Two latent variables at most, over which p(x|z) p(z) is integrated on a grid.
TINY = [
    {**TOLD, "latents": 1, "readout": "bernoulli"},
    {**TOLD, "latents": 1, "readout": "bernoulli", "attention": "additive"},
]
IMAGES = np.array(list(itertools.product(range(2), repeat=4)), np.uint8).reshape(16, 2, 2, 1)


@pytest.fixture(scope="module", params=TINY, ids=name_of)
def tiny(request):
    """A model and p(x) of the 16 images, each drawn step by step at every place of the grid."""
    model, network, params = made(request.param, BINARY, seed=3, gain=1.8)
    # A posterior that is not far from the prior, so that few draws say much.
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
    num = 4000
    drawn = np.asarray(jax.jit(model.sample, static_argnames="num")(params, {}, KEY, num=num))
    counts = np.bincount(drawn.reshape(num, -1) @ [8, 4, 2, 1], minlength=16)
    assert stats.chisquare(counts, num * p / p.sum()).pvalue > 1e-3


@pytest.mark.parametrize("tiny", TINY[:1], ids=name_of, indirect=True)
def test_completing_draws_from_the_conditional_distribution(tiny):
    """Also of the first row given the second, which the decoder is not told before it draws."""
    model, params, p = tiny
    counts, wanted = completed(model, params, p, 400)
    assert stats.chisquare(counts.ravel(), wanted.ravel(), ddof=7).pvalue > 1e-3
