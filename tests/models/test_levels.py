"""Codes of two levels, against sums over all pairs of grids of a tiny size."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rnngen_jax import models
from rnngen_jax.errors import UserError
from rnngen_jax.models import levels
from rnngen_jax.models.two_stage import Frozen, two_stage
from rnngen_jax.shapes import ImageSpec

SPEC = ImageSpec(4, 4, levels=3, classes=2)
# A top of one place and a bottom of 2x2, of two codes each.
FIELDS = {
    "features": 3,
    "stages": 1,
    "kernel": 2,
    "blocks": 1,
    "vectors": 3,
    "levels": 2,
    "quantiser": "lfq:bits=1",
}
PRIOR = {"features": 5, "input_features": 4, "deep_features": 4, "class_conditional": True}
NUM = 4
# Grids of two depths for the prior alone.
TOP, BOTTOM = ImageSpec(2, 3, 2, 3, 2), ImageSpec(4, 5, 2, 3, 2)


def drawn_for(model):
    """Parameters at which everything matters."""
    shapes = jax.eval_shape(model.init, jax.random.key(0))[0]
    rng = np.random.default_rng(3)
    return jax.tree.map(lambda x: rng.normal(0, 0.6, x.shape).astype(np.float32), shapes)


@functools.cache
def tokenizer():
    model = models.build("vqvae", FIELDS, SPEC)
    return model, drawn_for(model), jax.jit(lambda key: model.init(key)[1])(jax.random.key(2))


@functools.cache
def built():
    """The two stages with random parameters, and counts as if after training."""
    model, *frozen = tokenizer()
    config = models.config_class("code_rnn")(**PRIOR)
    prior = levels.prior("code_rnn", config, model.codes.specs)
    both = two_stage(model, prior, Frozen(*frozen))
    counts = tuple(np.arange(2, dtype=np.float32)[None] + n for n in range(2))
    own = dict(zip(("params", "extra"), frozen, strict=True))
    return both, prior, drawn_for(prior), {"tokenizer": own, "counts": counts}


@functools.cache
def pair(around):
    """A prior over larger grids, its parameters, and a top and a bottom."""
    config = models.config_class("code_rnn")(**{**PRIOR, "around": around})
    model = levels.prior("code_rnn", config, (TOP, BOTTOM))
    rng = np.random.default_rng(5)
    grids = [rng.integers(0, 3, (2, *spec.shape)).astype(np.uint8) for spec in (TOP, BOTTOM)]
    return model, drawn_for(model), tuple(grids)


def images(num=NUM):
    return np.random.default_rng(0).integers(0, SPEC.levels, (num, *SPEC.shape), np.uint8)


def batch_of(image, label=None):
    num = len(jax.tree.leaves(image)[0])
    label = np.arange(num, dtype=np.int32) % 2 if label is None else label
    return {"image": image, "label": label, "index": np.arange(num)}


def all_grids(specs):
    """All pairs of grids, as a pair of arrays."""
    sizes = [spec.dims for spec in specs]
    every = np.array(list(itertools.product(range(2), repeat=sum(sizes))), np.uint8)
    parts = np.split(every, np.cumsum(sizes)[:-1], axis=1)
    return tuple(part.reshape(-1, *spec.shape) for part, spec in zip(parts, specs, strict=True))


@functools.cache
def facts():
    """What the two stages say of four images, and the joint density of all their codes."""
    model, prior, params, extra = built()
    codes, every = model.codes, all_grids(model.codes.specs)
    labels = np.repeat(np.arange(2, dtype=np.int32), len(every[0]))

    def twice(grid):
        return jnp.concatenate([grid, grid])

    @jax.jit
    def run(params, extra, batch):
        key, image = jax.random.key(0), batch["image"]
        own = extra["tokenizer"]["params"], extra["tokenizer"]["extra"]
        found = codes.encode(*own, image)
        latents = model.latent.encode(params, extra, image)
        log_p = codes.likelihood.log_probs(codes.raw(*own, every))  # of all grey levels
        shown = image[:, None, ..., None].astype(jnp.int32)
        log_x = jnp.take_along_axis(log_p[None], shown, -1).sum((2, 3, 4, 5))
        log_c = prior.log_prob(params, {}, batch_of(tuple(map(twice, every)), labels), key)
        return {
            "codes": found,
            "log_x": codes.log_likelihood(*own, found, image),
            "mean": codes.likelihood.mean(codes.raw(*own, found)),
            "log_prob": model.log_prob(params, extra, batch, key),
            "under": {
                name: log_prob(params, extra, batch, key)
                for name, log_prob in model.log_probs_under.items()
                if log_prob is not None  # the model's own
            },
            "inspected": model.latent.inspect(params, extra, batch, key),
            "latents": latents,
            "decoded": model.latent.decode(params, extra, latents),
            "every": (log_c.reshape(2, -1), log_x),
        }

    return run(params, extra, batch_of(images()))


def test_the_bound_is_below_the_sum_over_all_codes_of_both_levels():
    log_c, log_x = (np.float64(x) for x in facts()["every"])
    np.testing.assert_allclose(np.exp(log_c).sum(1), 1, atol=1e-5)
    joint = log_c[np.arange(NUM) % 2] + log_x
    bound = np.float64(facts()["log_prob"])
    assert (bound < np.logaddexp.reduce(joint, axis=1)).all()
    # The bound is the term of the image's own codes.
    every = np.concatenate([x.reshape(len(x), -1) for x in all_grids(built()[0].codes.specs)], 1)
    own = np.concatenate([x.reshape(NUM, -1) for x in facts()["codes"]], 1)
    at = [np.flatnonzero((every == c).all(1))[0] for c in own]
    np.testing.assert_allclose(bound, joint[np.arange(NUM), at], rtol=1e-5)
    assert len(np.unique(own, axis=0)) > 1


def test_each_row_is_the_sum_over_levels():
    model, _, _, extra = built()
    found = facts()
    spent = {name: np.float64(under - found["log_x"]) for name, under in found["under"].items()}
    np.testing.assert_allclose(spent["uniform"], -5 * np.log(2), rtol=1e-5)
    unigram = 0
    for counts, own in zip(extra["counts"], found["codes"], strict=True):
        p = (np.float64(counts) + 1) / (np.float64(counts) + 1).sum(-1, keepdims=True)
        unigram = unigram + np.log(p[0, np.asarray(own)]).sum((1, 2, 3))
    np.testing.assert_allclose(spent["unigram"], unigram, rtol=1e-4)
    assert model.log_probs_under["recurrent"] is model.log_prob
    assert model.codes.dims == 5


def test_the_terms_of_the_bound_add_up():
    model, found = built()[0], facts()
    inspected = found["inspected"]
    added = inspected.log_likelihood - inspected.kl.sum((1, 2))
    np.testing.assert_allclose(added, found["log_prob"], rtol=1e-5)
    for flat, grid in zip(inspected.codes, found["codes"], strict=True):
        np.testing.assert_array_equal(flat.reshape(grid.shape), grid)
    assert found["latents"].shape == (NUM, *model.latent.shape) == (NUM, 5, 3)
    np.testing.assert_allclose(inspected.mean, found["latents"], rtol=1e-6)
    np.testing.assert_allclose(found["decoded"], found["mean"], rtol=1e-6)


@pytest.mark.parametrize("around", [0, 1])
def test_the_bottom_sees_the_top_around_it_and_its_own_earlier_codes(around):
    """Which conditionals change, to the bit, when one code changes."""
    model, params, (top, bottom) = pair(around)
    run = jax.jit(model.conditionals)

    def changed(level, at):
        grids = [top.copy(), bottom.copy()]
        flat = grids[level].reshape(2, -1)
        flat[:, at] = (flat[:, at] + 1) % 3
        again = run(params, {}, tuple(grids), np.zeros(2, np.int32))
        flags = [np.any(new != old, (0, -1)) for new, old in zip(again, before, strict=True)]
        return flags[0].ravel(), flags[1].ravel()

    before = run(params, {}, (top, bottom), np.zeros(2, np.int32))
    rows, columns = np.divmod(np.arange(20), 5)
    for at in range(12):
        above, below = changed(0, at)
        np.testing.assert_array_equal(above, np.arange(12) > at)
        row, column = divmod(at // 2, 3)
        # A place of the top covers two by two of the bottom.
        near = np.maximum(abs(rows // 2 - row), abs(columns // 2 - column)) <= around
        seen = np.maximum.accumulate(near)  # at the place, or at an earlier one
        np.testing.assert_array_equal(below, np.repeat(seen, 2))
    for at in range(40):
        above, below = changed(1, at)
        assert not above.any()
        np.testing.assert_array_equal(below, np.arange(40) > at)


SMALL = "features=3,layers=1,first_kernel=3,readout_hidden=0"
BOTTOMS = {
    "code_rnn": {**PRIOR},
    "row_lstm": {"prior": f"row_lstm:{SMALL}"},
    "diagonal_bilstm": {"prior": f"diagonal_bilstm:order=column,{SMALL}"},
    "pixel_cnn": {"prior": f"pixel_cnn:gated=True,order=reverse,{SMALL}"},
}


@pytest.mark.parametrize("name", BOTTOMS)
def test_steps_are_the_conditionals_given_the_top(name):
    """The bottom's raw outputs step by step, as sampler and coder have them, and all at once."""
    kind = "code_rnn" if name == "code_rnn" else "code_prior"
    config = models.config_class(kind)(**BOTTOMS[name])
    top, bottom = TOP._replace(height=1, width=2), BOTTOM._replace(height=2, width=3)
    part = models.level_builder(kind)(config, bottom, levels.coarser(top, bottom, 0))
    params, rng = drawn_for(part(np.zeros((1, *top.shape), np.uint8))), np.random.default_rng(1)
    above, below = (rng.integers(0, 3, (2, *spec.shape)).astype(np.uint8) for spec in (top, bottom))

    @jax.jit
    def run(params, above, below):
        model, label = part(above), np.array([0, 1], np.int32)
        known = np.ones((2, 2, 3), bool)
        same, stepped = model.walk(params, {}, jax.random.key(0), below, known, label)
        return same, stepped, model.conditionals(params, {}, below, label)

    same, stepped, parallel = run(params, above, below)
    np.testing.assert_array_equal(same, below)
    np.testing.assert_allclose(stepped, parallel, atol=1e-5)
    above[:, 0, 1] = (above[:, 0, 1] + 1) % 3
    changed = np.any(run(params, above, below)[2] != parallel, (0, 3, 4))
    assert changed[:, 2].all()  # what the second code of the top covers
    first = {"diagonal_bilstm": np.s_[:, :2], "pixel_cnn": np.s_[2:, :]}.get(name, np.s_[0, :2])
    assert not changed[first].any()  # what comes before in the order


