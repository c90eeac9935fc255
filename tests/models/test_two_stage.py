"""VQ-VAEs and priors over their codes, against sums over all grids of codes of a tiny size."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from parameters import moved, wave

from rnngen_jax import models
from rnngen_jax.errors import UserError
from rnngen_jax.models import code_bound
from rnngen_jax.models.frozen import Frozen
from rnngen_jax.models.two_stage import two_stage
from rnngen_jax.models.uniform_prior import uniform
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
LABEL = 1  # of samples and completions
OVER = (1, 5, 10**6)  # grids of codes that bounds are summed over; the last is all of them


@functools.cache
def tokenizer_of(kind):
    model = models.build("vqvae", TINY | TOKENIZERS[kind], SPEC)
    params, extra = jax.jit(model.init)(jax.random.key(2))
    return model, params, extra


@functools.cache
def built(kind):
    """The two stages with random parameters, and counts as if after training."""
    model, *frozen = tokenizer_of(kind)
    grid = model.codes.spec
    prior = models.build("code_rnn", PRIOR | {"class_conditional": True}, grid)
    both = two_stage(model, prior, Frozen(*frozen))
    params, extra = jax.jit(both.init)(jax.random.key(3))
    params = moved(params)
    counts = np.arange(grid.channels * grid.levels, dtype=np.float32)
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


@functools.cache
def facts(kind):
    """What the two stages say of four images, from one program."""
    model, _, params, extra = built(kind)
    codes = model.codes

    @jax.jit
    def run(params, extra, batch):
        key, image = jax.random.key(0), batch["image"]
        tokenizer = extra["tokenizer"]["params"], extra["tokenizer"]["extra"]
        own = codes.encode(*tokenizer, image)
        row = own.reshape(NUM, 1, -1, 1)
        latents = model.latent.encode(params, extra, image)
        return {
            "codes": own,
            "log_x": codes.log_likelihood(*tokenizer, own, image),
            "mean": codes.likelihood.mean(codes.raw(*tokenizer, own)),
            "log_prob": model.log_prob(params, extra, batch, key),
            "over": [model.log_prob_over(params, extra, batch, key, count) for count in OVER],
            "under": {
                name: log_prob(params, extra, batch, key)
                for name, log_prob in model.log_probs_under.items()
            },
            "lossy": model.lossy.encode(params, extra, image),
            "row": model.lossy.rows.log_prob(params, extra, {**batch, "image": row}, key),
            "rebuilt": model.lossy.decode(params, extra, row),
            "inspected": model.latent.inspect(params, extra, batch, key),
            "latents": latents,
            "decoded": model.latent.decode(params, extra, latents),
        }

    return run(params, extra, batch_of(images()))


@functools.cache
def exact(kind):
    """p(c) of every grid, and p(x|c) of every pixel's values, all of one class."""
    model, prior, params, _ = built(kind)
    every = grids(model.codes.spec)
    batch = {**batch_of(every), "label": np.full(len(every), LABEL)}

    @jax.jit
    def run(params, *tokenizer):
        log_c = prior.log_prob(params, {}, batch, jax.random.key(0))
        return log_c, model.codes.likelihood.log_probs(model.codes.raw(*tokenizer, every))

    return tuple(np.exp(np.float64(x)) for x in run(params, *tokenizer_of(kind)[1:]))


KINDS = pytest.mark.parametrize("kind", TOKENIZERS)


@KINDS
def test_the_bound_is_below_the_sum_over_all_codes(kind):
    """log p(x) by brute force is above the bound, and is the log-sum over all candidate grids."""
    model, prior, params, _ = built(kind)
    codes, (_, tp, te) = model.codes, tokenizer_of(kind)
    image, every = images(), grids(codes.spec)
    batch = batch_of(image)

    @jax.jit
    def joint_of(params, x, label):
        again = {**batch_of(every), "label": jnp.full(len(every), label)}
        log_c = prior.log_prob(params, {}, again, jax.random.key(0))
        return log_c, codes.log_likelihood(
            tp, te, every, jnp.broadcast_to(x, (len(every), *x.shape))
        )

    joint = []
    for x, label in zip(image, batch["label"], strict=True):
        log_c, log_x = map(np.float64, joint_of(params, x, label))
        assert np.exp(log_c).sum() == pytest.approx(1, abs=1e-5)
        joint.append(log_c + log_x)
    whole = np.logaddexp.reduce(np.stack(joint), axis=1)
    bound = np.float64(facts(kind)["log_prob"])
    assert (bound < whole).all()
    # The bound over grids near the image's own rises from it to the sum over all of them.
    over = np.float64(facts(kind)["over"])
    np.testing.assert_array_equal(over[0], bound)
    assert (np.diff(over, axis=0) > 0).all()
    np.testing.assert_allclose(over[-1], whole, rtol=1e-6)
    # The bound is the term of the image's own codes.
    at = [np.flatnonzero((every == c).all((1, 2, 3)))[0] for c in np.asarray(facts(kind)["codes"])]
    np.testing.assert_allclose(bound, [j[n] for j, n in zip(joint, at, strict=True)], rtol=1e-5)


