"""Halving and doubling of maps against XLA's convolution and its transpose."""

import jax
import numpy as np
import pytest

from rnngen_jax.modules.halving import Double, Halve

B, D, F = 2, 3, 5
# Even and odd sizes, maps smaller than the kernel, and kernels of every kind.
EVEN = [(6, 4, 2), (5, 7, 2), (8, 6, 4), (7, 9, 4), (1, 2, 4), (6, 8, 6), (7, 5, 6), (2, 3, 6)]
ODD = [(6, 4, 3), (5, 7, 3), (8, 6, 5), (7, 9, 5), (1, 2, 5), (2, 3, 7)]
CASES = EVEN + ODD


def drawn(layer, x):
    """The layer's parameters in float64, biases included."""
    shapes = jax.eval_shape(layer.init, jax.random.key(0), x)["params"]
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape), shapes)


def a_map(height, width, features):
    return np.random.default_rng(0).standard_normal((B, height, width, features))


def convolution(x, kernel):
    """XLA's with stride 2, padded as in `Halve`: with an odd kernel, by one more at the end."""
    odd = kernel.shape[0] % 2
    before = (kernel.shape[0] + odd) // 2 - 1 - odd
    borders = [(before, side % 2 + odd + before) for side in x.shape[1:3]]
    return jax.lax.conv_general_dilated(
        x, kernel, (2, 2), borders, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def adjoint(y, kernel, like):
    """The transpose of `convolution`, by the chain rule; the result has the shape of `like`."""
    return jax.vjp(lambda x: convolution(x, kernel), like)[1](y)[0]


def places(parameter, kernel):
    """The parameter of `Halve` as a kernel `[K, K, D, F]`."""
    if kernel % 2:
        return parameter.reshape(kernel, kernel, D, F)
    # Rows of the parameter: the 2x2 block, then the pixel in it, then the feature.
    blocks = kernel // 2
    weights = parameter.reshape(blocks, blocks, 2, 2, D, F)
    return np.swapaxes(weights, 1, 2).reshape(kernel, kernel, D, F)


@pytest.mark.parametrize(("height", "width", "kernel"), CASES)
def test_halving_is_a_convolution_of_stride_2(height, width, kernel):
    x, layer = a_map(height, width, D), Halve(F, kernel)
    params = drawn(layer, x)
    weights = places(params["kernel"], kernel)
    with jax.enable_x64(True):
        got = jax.jit(layer.apply)({"params": params}, x)
        wanted = jax.jit(convolution)(x, weights) + params["bias"]
    assert got.shape == (B, (height + 1) // 2, (width + 1) // 2, F)
    np.testing.assert_allclose(got, wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("height", "width", "kernel"), CASES)
def test_doubling_is_the_adjoint_of_a_convolution(height, width, kernel):
    small = a_map((height + 1) // 2, (width + 1) // 2, F)
    layer = Double(D, kernel, height, width)
    params = drawn(layer, small)
    weights = params["kernel"].reshape(F, kernel, kernel, D).transpose(1, 2, 3, 0)
    with jax.enable_x64(True):
        got = jax.jit(layer.apply)({"params": params}, small)
        wanted = jax.jit(adjoint)(small, weights, np.zeros((B, height, width, D))) + params["bias"]
    np.testing.assert_allclose(got, wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kernel", [2, 3, 4, 5])
def test_maps_of_even_sides_are_padded_as_tensorflow_pads_them(kernel):
    """A kernel of 5 then does the same as Keras's layers with padding "same"."""
    x, layer = a_map(6, 8, D), Halve(F, kernel)
    params = drawn(layer, x)
    numbers = ("NHWC", "HWIO", "NHWC")
    with jax.enable_x64(True):
        got = layer.apply({"params": params}, x) - params["bias"]
        weights = places(params["kernel"], kernel)
        wanted = jax.lax.conv_general_dilated(x, weights, (2, 2), "SAME", dimension_numbers=numbers)
    np.testing.assert_allclose(got, wanted, rtol=1e-9, atol=1e-12)


def test_maps_of_unit_variance_keep_about_that_at_first():
    """Away from the borders."""
    inner = slice(2, -2)
    x = a_map(12, 12, 16).astype(np.float32)
    for layer, side in ((Halve(32, 4), 6), (Double(32, 4, 24, 24), 24)):
        y, _ = jax.jit(layer.init_with_output)(jax.random.key(0), x)
        assert y.shape[1] == side
        assert 0.8 < float(np.std(np.asarray(y)[:, inner, inner])) < 1.2
