"""The recurrent autoencoder: what each part may see, and its equations by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from autoencoders import TOLD, made, name_of
from latent_models import LABELLED, batch_of, random_images
from scipy import special

from rnngen_jax.models.base import Given
from rnngen_jax.ops.gaussians import reparameterised
from rnngen_jax.shapes import ImageSpec

GREY = ImageSpec(4, 3, levels=3)
COLOUR = ImageSpec(4, 6, channels=3, levels=5, classes=2)
KEY, NUM = jax.random.key(7), 3
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


EACH_AUTOREGRESSIVE = pytest.mark.parametrize(("fields", "spec"), AUTOREGRESSIVE, ids=name_of)
EACH = pytest.mark.parametrize(("fields", "spec"), AUTOREGRESSIVE + FREE, ids=name_of)


def blind(params):
    """The same parameters, except that the encoder's output is the same for every image."""
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
    found = infer(params, images, label, noise, None, reparameterised)
    given = infer(params, images, label, found.latents, None, lambda _, latents: latents)
    np.testing.assert_array_equal(given.latents, found.latents)
    np.testing.assert_allclose(given.raw, found.raw, rtol=1e-4, atol=1e-5)
    # Given patches replace drawn ones, and are the next step's input.
    raw, image = draw(params, found.latents, images, everything)
    np.testing.assert_array_equal(image, images)
    np.testing.assert_allclose(raw, found.raw, rtol=1e-4, atol=1e-5)
    raw, image = draw(params, found.latents, images, some)
    np.testing.assert_array_equal(image, np.where(some[..., None], images, greedy(None, raw)))
    assert (image != images).any()
    raw, image = draw(params, found.latents, images, ~everything)
    np.testing.assert_array_equal(image, greedy(None, raw))
    assert (np.abs(raw - found.raw) > 1e-3).any()  # since the inputs are other patches
    raw_again, _ = draw(params, found.latents, image, everything)
    np.testing.assert_allclose(raw_again, raw, rtol=1e-4, atol=1e-5)


@EACH
def test_a_decoder_sees_its_latents_and_no_patch_but_those_before(fields, spec):
    """The encoder ignores the image here, so that only the decoder sees it."""
    model, network, params = made(fields, spec)
    images, label = random_images(spec, num=NUM), np.array([1, 0, 1])
    noise = np.random.default_rng(1).standard_normal((NUM, *model.latent.shape))
    where = patch_of(fields, spec)
    infer = jax.jit(network.infer, static_argnums=5)

    def raw_of(images, noise=noise, label=label):
        given = blind(params), np.int32(images), label, noise
        return np.asarray(infer(*given, None, reparameterised).raw)

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
    """A model's loss, metrics and gradient at random parameters."""
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
    infer = jax.jit(network.infer, static_argnums=5)
    found = infer(params, np.int32(images), label, noise, None, reparameterised)
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