def test_samples_follow_the_prior():
    """Shares of all pairs of grids, against the exact ones."""
    model, prior, params, _ = built()
    num = 6000
    label = np.zeros(num, np.int32)
    drawn = jax.jit(lambda p, key: prior.sample(p, {}, key, num, label))(params, jax.random.key(5))
    flat = np.concatenate([np.asarray(x).reshape(num, -1) for x in drawn], 1)
    number = flat.astype(int) @ 2 ** np.arange(5)[::-1]
    shares = np.bincount(number, minlength=32) / num
    wanted = np.exp(np.float64(facts()["every"][0][0]))
    np.testing.assert_allclose(shares, wanted, atol=4 * np.sqrt(wanted.max() / num))
    assert all(x.dtype == s.dtype for x, s in zip(drawn, model.codes.specs, strict=True))


def test_codes_decode_to_the_quantised_vectors_and_both_levels_are_read():
    model, params, extra = tokenizer()
    codes, image = model.codes, images()

    @jax.jit
    def run(params, extra):
        found = codes.encode(params, extra, image)
        vectors = codes.vectors(params, extra, found)
        back = codes.from_latents(codes.latents(vectors))

        def total(vectors):
            return jnp.square(codes.decode(params, extra, vectors)).sum()

        return vectors, back, jax.grad(total)(vectors), codes.decode(params, extra, vectors)

    vectors, back, gradient, _ = run(params, extra)
    jax.tree.map(np.testing.assert_array_equal, back, vectors)
    assert all(np.abs(leaf).max() > 0 for leaf in gradient)


