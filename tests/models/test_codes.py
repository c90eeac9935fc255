"""VQ-VAEs and priors over their codes, against sums over all grids of codes of a tiny size."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rnngen_jax import models
from rnngen_jax.errors import UserError
from rnngen_jax.models.codes import uniform
from rnngen_jax.models.two_stage import Frozen, two_stage
from rnngen_jax.shapes import ImageSpec

SPEC = ImageSpec(4, 4, levels=3, classes=2)
TINY = {"features": 3, "stages": 2, "kernel": 2, "blocks": 1, "vectors": 3}
# Grids of 1x1 places of two depths of 3 codes, and of 2x2 places of 2 codes.
TOKENIZERS = {
    "deep": {"quantiser": "codebook:codes=3,start=normal", "depth": 2},
    "flat": {"quantiser": "lfq:bits=1", "stages": 1},
}
PRIOR = {"features": 5, "input_features": 4, "deep_features": 4}
NUM = 4


@functools.cache
def tokenizer_of(kind):
    model = models.build("vqvae", TINY | TOKENIZERS[kind], SPEC)
    params, extra = jax.jit(model.init)(jax.random.key(2))
    return model, params, extra


@functools.cache
def built(kind, conditional=True):
    """The two stages with random parameters, and counts as if after training."""
    model, *frozen = tokenizer_of(kind)
    grid = model.codes.spec
    fields = PRIOR | {"class_conditional": conditional}
    prior = models.build("code_rnn", fields, grid)
    both = two_stage(model, prior, Frozen(*frozen))
    params, extra = jax.jit(both.init)(jax.random.key(3))
    params = jax.tree.map(lambda x: x + 0.3 * jnp.sin(jnp.arange(x.size).reshape(x.shape)), params)
    counts = jnp.arange(grid.channels * grid.levels, dtype=jnp.float32)
    return both, prior, params, {**extra, "counts": counts.reshape(grid.channels, grid.levels)}


def images(num=NUM, seed=0):
    return np.random.default_rng(seed).integers(0, SPEC.levels, (num, *SPEC.shape), np.uint8)


def batch_of(image, key="image"):
    num = len(image)
    return {key: image, "label": np.arange(num, dtype=np.int32) % 2, "index": np.arange(num)}


def grids(spec):
    """All grids of codes."""
    every = itertools.product(range(spec.levels), repeat=spec.dims)
    return np.array(list(every), np.uint8).reshape(-1, *spec.shape)


KINDS = pytest.mark.parametrize("kind", TOKENIZERS)


@KINDS
def test_the_bound_is_below_the_sum_over_all_codes(kind):
    """log p(x) by brute force is above the bound, and is the log-sum over all candidate grids."""
    model, prior, params, extra = built(kind)
    codes, (_, tp, te) = model.codes, tokenizer_of(kind)
    image, every = images(), grids(codes.spec)
    batch = batch_of(image)
    joint, log_prior = [], jax.jit(prior.log_prob)
    for x, label in zip(image, batch["label"], strict=True):
        again = {
            "image": every,
            "label": np.full(len(every), label),
            "index": np.arange(len(every)),
        }
        log_c = np.float64(log_prior(params, {}, again, jax.random.key(0)))
        assert np.exp(log_c).sum() == pytest.approx(1, abs=1e-5)
        log_x = codes.log_likelihood(tp, te, every, np.broadcast_to(x, (len(every), *x.shape)))
        joint.append(log_c + np.float64(log_x))
    whole = np.logaddexp.reduce(np.stack(joint), axis=1)
    bound = np.float64(jax.jit(model.log_prob)(params, extra, batch, jax.random.key(0)))
    assert (bound < whole).all()
    # The bound is the term of the image's own codes.
    own = codes.encode(tp, te, image)
    at = [np.flatnonzero((every == c).all((1, 2, 3)))[0] for c in np.asarray(own)]
    np.testing.assert_allclose(bound, [j[n] for j, n in zip(joint, at, strict=True)], rtol=1e-5)


@KINDS
def test_each_prior_is_a_distribution_over_grids(kind):
    model, _, params, extra = built(kind, False)
    every, image = grids(model.codes.spec), images(1)
    spent = {}
    for name, log_prob in model.log_probs_under.items():
        # The codes of an image are replaced by every grid: what is left is log p(c) + log p(x|c).
        codes = model.codes
        tp, te = extra["tokenizer"]["params"], extra["tokenizer"]["extra"]
        log_x = codes.log_likelihood(tp, te, codes.encode(tp, te, image), image)
        batch = batch_of(image)
        total = jax.jit(log_prob)(params, extra, batch, jax.random.key(0))
        spent[name] = float((total - log_x)[0])
    own = np.asarray(model.codes.encode(*tokenizer_of(kind)[1:], image))[0]
    grid = model.codes.spec
    assert spent["uniform"] == pytest.approx(-grid.dims * np.log(grid.levels), rel=1e-5)
    counts = np.asarray(extra["counts"], np.float64) + 1
    p = counts / counts.sum(-1, keepdims=True)
    depth = np.broadcast_to(np.arange(grid.channels), own.shape)
    assert spent["unigram"] == pytest.approx(np.log(p[depth, own]).sum(), rel=1e-4)
    log_prob = model.log_prob(params, extra, batch_of(image), jax.random.key(0))
    assert spent["recurrent"] == pytest.approx(float((log_prob - log_x)[0]), rel=1e-4)
    even = uniform(grid).log_prob({}, {}, batch_of(every), None)
    assert np.exp(np.float64(even)).sum() == pytest.approx(1, abs=1e-5)


@KINDS
def test_the_tokenizer_is_frozen_and_its_codes_are_counted(kind):
    model, _, params, extra = built(kind)

    def loss(params, extra):
        return model.losses["model"](params, extra, batch_of(images()), jax.random.key(0), 0)

    both = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))
    (_, aux), (of_params, of_extra) = both(params, extra)
    assert sum(float(jnp.abs(leaf).sum()) for leaf in jax.tree.leaves(of_params)) > 0
    for leaf in jax.tree.leaves(of_extra["tokenizer"]):
        np.testing.assert_array_equal(leaf, 0)
    jax.tree.map(np.testing.assert_array_equal, aux.extra["tokenizer"], extra["tokenizer"])
    codes = np.asarray(model.codes.encode(*tokenizer_of(kind)[1:], images()))
    flat = codes.reshape(-1, codes.shape[-1])
    more = np.stack([np.bincount(c, minlength=model.codes.spec.levels) for c in flat.T])
    np.testing.assert_array_equal(aux.extra["counts"] - extra["counts"], more)


def test_without_its_arrays_a_tokenizer_is_no_number():
    """So that one that has not been trained cannot be taken for one that has."""
    model, *_ = tokenizer_of("deep")
    prior = models.build("code_rnn", PRIOR, model.codes.spec)
    params, extra = two_stage(model, prior).init(jax.random.key(0))
    assert all(np.isnan(leaf).all() for leaf in jax.tree.leaves(extra["tokenizer"]))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))


@KINDS
def test_the_terms_of_the_bound_add_up(kind):
    model, _, params, extra = built(kind)
    batch = batch_of(images())
    found = jax.jit(model.latent.inspect)(params, extra, batch, jax.random.key(0))
    bound = jax.jit(model.log_prob)(params, extra, batch, jax.random.key(0))
    np.testing.assert_allclose(found.log_likelihood - found.kl.sum((1, 2)), bound, rtol=1e-5)
    codes = model.codes.encode(*tokenizer_of(kind)[1:], batch["image"])
    np.testing.assert_array_equal(found.codes.reshape(codes.shape), codes)
    latents = model.latent.encode(params, extra, batch["image"])
    assert latents.shape == (NUM, *model.latent.shape)
    np.testing.assert_allclose(found.mean, latents, rtol=1e-6)
    expected = model.codes.likelihood.mean(model.codes.raw(*tokenizer_of(kind)[1:], codes))
    np.testing.assert_allclose(model.latent.decode(params, extra, latents), expected, rtol=1e-6)


@pytest.mark.parametrize("prior", ["row_lstm", "diagonal_bilstm", "pixel_cnn:gated=True"])
def test_any_autoregressive_model_is_a_prior_of_images(prior):
    """Its bound is the term of the image's own codes in the sum over all grids."""
    tokenizer, *frozen = tokenizer_of("deep")
    codes, colon = tokenizer.codes, "," if ":" in prior else ":"
    fields = {"prior": f"{prior}{colon}features=3,layers=1,first_kernel=3,readout_hidden=0"}
    model = models.build("code_prior", fields, codes.spec)
    both = two_stage(tokenizer, model, Frozen(*frozen))
    params, extra = jax.jit(both.init)(jax.random.key(3))
    params = jax.tree.map(lambda x: x + 0.3 * jnp.sin(jnp.arange(x.size).reshape(x.shape)), params)
    every, image = grids(codes.spec), images()
    log_c = jax.jit(model.log_prob)(params, {}, batch_of(every), jax.random.key(0))
    log_c = np.float64(log_c)
    assert np.exp(log_c).sum() == pytest.approx(1, abs=1e-5)
    assert log_c.std() > 0.05
    own = np.asarray(codes.encode(*frozen, image))
    at = [np.flatnonzero((every == c).all((1, 2, 3)))[0] for c in own]
    expected = log_c[at] + np.float64(codes.log_likelihood(*frozen, own, image))
    bound = jax.jit(both.log_prob)(params, extra, batch_of(image), jax.random.key(0))
    np.testing.assert_allclose(bound, expected, rtol=1e-5)
    assert both.name == "code_prior"