@KINDS
def test_candidates_are_distinct_and_more_of_them_hold_fewer(kind):
    """The image's own codes come first, then grids that cost the encoder ever more."""
    model, *frozen = tokenizer_of(kind)
    grid, image = model.codes.spec, images()
    every = grid.levels**grid.dims

    @jax.jit
    def run(image):
        find = functools.partial(model.codes.alternatives, *frozen)
        found = [code_bound.candidates(find, image, count)[0] for count in (3, 10**9)]
        return found, find(image, 10**9)[0], model.codes.encode(*frozen, image)

    (few, all_of_them), alternatives, own = run(image)
    assert all_of_them.shape == (every, NUM, *grid.shape)
    np.testing.assert_array_equal(all_of_them[0], own)
    np.testing.assert_array_equal(few, all_of_them[:3])
    indices, costs = (np.asarray(x) for x in alternatives)
    at = (np.asarray(all_of_them)[..., None, :] == indices).all(-1)  # [S, B, h, w, M]
    assert (at.sum(-1) == 1).all()
    spent = (at * costs).sum((2, 3, 4))
    assert (np.diff(spent, axis=0) >= -1e-6).all()
    for n in range(NUM):
        assert len(np.unique(all_of_them[:, n].reshape(every, -1), axis=0)) == every


@KINDS
def test_each_prior_is_a_distribution_over_grids(kind):
    model, _, _, extra = built(kind)
    found, grid = facts(kind), model.codes.spec
    # What is left without log p(x|c) is log p(c).
    spent = {name: np.float64(under - found["log_x"]) for name, under in found["under"].items()}
    own = np.asarray(found["codes"])
    np.testing.assert_allclose(spent["uniform"], -grid.dims * np.log(grid.levels), rtol=1e-5)
    counts = np.asarray(extra["counts"], np.float64) + 1
    p = counts / counts.sum(-1, keepdims=True)
    depth = np.broadcast_to(np.arange(grid.channels), own.shape)
    np.testing.assert_allclose(spent["unigram"], np.log(p[depth, own]).sum((1, 2, 3)), rtol=1e-4)
    np.testing.assert_allclose(
        spent["recurrent"], found["log_prob"] - found["log_x"], rtol=1e-4, atol=1e-5
    )
    assert model.log_probs_under["recurrent"] is model.log_prob
    even = uniform(grid).log_prob({}, {}, batch_of(grids(grid)), None)
    assert np.exp(np.float64(even)).sum() == pytest.approx(1, abs=1e-5)


@KINDS
def test_codes_alone_are_those_of_the_image_under_the_prior(kind):
    """And what comes back of them is the mean of the decoder's distribution."""
    found, model = facts(kind), built(kind)[0]
    np.testing.assert_array_equal(found["lossy"], found["codes"].reshape(NUM, 1, -1, 1))
    np.testing.assert_array_equal(found["rebuilt"], found["mean"])
    np.testing.assert_allclose(found["row"] + found["log_x"], found["log_prob"], rtol=1e-5)
    assert model.lossy.rows.spec.shape == found["lossy"].shape[1:]
    assert [stage.spec for stage in model.lossy.rows.stages] == [model.codes.spec]


def test_the_tokenizer_is_frozen_and_its_codes_are_counted():
    kind = "deep"  # whose codes follow the data, where those of "flat" are a lattice
    model, _, params, extra = built(kind)

    def loss(params, extra):
        return model.losses["model"](params, extra, batch_of(images()), jax.random.key(0), 0)

    both = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))
    (_, aux), (of_params, of_extra) = both(params, extra)
    assert sum(np.abs(leaf).sum() for leaf in jax.tree.leaves(of_params)) > 0
    for leaf in jax.tree.leaves(of_extra["tokenizer"]):
        np.testing.assert_array_equal(leaf, 0)
    jax.tree.map(np.testing.assert_array_equal, aux.extra["tokenizer"], extra["tokenizer"])
    codes = np.asarray(facts(kind)["codes"])
    flat = codes.reshape(-1, codes.shape[-1])
    more = np.stack([np.bincount(c, minlength=model.codes.spec.levels) for c in flat.T])
    np.testing.assert_array_equal(aux.extra["counts"] - extra["counts"], more)


def test_without_its_arrays_a_tokenizer_is_no_number():
    """So that one that has not been trained cannot be taken for one that has."""
    model, *_ = tokenizer_of("deep")
    prior = models.build("code_rnn", PRIOR, model.codes.spec)
    both = two_stage(model, prior)
    found = jax.jit(lambda key: both.init(key)[1]["tokenizer"])(jax.random.key(0))
    assert jax.tree.structure(found) == jax.tree.structure(built("deep")[3]["tokenizer"])
    assert all(np.isnan(leaf).all() for leaf in jax.tree.leaves(found))


