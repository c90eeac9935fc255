"""Layers over feature maps against Flax's, XLA's and NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from rnngen_jax.modules.maps import BatchNorm, Same, SelfAttention, normalised
from rnngen_jax.ops.batch import BATCH_AXIS

RNG = np.random.default_rng(0)
BATCHES = (3.0 + 2.0 * RNG.standard_normal((3, 16, 2, 3, 4))).astype(np.float32)
LABEL = np.arange(16) % 3
SCALE, BIAS = RNG.standard_normal((2, 4)).astype(np.float32)
LAYER = BatchNorm(momentum=0.8, epsilon=1e-3)
TABLES = {name: RNG.standard_normal((3, 4)).astype(np.float32) for name in ("scale", "bias")}


def close(left, right, rtol=1e-5):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-5), left, right)


def start():
    """Parameters, and initial running moments."""
    state = LAYER.init(jax.random.key(0), BATCHES[0], LABEL, True)["batch_stats"]
    close(state, {"mean": np.zeros(4), "variance": np.ones(4)})
    return {"scale": SCALE, "bias": BIAS}, state


def test_batch_norm_is_flaxs():
    """Over three steps, and then with the running moments."""
    flax = nn.BatchNorm(momentum=0.8, epsilon=1e-3, use_fast_variance=False)
    params, state = start()
    theirs = {"mean": np.zeros(4), "var": np.ones(4)}
    for x in BATCHES:
        got, after = LAYER.apply(
            {"params": params, "batch_stats": state}, x, LABEL, True, mutable="batch_stats"
        )
        want, moved = flax.apply(
            {"params": params, "batch_stats": theirs},
            x,
            use_running_average=False,
            mutable="batch_stats",
        )
        state, theirs = after["batch_stats"], moved["batch_stats"]
        close(got, want)
        close(state, {"mean": theirs["mean"], "variance": theirs["var"]})
    close(
        LAYER.apply({"params": params, "batch_stats": state}, x, LABEL, False),
        flax.apply({"params": params, "batch_stats": theirs}, x, use_running_average=True),
    )


def test_normalised_maps_have_mean_0_and_the_biased_variance_1():
    x = BATCHES[0]
    y = np.asarray(BatchNorm(epsilon=1e-12).init_with_output(jax.random.key(0), x, LABEL, True)[0])
    np.testing.assert_allclose(y.mean((0, 1, 2)), 0, atol=1e-6)
    np.testing.assert_allclose(y.var((0, 1, 2)), 1, rtol=1e-5)


@pytest.mark.parametrize("train", [True, False])
def test_by_class_scale_and_offset_are_those_of_the_images_class(train):
    params, state = start()
    by_class = BatchNorm(3, momentum=0.8, epsilon=1e-3)
    told = {f"class_{name}": {"table": table} for name, table in TABLES.items()}
    x = BATCHES[0]
    got = by_class.apply(
        {"params": params | told, "batch_stats": state}, x, LABEL, train, mutable="batch_stats"
    )[0]
    for k in range(3):
        own = {"scale": SCALE + TABLES["scale"][k], "bias": BIAS + TABLES["bias"][k]}
        want = LAYER.apply(
            {"params": own, "batch_stats": state}, x, LABEL, train, mutable="batch_stats"
        )[0]
        close(got[k == LABEL], want[k == LABEL])


def turn(params, state, x, label):
    """Outputs, gradient of a mean loss and running moments, as in a training step."""

    def loss(params):
        y, after = LAYER.apply(
            {"params": params, "batch_stats": state}, x, label, True, mutable="batch_stats"
        )
        return jnp.mean(jnp.sin(y) * x), (y, after["batch_stats"])

    (value, (y, after)), gradient = jax.value_and_grad(loss, has_aux=True)(params)
    return y, (value, gradient, after)


def test_eight_devices_share_one_batch():
    params, state = start()
    x = BATCHES[0]
    wanted, whole = jax.jit(turn)(params, state, x, LABEL)
    place = NamedSharding(Mesh(jax.devices(), (BATCH_AXIS,)), PartitionSpec(BATCH_AXIS))
    cut, found = jax.jit(turn)(params, state, *jax.device_put((x, LABEL), place))
    assert len(cut.sharding.device_set) == 8
    close(cut, wanted)
    close(found, whole)

    @functools.partial(jax.pmap, axis_name=BATCH_AXIS, in_axes=(None, None, 0, 0))
    def part(params, state, x, label):
        y, told = turn(params, state, x, label)
        return y, jax.lax.pmean(told, BATCH_AXIS)

    y, found = part(params, state, x.reshape(8, 2, *x.shape[1:]), LABEL.reshape(8, 2))
    close(y.reshape(x.shape), wanted)
    close(jax.tree.map(lambda leaf: leaf[3], found), whole)


@pytest.mark.parametrize("side", [3, 5])
def test_same_is_a_convolution_with_zeros_around(side):
    x = BATCHES[0]
    params = {
        "kernel": RNG.standard_normal((side * side * 4, 5)).astype(np.float32),
        "bias": RNG.standard_normal(5).astype(np.float32),
    }
    kernel = params["kernel"].reshape(side, side, 4, 5)
    numbers = ("NHWC", "HWIO", "NHWC")
    want = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=numbers)
    close(Same(5, side).apply({"params": params}, x), want + params["bias"], rtol=1e-4)


def test_attention_is_the_one_written_out_and_nothing_at_first():
    x, layer = BATCHES[0][..., :3], SelfAttention()
    first = layer.init(jax.random.key(0), x)["params"]
    np.testing.assert_array_equal(layer.apply({"params": first}, x), x)
    params = {**first, "gamma": np.float32(0.7)}
    p = jax.tree.map(np.float64, params)
    f, g, h = (p[name]["kernel"] for name in ("key", "query", "value"))
    want = np.float64(x).copy()
    for image, told in zip(np.float64(x), want, strict=True):
        places = image.reshape(-1, 3)
        for j, to in np.ndenumerate(np.arange(6)):
            # s_ij = f(x_i)ᵀ g(x_j), and position j attends to all i.
            s = np.exp([(places[i] @ f) @ (places[to] @ g) for i in range(6)])
            o = sum(weight * (places[i] @ h) for i, weight in enumerate(s / s.sum()))
            told[np.unravel_index(j[0], (2, 3))] += 0.7 * (o @ p["out"]["kernel"])
    close(layer.apply({"params": params}, x), want)


def test_the_norm_is_the_one_that_the_flag_names():
    class One(nn.Module):
        norm: str

        @nn.compact
        def __call__(self, x):
            return normalised(x, LABEL, True, self.norm, 3)

    names = {}
    for norm in ("none", "batch", "conditional_batch"):
        y, found = One(norm).init_with_output(jax.random.key(0), BATCHES[0])
        names[norm] = set(found.get("params", {}).get("BatchNorm_0", {}))
        assert np.array_equal(y, BATCHES[0]) == (norm == "none")
    assert names["none"] == set()
    assert names["batch"] == {"scale", "bias"}
    assert names["conditional_batch"] == {"scale", "bias", "class_scale", "class_bias"}
