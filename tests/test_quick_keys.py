"""The tests' own random numbers are even, independent, and the same in any program."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import quick_keys

KEY = jax.random.key(7, impl=quick_keys.IMPLEMENTATION)
ROOT = jax.random.key(0, impl=quick_keys.IMPLEMENTATION)
NUM = 2**12
STREAMS = {
    "one key": lambda: jax.random.bits(KEY, (NUM,)),
    "children": lambda: jax.vmap(jax.random.bits)(jax.random.split(KEY, NUM)),
    "folded": lambda: jax.vmap(lambda n: jax.random.bits(jax.random.fold_in(KEY, n)))(
        jnp.arange(NUM)
    ),
    "seeds": lambda: jax.vmap(
        lambda n: jax.random.bits(jax.random.key(n, impl=quick_keys.IMPLEMENTATION))
    )(jnp.arange(NUM)),
    "bytes": lambda: jax.random.bits(ROOT, (NUM, 4), jnp.uint8),
    "grandchildren": lambda: jax.vmap(jax.random.bits)(
        jax.random.split(jax.random.fold_in(jax.random.split(KEY)[1], 3), NUM)
    ),
}


@pytest.fixture(scope="module")
def streams():
    """Of each stream the bits as -1 and 1, `[NUM, 32]`."""

    def signs(numbers):
        bits = np.unpackbits(np.asarray(numbers).view(np.uint8).reshape(NUM, 4), axis=1)
        return 2 * np.float32(bits) - 1

    found = jax.jit(lambda: {name: draw() for name, draw in STREAMS.items()})()
    return {name: signs(numbers) for name, numbers in found.items()}


def test_bits_are_even_and_independent_of_each_other(streams):
    """Of 32 bits each mean and correlation, also with those of the next number, is near none."""
    limit = 5 / np.sqrt(NUM)
    for name, bits in streams.items():
        assert np.abs(bits.mean(0)).max() < limit, name
        assert np.abs(bits.T @ bits / NUM - np.eye(32)).max() < limit, name
        assert np.abs(bits[1:].T @ bits[:-1] / NUM).max() < limit, name


def test_streams_are_independent_of_each_other(streams):
    limit = 5 / np.sqrt(NUM)
    names = list(streams)
    for n, one in enumerate(names):
        for other in names[:n]:
            assert np.abs(streams[one].T @ streams[other] / NUM).max() < limit, (one, other)


def test_normal_numbers_are_normal():
    drawn = np.asarray(jax.random.normal(KEY, (NUM,)))
    moments = [(drawn**n).mean() for n in (1, 2, 3, 4)]
    deviations = np.sqrt(np.array([1, 2, 15, 96]) / NUM)  # of the moments of normal numbers
    np.testing.assert_array_less(np.abs(np.subtract(moments, [0, 1, 0, 3])), 4 * deviations)


def test_of_all_keys_hardly_two_are_alike():
    children = np.asarray(jax.random.key_data(jax.random.split(KEY, NUM)))
    assert len(np.unique(children)) > NUM - 5  # of 2³² there may be


def test_what_is_drawn_does_not_depend_on_the_devices():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    over = jax.NamedSharding(mesh, jax.P("data"))
    drawn = jax.jit(lambda key: jax.random.normal(key, (64,)), out_shardings=over)(KEY)
    np.testing.assert_array_equal(drawn, jax.random.normal(KEY, (64,)))
