"""Draws of categories follow their probabilities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from rnngen_jax.ops import draws

draw = jax.jit(draws.categorical)


@pytest.mark.parametrize("count", [1, 2, 3, 16, 17, 37, 300])
def test_draws_follow_the_probabilities(count):
    """Of each category, blocks included that are not full, and none of probability 0."""
    rng = np.random.default_rng(count)
    logits = rng.standard_normal((2, count)).astype(np.float32)
    logits[:, rng.permutation(count)[: count // 3]] = -np.inf
    num = 20_000
    found = np.asarray(draw(jax.random.key(1), jnp.broadcast_to(logits, (num, 2, count))))
    assert found.dtype == np.int32
    for row, drawn in zip(np.float64(logits), found.T, strict=True):
        counts = np.bincount(drawn, minlength=count)
        p = np.exp(row - np.logaddexp.reduce(row))
        assert counts[p == 0].sum() == 0
        seen = p > 0
        if seen.sum() > 1:
            assert stats.chisquare(counts[seen], num * p[seen]).pvalue > 1e-3


def test_draws_of_different_rows_are_independent():
    pairs = draw(jax.random.key(0), jnp.zeros((20_000, 2, 25)))
    counts = np.zeros((25, 25))
    np.add.at(counts, tuple(np.asarray(pairs).T), 1)
    assert stats.chisquare(counts.ravel()).pvalue > 1e-3


def test_a_rare_category_is_drawn_as_often_as_it_should_be():
    """Beside one that takes all the rest, in the same block and in another."""
    num, p = 2**19, 2e-5
    for other in (4, 16):
        logits = np.full(17, -np.inf, np.float32)
        logits[other], logits[5] = 0.0, np.log(p)
        found = draw(jax.random.key(2), jnp.broadcast_to(jnp.asarray(logits), (num, 17)))
        least, most = stats.poisson(num * p).interval(0.999)
        assert least <= int((found == 5).sum()) <= most


def test_equal_keys_draw_equal_categories_and_others_others():
    logits = jnp.zeros((50, 40))
    one = draw(jax.random.key(0), logits)
    np.testing.assert_array_equal(one, draw(jax.random.key(0), logits))
    assert (one != draw(jax.random.key(1), logits)).mean() > 0.9