@pytest.mark.parametrize(
    ("prior", "said"),
    [
        ("vae", "config.model.prior must be one of diagonal_bilstm, pixel_cnn, pixel_rnn"),
        ("row_lstm:featuers=3", "features"),
        ("row_lstm:features=0", "features must be ≥ 1, got 0"),
        ("row_lstm:kernel=4", "kernel must be odd"),
    ],
)
def test_a_prior_that_cannot_be_is_refused(prior, said):
    with pytest.raises(UserError, match=said):
        models.build("code_prior", {"prior": prior}, SPEC)


def test_samples_follow_the_model():
    """Shares of the pairs of (codes' sum, first pixel) among samples, against the exact ones."""
    model, prior, params, extra = built("deep", False)
    codes, (_, tp, te) = model.codes, tokenizer_of("deep")
    every = grids(codes.spec)
    log_c = prior.log_prob(params, {}, batch_of(every), jax.random.key(0))
    p_c = np.exp(np.float64(log_c))
    p_x = np.exp(np.float64(codes.likelihood.log_probs(codes.raw(tp, te, every))))
    num = 4000
    drawn = np.asarray(
        jax.jit(lambda key: model.sample(params, extra, key, num))(jax.random.key(5))
    )
    assert drawn.dtype == SPEC.dtype
    exact = np.einsum("c,chwkl->hwkl", p_c, p_x)
    shares = (drawn[..., None] == np.arange(SPEC.levels)).mean(0)
    np.testing.assert_allclose(shares, exact, atol=4 * 0.5 / np.sqrt(num))
    # And of pairs of pixels, which depend on one another through the codes alone.
    first = p_x[:, 0, 0, 0, :, None] * p_x[:, 2, 3, 0, None, :]
    pairs = np.einsum("c,cij->ij", p_c, first)
    seen = np.zeros((3, 3))
    np.add.at(seen, (drawn[:, 0, 0, 0], drawn[:, 2, 3, 0]), 1 / num)
    np.testing.assert_allclose(seen, pairs, atol=4 * 0.5 / np.sqrt(num))