@KINDS
def test_the_terms_of_the_bound_add_up(kind):
    model, found = built(kind)[0], facts(kind)
    inspected, codes = found["inspected"], found["codes"]
    added = inspected.log_likelihood - inspected.kl.sum((1, 2))
    np.testing.assert_allclose(added, found["log_prob"], rtol=1e-5)
    np.testing.assert_array_equal(inspected.codes.reshape(codes.shape), codes)
    assert found["latents"].shape == (NUM, *model.latent.shape)
    np.testing.assert_allclose(inspected.mean, found["latents"], rtol=1e-6)
    np.testing.assert_allclose(found["decoded"], found["mean"], rtol=1e-6)


@pytest.mark.parametrize("prior", ["row_lstm", "diagonal_bilstm", "pixel_cnn:gated=True"])
def test_any_autoregressive_model_is_a_prior_of_images(prior):
    """Its bound is the term of the image's own codes in the sum over all grids."""
    tokenizer, *frozen = tokenizer_of("deep")
    codes, colon = tokenizer.codes, "," if ":" in prior else ":"
    fields = {"prior": f"{prior}{colon}features=3,layers=1,first_kernel=3,readout_hidden=0"}
    model = models.build("code_prior", fields, codes.spec)
    both = two_stage(tokenizer, model, Frozen(*frozen))
    every, image = grids(codes.spec), images()

    @jax.jit
    def run(image):
        params, extra = both.init(jax.random.key(3))
        params = jax.tree.map(lambda x: x + 0.3 * wave(x.shape), params)
        log_c = model.log_prob(params, {}, batch_of(every), jax.random.key(0))
        own = codes.encode(*frozen, image)
        log_x = codes.log_likelihood(*frozen, own, image)
        return log_c, own, log_x, both.log_prob(params, extra, batch_of(image), jax.random.key(0))

    log_c, own, log_x, bound = map(np.asarray, run(image))
    log_c = np.float64(log_c)
    assert np.exp(log_c).sum() == pytest.approx(1, abs=1e-5)
    assert log_c.std() > 0.05
    at = [np.flatnonzero((every == c).all((1, 2, 3)))[0] for c in own]
    np.testing.assert_allclose(bound, log_c[at] + log_x, rtol=1e-5)
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
    model, _, params, extra = built("deep")
    p_c, p_x = exact("deep")
    num = 4000
    draw = jax.jit(functools.partial(model.sample, num=num, label=np.full(num, LABEL)))
    drawn = np.asarray(draw(params, extra, jax.random.key(5)))
    assert drawn.dtype == SPEC.dtype
    wanted = np.einsum("c,chwkl->hwkl", p_c, p_x)
    shares = (drawn[..., None] == np.arange(SPEC.levels)).mean(0)
    np.testing.assert_allclose(shares, wanted, atol=4 * 0.5 / np.sqrt(num))
    # And of pairs of pixels, which depend on one another through the codes alone.
    first = p_x[:, 0, 0, 0, :, None] * p_x[:, 2, 3, 0, None, :]
    pairs = np.einsum("c,cij->ij", p_c, first)
    seen = np.zeros((3, 3))
    np.add.at(seen, (drawn[:, 0, 0, 0], drawn[:, 2, 3, 0]), 1 / num)
    np.testing.assert_allclose(seen, pairs, atol=4 * 0.5 / np.sqrt(num))


def test_completions_approach_the_distribution_given_the_known_pixels():
    model, _, params, extra = built("deep")
    p_c, p_x = exact("deep")
    image, known = images(1), np.zeros(SPEC.shape[:2], bool)
    known[1:] = True
    given = np.take_along_axis(p_x, np.int64(image)[..., None].repeat(len(p_c), 0), -1)[..., 0]
    weight = p_c * given[:, known].prod((1, 2))
    wanted = np.einsum("c,cwl->wl", weight / weight.sum(), p_x[:, 0, :, 0])
    num = 1000
    complete = functools.partial(model.complete, candidates=30, label=np.full(num, LABEL))
    found = jax.jit(complete)(
        params, extra, jax.random.key(1), np.repeat(image, num, 0), np.repeat(known[None], num, 0)
    )
    drawn = np.asarray(found.image)
    np.testing.assert_array_equal(drawn[:, known], np.repeat(image, num, 0)[:, known])
    shares = (drawn[:, 0, :, 0, None] == np.arange(SPEC.levels)).mean(0)
    np.testing.assert_allclose(shares, wanted, atol=4 * 0.5 / np.sqrt(num))
    assert (found.effective >= 1).all()


def test_the_decoder_is_not_handed_the_image():
    """Images of the same codes have the same reconstruction."""
    model, params, extra = tokenizer_of("flat")
    many = images(64)

    @jax.jit
    def run(params, extra):
        codes = model.codes.encode(params, extra, many)
        latents = model.latent.encode(params, extra, many)
        return codes.reshape(64, -1), model.latent.decode(params, extra, latents)

    codes, rebuilt = map(np.asarray, run(params, extra))
    for row in np.unique(codes, axis=0):
        same = rebuilt[(codes == row).all(-1)]
        np.testing.assert_allclose(same, same[:1].repeat(len(same), 0), atol=1e-6)
    assert len(np.unique(codes, axis=0)) > 1