def test_a_training_step_moves_both_codebooks_in_one_reduction():
    fields = FIELDS | {"quantiser": "codebook:codes=3,start=normal"}
    model = models.build("vqvae", fields, SPEC)
    params, extra = drawn_for(model), jax.jit(lambda key: model.init(key)[1])(jax.random.key(0))

    def step(params, extra):
        value, aux = model.losses["model"](params, extra, batch_of(images()), jax.random.key(0), 0)
        return value, aux

    grad = jax.jit(jax.value_and_grad(step, has_aux=True))
    (value, aux), of_params = grad(params, extra)
    names = ("top", "bottom")
    for name in names:
        moved = aux.extra["quantiser"][name]["codes"] - extra["quantiser"][name]["codes"]
        assert np.abs(moved).max() > 0
    commitments = [aux.metrics[f"quantiser/{name}/commitment"] for name in names]
    loss = aux.metrics["reconstruction_nats"] / SPEC.dims + sum(commitments)
    assert float(value) == pytest.approx(float(loss), rel=1e-6)
    uniform = aux.metrics["nats_per_image"] - aux.metrics["reconstruction_nats"]
    assert float(uniform) == pytest.approx(5 * np.log(3), rel=1e-5)
    for network in ("features", "top", "bottom", "decoder"):
        leaves = jax.tree.leaves(of_params["model"][network])
        assert all(np.abs(leaf).max() > 0 for leaf in leaves)
    sharded = jax.make_jaxpr(step, axis_env=[("data", 8)])(params, extra)
    assert str(sharded).count(" psum") == 1


def test_what_has_no_second_level_is_refused():
    with pytest.raises(UserError, match=r"config.model.levels must be 1 or 2, got 3"):
        models.build("vqvae", FIELDS | {"levels": 3}, SPEC)
    with pytest.raises(UserError, match=r"levels must be 1 for grids of 1x1 codes, got 2"):
        models.build("vqvae", FIELDS | {"stages": 2}, SPEC)
    model, *_ = tokenizer()
    config = models.config_class("code_prior")(prior="pixel_rnn")
    said = r"prior must be one of diagonal_bilstm, pixel_cnn, row_lstm for codes of two levels, got"
    with pytest.raises(UserError, match=said):
        levels.prior("code_prior", config, model.codes.specs)
    with pytest.raises(UserError, match="row_rnn is a prior over one grid of codes"):
        levels.prior("row_rnn", models.config_class("row_rnn")(), model.codes.specs)
    with pytest.raises(UserError, match=r"has 2 \(top and bottom\)"):
        _ = model.codes.spec
