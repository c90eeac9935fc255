"""The bound over several grids of codes, of two levels, against the sum over all grids."""

import functools
import itertools

import jax
import numpy as np

from rnngen_jax import models
from rnngen_jax.models import code_bound
from rnngen_jax.shapes import ImageSpec

SPEC = ImageSpec(4, 4, levels=3)
# A top of one code and a bottom of 2x2, of two codes each.
FIELDS = {"features": 3, "stages": 1, "kernel": 2, "vectors": 3, "levels": 2}


def test_the_bound_over_all_grids_of_two_levels_is_the_sum_over_them():
    model = models.build("vqvae", FIELDS | {"quantiser": "lfq:bits=1"}, SPEC)
    params, extra = jax.jit(model.init)(jax.random.key(1))
    image = np.random.default_rng(0).integers(0, 3, (3, *SPEC.shape), np.uint8)
    every = np.array(list(itertools.product(range(2), repeat=5)), np.uint8)
    grids = every[:, :1].reshape(-1, 1, 1, 1), every[:, 1:].reshape(-1, 2, 2, 1)

    @jax.jit
    def run(params, extra, image):
        batch = {"image": image, "label": np.zeros(3, np.int32), "index": np.arange(3)}
        bounds = [model.log_prob(params, extra, batch, None)]
        bounds += [model.log_prob_over(params, extra, batch, None, n) for n in (1, 6, 100)]
        raw = model.codes.raw(params, extra, grids)
        find = functools.partial(model.codes.alternatives, params, extra)
        found = code_bound.candidates(find, image, 100)
        return bounds, model.codes.likelihood.log_probs(raw), found

    bounds, log_p, (top, bottom) = run(params, extra, image)
    picked = np.take_along_axis(np.float64(log_p)[None], np.int64(image)[:, None, ..., None], -1)
    whole = np.logaddexp.reduce(picked.sum((2, 3, 4, 5)), axis=1) - 5 * np.log(2)
    own, *over = np.float64(bounds)
    np.testing.assert_array_equal(over[0], own)
    assert (np.diff(over, axis=0) > 0).all()
    np.testing.assert_allclose(over[-1], whole, rtol=1e-6)
    flat = np.concatenate([np.reshape(top, (32, 3, 1)), np.reshape(bottom, (32, 3, 4))], -1)
    for n in range(3):
        assert len(np.unique(flat[:, n], axis=0)) == 32
