"""Resampling of weighted draws, for a target and a proposal over three states."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from rnngen_jax.ops import resampling

TARGET, PROPOSAL = np.array([0.7, 0.25, 0.05]), np.array([0.15, 0.35, 0.5])
LOG_WEIGHTS = np.log(TARGET / PROPOSAL)
KEY, NUM = jax.random.key(3), 20_000


def propose(key, num=NUM):
    """States from the proposal, twice as a pytree, and log-weights up to a constant."""
    state = jax.random.categorical(key, jnp.log(jnp.float32(PROPOSAL)), shape=(num,))
    weights = jnp.asarray(LOG_WEIGHTS - 500, jnp.float32)[state]
    return {"state": state, "again": jnp.stack([state, state], -1)}, weights


def agrees(states, wanted):
    counts = np.bincount(states, minlength=3)
    return stats.chisquare(counts, NUM * wanted).pvalue > 1e-3


@pytest.mark.parametrize("count", [1, 2, 5])
def test_one_of_several_draws_is_chosen_by_its_weight(count):
    chosen, effective = jax.jit(lambda key: resampling.by_importance(propose, key, count))(KEY)
    draws = np.array(list(itertools.product(range(3), repeat=count)))
    weights = np.exp(LOG_WEIGHTS[draws])
    share = PROPOSAL[draws].prod(1, keepdims=True) * weights / weights.sum(1, keepdims=True)
    wanted = np.bincount(draws.ravel(), share.ravel())
    assert agrees(chosen["state"], wanted)
    np.testing.assert_array_equal(chosen["again"], np.stack([chosen["state"]] * 2, -1))
    sizes = weights.sum(1) ** 2 / np.square(weights).sum(1)
    np.testing.assert_allclose(effective.mean(), PROPOSAL[draws].prod(1) @ sizes, rtol=0.01)
    assert (np.abs(np.asarray(effective)[:, None] - sizes).min(1) < 1e-3).all()


def test_one_draw_is_what_is_drawn_with_the_key_itself():
    chosen, effective = resampling.by_importance(propose, KEY, 1)
    np.testing.assert_array_equal(chosen["state"], propose(KEY)[0]["state"])
    np.testing.assert_array_equal(effective, 1)


def test_weights_of_any_size_are_weighed():
    rows = jnp.array(
        [
            [-3e9, -3e9, -3e9, -3e9],  # all the same
            [-jnp.inf, -jnp.inf, -4e9, -jnp.inf],  # only one possible
            [-jnp.inf] * 4,  # none possible
            [1e30, -1e30, 0.0, 3e30],  # one dominates
        ]
    )

    def draw(key):
        which = jax.random.randint(key, (4, 500), 0, 4)
        return which.ravel(), jnp.take_along_axis(rows, which, axis=1).ravel()

    found = jax.jit(lambda key: resampling.by_importance(draw, key, 60))(KEY)
    chosen, effective = (np.reshape(array, (4, 500)) for array in found)
    assert (chosen[1] == 2).all()
    assert (chosen[3] == 3).all()
    for row in (0, 2):
        assert (np.bincount(chosen[row], minlength=4) > 80).all()
        np.testing.assert_allclose(effective[row], 60, rtol=1e-5)
    for row in (1, 3):
        assert ((effective[row] > 2) & (effective[row] < 35)).all()


def moved(start, count, key=KEY):
    """States after one step from each of `start`."""
    drawn, weights = jax.vmap(lambda key: propose(key, len(start)))(jax.random.split(key, count))
    states = drawn["state"]
    current = jnp.asarray(LOG_WEIGHTS - 500, jnp.float32)[start]
    which, taken = resampling.multiple_try(jax.random.fold_in(key, 9), current, weights)
    return np.where(taken, states[which, jnp.arange(len(start))], start), np.asarray(taken)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_step_leaves_the_target_as_it_is(count):
    start = np.random.default_rng(0).choice(3, NUM, p=TARGET)
    end, taken = moved(start, count)
    assert agrees(end, TARGET)
    assert taken.mean() < 1
    assert (start != end).mean() > 0.1


@pytest.mark.parametrize("count", [1, 3])
def test_one_draw_is_the_step_of_metropolis_and_hastings(count):
    """With several draws, transitions between states are at least as frequent as with i-SIR."""
    for start in range(3):
        end, _ = moved(np.full(NUM, start), count)
        rates = np.bincount(end, minlength=3) / NUM
        if count == 1:
            ratio = np.exp(LOG_WEIGHTS - LOG_WEIGHTS[start])
            wanted = PROPOSAL * np.minimum(1, ratio)
        else:
            draws = np.array(list(itertools.product(range(3), repeat=count)))
            pool = np.concatenate([draws, np.full((len(draws), 1), start)], 1)
            share = special.softmax(LOG_WEIGHTS[pool], axis=1)
            share = share * PROPOSAL[draws].prod(1, keepdims=True)
            wanted = np.bincount(pool.ravel(), share.ravel())
        others = np.arange(3) != start
        error = 4 * np.sqrt(wanted / NUM)
        assert (rates > wanted - error)[others].all()
        if count == 1:
            assert (rates < wanted + error)[others].all()


def test_equal_weights_are_always_taken_and_impossible_states_left():
    which, taken = resampling.multiple_try(KEY, jnp.full(NUM, -700.0), jnp.full((4, NUM), -700.0))
    assert taken.all()
    assert (np.bincount(which, minlength=4) > NUM / 5).all()
    impossible = jnp.full(NUM, -jnp.inf)
    for count in (1, 3):
        _, taken = resampling.multiple_try(KEY, impossible, jnp.full((count, NUM), -9e8))
        assert taken.all()
    _, taken = resampling.multiple_try(KEY, jnp.zeros(NUM), jnp.full((3, NUM), -jnp.inf))
    assert not taken.any()


@pytest.mark.parametrize("near", [0.0, 0.6, 1.0])
def test_draws_around_another_one_and_that_one_are_exchangeable(near):
    noise = np.random.default_rng(0).standard_normal((NUM, 1, 1))
    draws = resampling.around(KEY, noise, jnp.full((NUM, 1, 1), near), 2)
    assert draws.shape == (2, NUM, 1, 1)
    every = np.concatenate([noise[None], draws])[..., 0, 0]
    wanted = near**2 + (1 - near**2) * np.eye(3)
    np.testing.assert_allclose(np.cov(every), wanted, atol=4 * np.sqrt(2 / NUM))
    np.testing.assert_allclose(every.mean(1), 0, atol=4 / np.sqrt(NUM))
    for row in every:
        assert stats.kstest(row, "norm").pvalue > 1e-3


def test_steps_around_leave_a_target_as_it_is():
    """A normal target with another mean and scale than the standard normal proposal."""
    mean, scale = 0.8, 0.5
    x = mean + scale * np.random.default_rng(1).standard_normal(NUM)

    def log_weight(x):
        return jax.scipy.stats.norm.logpdf(x, mean, scale) - jax.scipy.stats.norm.logpdf(x)

    near = jax.random.uniform(jax.random.key(5), (NUM,))
    draws = resampling.around(KEY, x, near, 3)
    which, taken = resampling.multiple_try(KEY, log_weight(x), log_weight(draws))
    after = np.where(taken, draws[which, np.arange(NUM)], x)
    assert (after != x).mean() > 0.5
    assert stats.kstest(after, stats.norm(mean, scale).cdf).pvalue > 1e-3
