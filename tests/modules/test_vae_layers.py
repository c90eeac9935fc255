"""The VAE's encoder and decoder, against convolutions written as loops in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn_layers import applied

from rnngen_jax.modules.vae import Decoder, Encoder, sizes
from rnngen_jax.shapes import ImageSpec

B = 2


def places(rows, columns, kernel):
    """The position of each kernel weight at every pixel of the smaller map: (i, j, u, v, y, x)."""
    before = kernel // 2 - 1
    for i, j, u, v in np.ndindex(rows, columns, kernel, kernel):
        yield i, j, u, v, 2 * i + u - before, 2 * j + v - before


def halved(params, x, kernel):
    """Each pixel is the sum over the kernel's positions around it, with a stride of 2."""
    rows, columns = -(-x.shape[1] // 2), -(-x.shape[2] // 2)
    half = kernel // 2
    weights = params["kernel"].reshape(half, half, 2, 2, x.shape[3], -1)
    weights = weights.transpose(0, 2, 1, 3, 4, 5).reshape(kernel, kernel, x.shape[3], -1)
    y = np.zeros((len(x), rows, columns, weights.shape[-1])) + params["bias"]
    for i, j, u, v, row, column in places(rows, columns, kernel):
        if 0 <= row < x.shape[1] and 0 <= column < x.shape[2]:
            y[:, i, j] += x[:, row, column] @ weights[u, v]
    return y


def doubled(params, x, kernel, height, width):
    """Each pixel contributes to the kernel's positions around it."""
    weights = params["kernel"].reshape(x.shape[3], kernel, kernel, -1)
    y = np.zeros((len(x), height, width, weights.shape[-1])) + params["bias"]
    for i, j, u, v, row, column in places(*x.shape[1:3], kernel):
        if 0 <= row < height and 0 <= column < width:
            y[:, row, column] += x[:, i, j] @ weights[:, u, v]
    return y


def dense(params, x):
    return x @ params["kernel"] + params["bias"]


def elu(x):
    return np.where(x > 0, x, np.expm1(x))


@pytest.mark.parametrize(
    ("shape", "stages", "wanted"),
    [
        ((28, 28), 0, [(28, 28), (14, 14), (7, 7)]),
        ((8, 8), 0, [(8, 8), (4, 4)]),
        ((32, 9), 0, [(32, 9), (16, 5)]),
        ((5, 9), 2, [(5, 9), (3, 5), (2, 3)]),
        ((28, 28), 1, [(28, 28), (14, 14)]),
    ],
)
def test_maps_are_halved_as_often_as_asked_or_until_small(shape, stages, wanted):
    assert sizes(*shape, stages) == wanted


SETTINGS = [
    (ImageSpec(4, 4, 1, levels=2), 1, 2, False),
    (ImageSpec(5, 6, 3, levels=5, classes=3), 2, 4, True),
]


def modules(spec, stages, kernel, conditional):
    shared = {
        "spec": spec,
        "stages": stages,
        "features": 3,
        "kernel": kernel,
        "hidden": 5,
        "activation": "elu",
        "conditional": conditional,
    }
    return Encoder(latents=2, **shared), Decoder(size=4, **shared)


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_the_encoder_is_convolutions_and_a_hidden_layer(setting):
    spec, stages, kernel, conditional = setting
    image = np.random.default_rng(2).integers(0, spec.levels, (B, *spec.shape))
    label, mask = np.array([2, 0]), np.random.default_rng(3).uniform(0, 2, (B, 5))
    encoder, _ = modules(*setting)
    for given in ((image, label), (image, label, mask)):
        params, got = applied(encoder, *given)
        x = 2 * image / (spec.levels - 1) - 1
        for stage in range(stages):
            x = elu(halved(params[f"Halve_{stage}"], x, kernel))
            assert x.shape[-1] == 3 * 2**stage
        x = dense(params["Dense_0"], x.reshape(B, -1))
        x = elu(x + params["Table_0"]["table"][label] if conditional else x)
        x = x * mask if len(given) == 3 else x
        for part in ("mean", "log_scale"):
            wanted = dense(params["GaussianHead_0"][part], x)
            assert wanted.shape == (B, 2)
            np.testing.assert_allclose(getattr(got, part), wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_the_decoder_is_its_mirror(setting):
    spec, stages, kernel, conditional = setting
    z, label = np.random.default_rng(2).standard_normal((B, 2)), np.array([2, 0])
    mask = np.random.default_rng(3).uniform(0, 2, (B, 5))
    _, decoder = modules(*setting)
    for given in ((z, label), (z, label, mask)):
        params, got = applied(decoder, *given)
        x = dense(params["Dense_0"], z)
        x = elu(x + params["Table_0"]["table"][label] if conditional else x)
        x = x * mask if len(given) == 3 else x
        *larger, (height, width) = sizes(spec.height, spec.width, stages)
        x = elu(dense(params["Dense_1"], x)).reshape(B, height, width, 3 * 2 ** (stages - 1))
        for n, (height, width) in enumerate(reversed(larger)):
            x = doubled(params[f"Double_{n}"], x, kernel, height, width)
            x = elu(x) if n < stages - 1 else x
        wanted = x.reshape(B, *spec.shape, 4)
        np.testing.assert_allclose(got, wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("height", "width"), [(7, 9), (4, 4), (2, 2), (1, 6)])
def test_images_that_are_small_already_are_decoded_too(height, width):
    """With the number of halvings left at 0."""
    spec = ImageSpec(height, width, levels=3)
    _, decoder = modules(spec, 0, 2, False)
    z, label = jnp.zeros((B, 2)), jnp.zeros(B, jnp.int32)
    raw, _ = jax.eval_shape(lambda: decoder.init_with_output(jax.random.key(0), z, label))
    assert raw.shape == (B, *spec.shape, 4)