def test_completions_approach_the_distribution_given_the_known_pixels():
    model, prior, params, extra = built("deep", False)
    codes, (_, tp, te) = model.codes, tokenizer_of("deep")
    every = grids(codes.spec)
    p_c = np.exp(np.float64(prior.log_prob(params, {}, batch_of(every), jax.random.key(0))))
    p_x = np.exp(np.float64(codes.likelihood.log_probs(codes.raw(tp, te, every))))
    image, known = images(1), np.zeros(SPEC.shape[:2], bool)
    known[1:] = True
    given = np.take_along_axis(p_x, np.int64(image)[..., None].repeat(len(every), 0), -1)[..., 0]
    weight = p_c * given[:, known].prod((1, 2))
    exact = np.einsum("c,cwl->wl", weight / weight.sum(), p_x[:, 0, :, 0])
    num = 1000
    found = jax.jit(functools.partial(model.complete, candidates=30))(
        params, extra, jax.random.key(1), np.repeat(image, num, 0), np.repeat(known[None], num, 0)
    )
    drawn = np.asarray(found.image)
    np.testing.assert_array_equal(drawn[:, known], np.repeat(image, num, 0)[:, known])
    shares = (drawn[:, 0, :, 0, None] == np.arange(SPEC.levels)).mean(0)
    np.testing.assert_allclose(shares, exact, atol=4 * 0.5 / np.sqrt(num))
    assert (found.effective >= 1).all()


def test_the_decoder_is_not_handed_the_image():
    """Images of the same codes have the same reconstruction."""
    model, params, extra = tokenizer_of("flat")
    many = images(64)
    codes = np.asarray(model.codes.encode(params, extra, many)).reshape(64, -1)
    rebuilt = np.asarray(
        model.latent.decode(params, extra, model.latent.encode(params, extra, many))
    )
    for row in np.unique(codes, axis=0):
        same = rebuilt[(codes == row).all(-1)]
        np.testing.assert_allclose(same, same[:1].repeat(len(same), 0), atol=1e-6)
    assert len(np.unique(codes, axis=0)) > 1
