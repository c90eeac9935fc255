"""Distributions of codes of several values, against sums over digits in NumPy."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from rnngen_jax.ops import factorised

LEVELS = (3, 2, 4)
T = (1.0, 0.5)
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module", params=[True, False], ids=["chained", "independent"])
def made(request):
    """The distribution, outputs for three codes, and what its one program says of all codes."""
    head = factorised.heads(LEVELS, request.param)
    raw = np.float32(1.5 * RNG.standard_normal((3, head.size)))

    @jax.jit
    def run(raw):
        every = jnp.broadcast_to(jnp.arange(24)[:, None], (24, 3))
        each, cold = (jax.vmap(lambda value, t=t: head.log_prob(raw, value, t))(every) for t in T)
        keys = jax.random.split(jax.random.key(1), 4000)
        drawn = jax.vmap(lambda key: head.draw(key, raw, 0.5))(keys)
        return head.log_probs(raw), each.T, cold.T, head.mean(raw), drawn

    return request.param, head, raw, [np.asarray(x) for x in run(raw)]


def by_hand(raw, chained):
    """log p of all codes of one row of outputs, float64 `[24]`, digit by digit."""
    a = np.split(raw[:9], [3, 5])
    pairs, at = {}, 9
    for d in range(3):
        for j in range(d if chained else 0):
            size = LEVELS[j] * LEVELS[d]
            pairs[j, d] = raw[at : at + size].reshape(LEVELS[j], LEVELS[d])
            at += size
    assert at == len(raw)
    found = np.zeros(24)
    for digits in itertools.product(*map(range, LEVELS)):
        log_p = 0.0
        for d, digit in enumerate(digits):
            logits = a[d] + sum(pairs[j, d][digits[j]] for j in range(d) if chained)
            log_p += special.log_softmax(np.float64(logits))[digit]
        found[digits[0] + 3 * digits[1] + 6 * digits[2]] = log_p
    return found


def test_the_probabilities_are_the_products_over_digits(made):
    chained, _, raw, (every, each, cold, mean, _) = made
    wanted = np.stack([by_hand(row, chained) for row in raw])
    np.testing.assert_allclose(np.exp(wanted).sum(-1), 1, atol=1e-12)
    np.testing.assert_allclose(every, wanted, atol=2e-6)
    np.testing.assert_allclose(each, wanted, atol=2e-6)
    np.testing.assert_allclose(cold, special.log_softmax(2 * wanted, -1), atol=4e-6)
    np.testing.assert_allclose(mean, np.exp(wanted) @ np.arange(24) / 23, atol=1e-6)


def test_draws_follow_the_probabilities(made):
    _, _, _, (_, _, cold, _, drawn) = made
    for row, column in zip(cold, drawn.T, strict=True):
        wanted = 4000 * np.exp(np.float64(row))
        often = wanted > 5
        counts = np.bincount(column, minlength=24)
        counts, wanted = (np.append(x[often], x[~often].sum()) for x in (counts, wanted))
        assert stats.chisquare(counts, wanted * counts.sum() / wanted.sum()).pvalue > 1e-3


def test_they_take_far_fewer_outputs_than_codes():
    assert factorised.heads((2,) * 9, False).size == 18
    assert factorised.heads((2,) * 9, True).size == 18 + 36 * 4
    assert factorised.heads((8, 5, 5, 5), True).size == 23 + 3 * 40 + 3 * 25
