"""Films of codes being drawn, against sums over all grids of codes of a tiny model."""

import itertools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from parameters import moved

from rnngen_jax import models
from rnngen_jax.errors import UserError
from rnngen_jax.evaluation import drawing, sampling
from rnngen_jax.models.levels import packed, prior
from rnngen_jax.models.two_stage import Frozen, two_stage
from rnngen_jax.shapes import ImageSpec

SPEC = ImageSpec(4, 4, levels=3, classes=2)
TOKENIZER = {"quantiser": "lfq:bits=1", "features": 3, "stages": 1, "kernel": 2, "vectors": 3}
TOKENIZER |= {"levels": 2}
PRIOR = {"features": 5, "input_features": 4, "class_conditional": True}
MANY = 1000  # continuations, whose mean is within 4 standard errors of the sum


def build():
    """Two stages with random parameters: 2x2 codes of 2 below a single one."""
    tokenizer = models.build("vqvae", TOKENIZER, SPEC)
    frozen = jax.jit(tokenizer.init)(jax.random.key(2))
    own = models.config_class("code_rnn")(**PRIOR)
    model = two_stage(tokenizer, prior("code_rnn", own, tokenizer.codes.specs), Frozen(*frozen))
    params, extra = jax.jit(model.init)(jax.random.key(3))
    params = moved(params, 0.5)
    return model, params, extra


def expected(model, params, extra, grids, labels):
    """E[x | c_<t] of each t, by sums over all grids, `[F, N, H, W, C]`."""
    codes, num = model.codes, len(labels)
    sizes = [spec.dims for spec in codes.specs]
    flat = np.array(list(itertools.product(range(2), repeat=sum(sizes))), np.uint8)
    parts = zip(np.split(flat, np.cumsum(sizes)[:-1], axis=1), codes.specs, strict=True)
    every = packed([part.reshape(-1, *spec.shape) for part, spec in parts])

    @jax.jit
    def run(params, extra):
        mean = codes.likelihood.mean(codes.raw(*codes.bind(params, extra), every))
        twice = jax.tree.map(lambda grid: jnp.concatenate([grid, grid]), every)
        label = jnp.arange(2 * len(flat)) // len(flat)
        batch = {"image": twice, "label": label, "index": label}
        own = codes.prior.params(params, extra)
        log_c = codes.prior.model.log_prob(own, {}, batch, jax.random.key(0))
        return mean, log_c.reshape(2, -1)

    mean, log_c = (np.float64(x) for x in run(params, extra))
    own = np.concatenate([np.reshape(grid, (num, -1)) for grid in jax.tree.leaves(grids)], axis=1)
    found = []
    for t in range(sum(sizes) + 1):
        for grid, label in zip(own, labels, strict=True):
            weight = np.exp(log_c[label]) * (flat[:, :t] == grid[:t]).all(1)
            found.append(np.tensordot(weight / weight.sum(), mean, 1))
    return np.stack(found).reshape(-1, num, *SPEC.shape)


def test_each_frame_is_what_is_expected_given_the_codes_so_far():
    model, params, extra = build()
    key, labels = jax.random.key(7), np.array([0, 1], np.int32)
    grids = sampling.code_sampler(model)(params, extra, key, 2, labels, 1.0)
    film = drawing.filmer(model, continuations=MANY)(params, extra, key, grids, labels)
    want = expected(model, params, extra, grids, labels)
    assert film.mean.shape == (6, 2, *SPEC.shape)
    error = 4 * want.std(0).max() / MANY**0.5
    assert 1e-4 < error < 0.03
    np.testing.assert_allclose(film.mean, want, atol=error)
    # Labels matter, and all codes leave nothing to draw.
    assert abs(want[0, 0] - want[0, 1]).max() > error
    np.testing.assert_allclose(film.mean[-1], want[-1], atol=1e-5)
    drawn = [known.sum((1, 2)).tolist() for known in film.known]
    assert drawn == [[0, 1, 1, 1, 1, 1], [0, 0, 1, 2, 3, 4]]
    assert [new.sum((1, 2)).tolist() for new in film.new] == [
        [0, 1, 0, 0, 0, 0],
        [0, 0, 1, 1, 1, 1],
    ]
    # The codes are those of the samples of the same seed.
    latents = sampling.prior_sampler(model)(params, extra, key, 2, labels, 1.0)
    vectors = np.concatenate([found.reshape(2, -1, 3) for found in film.vectors], axis=1)
    np.testing.assert_allclose(vectors, latents, atol=1e-6)


def stops_of(model, *specs):
    """`drawing.stops` of a prior, of which it reads no more than the steps."""
    codes = SimpleNamespace(prior=SimpleNamespace(model=model), specs=specs)
    return drawing.stops(codes)


def test_stops_follow_the_order_of_the_prior():
    """Places in the order in which a prior draws them; a row at once where it does."""
    spec = ImageSpec(3, 4, 2, levels=5)

    def known(name, fields):
        (found,) = stops_of(models.build(name, fields, spec), spec)
        return found

    size = {"features": 4, "input_features": 4}
    raster = known("code_rnn", {**size, "deep_features": 4})
    assert raster.shape == (13, 3, 4)
    for t, places in enumerate(raster):
        assert places.reshape(-1).tolist() == [n < t for n in range(12)]
    serpentine = known("pixel_rnn", {**size, "order": "serpentine"})
    assert np.argwhere(serpentine[6] & ~serpentine[5]).tolist() == [[1, 2]]
    rows = known("row_rnn", {"features": 4})
    assert rows.sum((1, 2)).tolist() == [0, 4, 8, 12]


def test_long_films_have_no_frame_for_every_place():
    spec = ImageSpec(11, 20, levels=5)
    size = {"features": 4, "input_features": 4}
    (known,) = stops_of(models.build("code_rnn", size, spec), spec)
    found = known.sum((1, 2))
    assert (len(found), found[0], found[-1]) == (drawing.MOST_FRAMES + 1, 0, 220)
    assert set(np.diff(found)) == {2, 3}


def test_a_model_without_codes_is_refused():
    model = models.build("pixel_rnn", {"features": 4, "input_features": 4}, SPEC)
    with pytest.raises(UserError, match=r"pixel_rnn has no codes for a film; use .* code_rnn"):
        drawing.filmer(model)
