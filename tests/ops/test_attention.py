"""Scores and weighted means against the equations in float64, example by example."""

import jax
import jax.numpy as jnp
import numpy as np

from rnngen_jax.ops import attention

S, B, D = 5, 3, 4


def drawn(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def test_scores_are_those_of_the_equations():
    query, keys, weights = drawn(B, D), drawn(S, B, D, seed=1), drawn(D, seed=2)
    additive, dot = np.zeros((S, B)), np.zeros((S, B))
    for s in range(S):
        for b in range(B):
            additive[s, b] = np.dot(weights, np.tanh(query[b] + keys[s, b]))
            dot[s, b] = np.dot(query[b], keys[s, b]) / np.sqrt(D)
    with jax.enable_x64(True):
        query, keys, weights = map(jnp.asarray, (query, keys, weights))
        got = attention.additive(query, keys, weights), attention.dot(query, keys)
    np.testing.assert_allclose(got[0], additive, rtol=1e-12)
    np.testing.assert_allclose(got[1], dot, rtol=1e-12)
    assert attention.KINDS == ("additive", "dot")


def test_the_mean_is_weighted_by_the_softmax_over_steps():
    scores, values = 2 * drawn(S, B), drawn(S, B, D, seed=1)
    wanted = np.zeros((B, D))
    for b in range(B):
        weights = np.exp(scores[:, b]) / np.exp(scores[:, b]).sum()
        wanted[b] = weights @ values[:, b]
    with jax.enable_x64(True):
        got = attention.weighted_mean(jnp.asarray(scores), jnp.asarray(values))
    np.testing.assert_allclose(got, wanted, rtol=1e-12)


def test_weights_are_positive_and_sum_to_1():
    scores = jnp.float32(3 * drawn(S, B))
    each = jnp.broadcast_to(jnp.eye(S)[:, None], (S, B, S))  # their mean is the weights
    weights = attention.weighted_mean(scores, each)
    assert (weights > 0).all()
    np.testing.assert_allclose(weights.sum(1), 1.0, rtol=1e-6)
    # Scores of any size, and shifts common to all scores of an example.
    np.testing.assert_allclose(
        attention.weighted_mean(scores + 100.0, each), weights, rtol=1e-4, atol=1e-6
    )
    sure = attention.weighted_mean(1e4 * scores, each)
    np.testing.assert_array_equal(sure, np.eye(S)[np.argmax(scores, axis=0)])


def test_equal_scores_give_the_mean():
    values = drawn(S, B, D).astype(np.float32)
    got = attention.weighted_mean(jnp.full((S, B), 7.0), values)
    np.testing.assert_allclose(got, values.mean(0), rtol=1e-5, atol=1e-6)
