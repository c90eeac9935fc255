"""Means over the whole batch, however it is sharded, against NumPy in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rnngen_jax.ops import batch

DEVICES = 8
RNG = np.random.default_rng(0)
X = RNG.normal(3.0, 2.0, (16, 3, 2)).astype(np.float32)
PARTS = X.reshape(DEVICES, -1, 3, 2)


def normalised_loss(scale, x):
    """Batch normalisation and a nonlinear function, averaged over the local examples."""
    features = jnp.tanh(scale * x)
    mean, variance = batch.moments(features, (0, 1))
    return jnp.square(jnp.sin((features - mean) / jnp.sqrt(variance + 0.1)) - x).mean()


def loss_by_numpy(scale):
    x = np.float64(X)
    features = np.tanh(scale * x)
    centred = features - features.mean((0, 1))
    return np.square(np.sin(centred / np.sqrt(features.var((0, 1)) + 0.1)) - x).mean()


@pytest.mark.parametrize("axes", [0, (0, 1), (0, 2), range(3)])
def test_moments_are_those_of_numpy_on_one_device_and_on_eight(axes):
    where = axes if isinstance(axes, int) else tuple(axes)
    wanted = X.astype(np.float64).mean(where), X.astype(np.float64).var(where)
    both = functools.partial(batch.moments, axes=axes)
    whole = jax.jit(both)(X)
    cut = jax.pmap(both, axis_name="data")(PARTS)
    for value, one, eight in zip(wanted, whole, cut, strict=True):
        assert one.dtype == jnp.float32
        np.testing.assert_allclose(one, value, rtol=1e-5)
        np.testing.assert_array_equal(eight, np.broadcast_to(eight[0], eight.shape))
        np.testing.assert_allclose(eight[0], value, rtol=1e-5)


def test_a_large_mean_costs_the_variance_of_eight_devices_no_digits_beside_a_running_mean():
    large = (1000 + RNG.standard_normal((DEVICES, 64, 1))).astype(np.float32)
    over = functools.partial(batch.moments, near=np.float32([998.0]))
    mean, variance = jax.pmap(over, axis_name="data")(large)
    np.testing.assert_allclose(mean[0], large.astype(np.float64).mean((0, 1)), rtol=1e-6)
    np.testing.assert_allclose(variance[0], large.astype(np.float64).var((0, 1)), rtol=1e-4)


def test_a_tree_and_a_pair_of_moments_cross_the_network_once():
    mesh = jax.make_mesh((DEVICES,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))

    def collectives(function):
        over = jax.shard_map(
            function, mesh=mesh, in_specs=jax.P("data"), out_specs=jax.P(), check_vma=False
        )
        return jax.jit(over).lower(X).as_text().count("stablehlo.all_reduce")

    assert collectives(lambda x: batch.moments(x, (0, 1))) == 1
    tree = lambda x: {"one": x.sum(), "two": [x[0], x[0, 0]]}  # noqa: E731
    assert collectives(lambda x: batch.mean_over_devices(tree(x))) == 1
    both = jax.pmap(lambda x: batch.mean_over_devices(tree(x)), axis_name="data")(PARTS)
    wanted = jax.tree.map(lambda x: np.asarray(x).mean(0), jax.vmap(tree)(PARTS))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[0], b, rtol=1e-5), both, wanted)
    alone = tree(X)
    assert batch.mean_over_devices(alone) is alone


def test_the_mean_of_the_devices_gradients_is_the_gradient():
    def step(scale, x):
        return jax.lax.pmean(jax.value_and_grad(normalised_loss)(scale, x), "data")

    scale = np.array([0.4, 0.9], np.float32)
    loss, slope = jax.jit(jax.value_and_grad(normalised_loss))(scale, X)
    losses, slopes = jax.pmap(step, axis_name="data", in_axes=(None, 0))(scale, PARTS)
    for i, step in enumerate(1e-5 * np.eye(2)):
        rise = loss_by_numpy(scale + step) - loss_by_numpy(scale - step)
        np.testing.assert_allclose(slope[i], rise / 2e-5, rtol=1e-3)
    np.testing.assert_allclose(losses, np.full(DEVICES, loss), rtol=1e-6)
    np.testing.assert_allclose(slopes, np.tile(slope, (DEVICES, 1)), rtol=1e-4)
    # The shards' own moments would give a different result.
    alone = jax.vmap(jax.grad(normalised_loss), in_axes=(None, 0))(scale, PARTS).mean(0)
    assert np.abs(alone - slope).max() > 0.01 * np.abs(slope).max()


def test_seeds_each_have_their_own_mean():
    """Seeds lie along an unnamed vmap axis, and the mesh's axis "data" is not that of a pmap."""
    mesh = jax.make_mesh((DEVICES,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    place = jax.NamedSharding(mesh, jax.P(None, "data"))
    seeds = np.stack([X, 2 * X + 1])
    means = jax.jit(jax.vmap(batch.mean_over_batch), in_shardings=place)(seeds)
    np.testing.assert_allclose(means, seeds.mean(1), rtol=1e-5)


def test_the_number_of_parts():
    assert batch.parts() == jax.jit(batch.parts)() == 1
    count = jax.pmap(lambda x: x + batch.parts(), axis_name="data")(np.zeros(DEVICES))
    np.testing.assert_array_equal(count, DEVICES)


def test_low_precision_and_a_large_mean_cost_no_digits():
    large = (1000 + RNG.standard_normal((512, 1))).astype(np.float32)
    _, variance = batch.moments(large)
    np.testing.assert_allclose(variance, large.astype(np.float64).var(0), rtol=1e-4)
    half = jnp.asarray(RNG.normal(3.0, 1.0, 512), jnp.bfloat16)
    mean = batch.mean_over_batch(half)
    assert mean.dtype == jnp.float32
    np.testing.assert_allclose(mean, np.asarray(half, np.float64).mean(), rtol=1e-6)


def test_pairs_alternate_and_stay_on_their_devices():
    one, other = {"x": X, "y": None}, {"x": -X, "y": None}
    pairs = batch.paired(one, other)["x"]
    np.testing.assert_array_equal(pairs[::2], X)
    np.testing.assert_array_equal(pairs[1::2], -X)
    mesh = jax.make_mesh((DEVICES,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    place = jax.NamedSharding(mesh, jax.P("data"))
    both = jax.jit(batch.paired, in_shardings=place, out_shardings=place)
    program = both.lower(one, other).compile().as_text()
    assert f"num_partitions={DEVICES}" in program
    assert not any(word in program for word in ("all-gather", "all-to-all", "permute"))


def test_rows_of_the_whole_batch_are_had_without_gathering_it():
    places = np.array([15, 0, 7, 7, 3])

    def rows(x):
        return batch.sum_over_devices(batch.own_rows(x, places))

    np.testing.assert_array_equal(jax.jit(rows)(X), X[places])
    cut = jax.pmap(rows, axis_name="data")(PARTS)
    np.testing.assert_array_equal(cut, np.broadcast_to(X[places], cut.shape))
    assert "all_gather" not in str(jax.make_jaxpr(jax.pmap(rows, axis_name="data"))(PARTS))


def test_sums_are_exact_on_any_number_of_devices():
    """A mean times three is not a sum: it would leave counts that are no integers."""
    rows = np.arange(3 * 64, dtype=np.float32).reshape(3, 64) * np.float32(0.7)
    given = np.where(np.eye(3, dtype=bool)[:, :, None], rows[:, None], 0).astype(np.float32)
    summed = jax.pmap(batch.sum_over_devices, "data", devices=jax.devices()[:3])(given)
    np.testing.assert_array_equal(summed, np.broadcast_to(rows, summed.shape))
