"""The choices of least total cost, against sums over all of them."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from rnngen_jax.ops import ranking

RNG = np.random.default_rng(0)


def test_the_chosen_alternative_comes_first_and_the_others_by_cost():
    costs = np.float32([[3.0, 1.0, 2.0, 0.5], [3.0, 1.0, 1.0, 1.0]])
    which, above = ranking.cheapest(costs, jnp.array([2, 1]), 3)
    np.testing.assert_array_equal(which, [[2, 1, 3], [1, 2, 3]])
    np.testing.assert_array_equal(above, [[0, 0, 0], [0, 0, 0]])
    which, above = ranking.cheapest(costs, jnp.array([1, 3]), 9)
    np.testing.assert_array_equal(which, [[1, 3, 2, 0], [3, 1, 2, 0]])
    np.testing.assert_array_equal(above, [[0, 0, 1, 2], [0, 0, 0, 2]])


def test_the_smallest_sums_are_those_among_all():
    """Of parts with as many alternatives each, and with fewer; ties included."""
    sizes = (3, 1, 4, 2)
    smallest = jax.jit(ranking.smallest_sums, static_argnums=(1, 2))
    costs = np.sort(RNG.integers(0, 6, (4, 2, 5, 4)), -1).astype(np.float32)
    costs -= costs[..., :1]
    for given, each in ((sizes, sizes), (None, (4,) * 4)):
        every = np.array(list(itertools.product(*map(range, each))))
        sums = sum(costs[n][..., every[:, n]] for n in range(4))
        full = {}
        for count in (7, 1000):
            chosen, found = smallest(costs, count, given)
            size = min(count, len(every))
            assert chosen.shape == (4, 2, 5, size)
            np.testing.assert_array_equal(found, np.sort(sums)[..., :size])
            taken = np.take_along_axis(costs, np.asarray(chosen), -1).sum(0)
            np.testing.assert_array_equal(taken, found)
            flat = np.asarray(chosen).reshape(4, 10, size).transpose(1, 2, 0)
            assert all(len(np.unique(rows, axis=0)) == size for rows in flat)
            np.testing.assert_array_equal(chosen[..., 0], 0)
            full[count] = np.asarray(chosen)
        for count, own in full.items():  # to the last one
            np.testing.assert_array_equal(own, full[1000][..., :count])


def test_ways_on_from_prefixes():
    sums, costs = np.float32([0, 1, 4]), np.float32([[0, 2, 5], [0, 0, 7], [0, 0.5, 1]])
    prefix, way, total = ranking.smallest_joined(sums, costs, 6)
    np.testing.assert_array_equal(total, [0, 1, 1, 2, 4, 4.5])
    np.testing.assert_array_equal(prefix, [0, 1, 1, 0, 2, 2])
    np.testing.assert_array_equal(way, [0, 0, 1, 1, 0, 1])
