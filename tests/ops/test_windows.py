"""Attention windows against equations 19-29 of the DRAW paper, written out as loops in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from rnngen_jax.ops import windows
from rnngen_jax.ops.windows import Window

# Images of B x A pixels, in the paper's letters, and filters per side.
SHAPES = [(5, 7, 1, 3), (6, 4, 3, 2), (4, 4, 1, 4), (3, 5, 2, 1)]
NUM = 4


def raw_of(seed=0, num=NUM):
    return 0.7 * np.random.default_rng(seed).standard_normal((num, 5))


def eq_21_to_24(raw, height, width, size):
    """One window as g_X, g_Y, σ², δ and γ."""
    g_x, g_y, log_variance, log_stride, log_intensity = raw
    centre_x = (width + 1) / 2 * (g_x + 1)  # (22)
    centre_y = (height + 1) / 2 * (g_y + 1)  # (23)
    most = max(width, height) - 1
    stride = most / (size - 1) * np.exp(log_stride) if size > 1 else most * np.exp(log_stride)
    return centre_x, centre_y, np.exp(log_variance), stride, np.exp(log_intensity)


def eq_19_to_26(centre, stride, variance, pixels, size):
    """One bank of filters `[N, pixels]` and their means; pixels are counted from 1."""
    bank, means = np.zeros((size, pixels)), np.zeros(size)
    for i in range(1, size + 1):
        means[i - 1] = centre + (i - size / 2 - 0.5) * stride  # (19, 20)
        for a in range(1, pixels + 1):
            bank[i - 1, a - 1] = np.exp(-((a - means[i - 1]) ** 2) / (2 * variance))  # (25, 26)
        bank[i - 1] /= bank[i - 1].sum()
    return bank, means


def by_loops(raw, height, width, size):
    """F_Y, F_X, γ and the box, counted from 0, of every window."""
    for each in raw:
        x, y, variance, stride, intensity = eq_21_to_24(each, height, width, size)
        rows, down = eq_19_to_26(y, stride, variance, height, size)
        columns, across = eq_19_to_26(x, stride, variance, width, size)
        yield rows, columns, intensity, [down[0] - 1, across[0] - 1, down[-1] - 1, across[-1] - 1]


def arrays(height, width, channels, size, seed=5):
    """Images and patches."""
    rng = np.random.default_rng(seed)
    patch = rng.standard_normal((NUM, size, size, channels))
    return rng.standard_normal((NUM, height, width, channels)), patch


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_reading_and_writing_are_the_papers_sums(shape):
    height, width, channels, size = shape
    raw, (image, patch) = raw_of(), arrays(*shape)

    def everything(raw, image, patch):
        window = windows.window(raw, height, width, size)
        banks, box = windows.banks(window, height, width, size), windows.box(window, size)
        written = windows.write(window, patch, height, width)
        return *banks, windows.read(window, image, size), written, box

    with jax.enable_x64(True):
        got = jax.jit(everything)(raw, image, patch)
    got_rows, got_columns, got_patch, got_image, got_box = got
    assert got_rows.shape == (NUM, size, height)
    assert got_columns.shape == (NUM, size, width)
    for b, (rows, columns, intensity, box) in enumerate(by_loops(raw, height, width, size)):
        np.testing.assert_allclose(got_rows[b], rows, rtol=1e-9, atol=1e-300)
        np.testing.assert_allclose(got_columns[b], columns, rtol=1e-9, atol=1e-300)
        np.testing.assert_allclose(got_box[b], box, rtol=1e-12, atol=1e-12)
        for c in range(channels):
            wanted = intensity * rows @ image[b, :, :, c] @ columns.T  # (27)
            np.testing.assert_allclose(got_patch[b, :, :, c], wanted, rtol=1e-9, atol=1e-12)
            wanted = rows.T @ patch[b, :, :, c] @ columns / intensity  # (29)
            np.testing.assert_allclose(got_image[b, :, :, c], wanted, rtol=1e-9, atol=1e-12)


def test_filters_sum_to_one_even_far_outside():
    """Every centre with every variance, as one batch."""
    centre, variance = np.meshgrid([-1e4, -3.0, 0.4, 2.7, 8.0, 1e5], [1e-4, 0.3, 1e4])
    given = [jnp.float32(x.ravel()) for x in (centre, 2.5 + 0 * centre, variance)]
    made = jax.jit(lambda given: windows.filters(*given, 6, 3))
    bank = np.asarray(made(given), np.float64)
    np.testing.assert_allclose(bank.sum(-1), 1.0, atol=1e-6)
    for n, (at, width) in enumerate(zip(given[0], given[2], strict=True)):
        if abs(at) > 1000 and width < 1:  # all of it on the nearest pixel
            np.testing.assert_array_equal(bank[n, :, 0 if at < 0 else -1], 1.0)
    slopes = jax.jit(jax.grad(lambda given: made(given)[..., 0].sum()))(given)
    assert all(np.isfinite(slope).all() for slope in slopes)


def on_pixels(top, left, size, variance=1e-4):
    """Windows whose filters are single pixels, from row `top` and column `left`, counted from 0."""
    top, left = np.atleast_1d(top, left)
    half = (size - 1) / 2
    given = top + 1 + half, left + 1 + half, 1.0, variance, 1.0
    return Window(*(jnp.broadcast_to(jnp.float32(value), top.shape) for value in given))


@pytest.mark.parametrize(
    ("height", "width", "size"), [(4, 7, 1), (4, 7, 2), (6, 5, 3), (4, 7, 4), (5, 5, 5)]
)
def test_a_window_on_pixels_copies_them_also_at_the_border(height, width, size):
    """At every position inside the image, with three channels."""
    places = [(y, x) for y in range(height - size + 1) for x in range(width - size + 1)]
    top, left = np.array(places).T
    rng, num = np.random.default_rng(0), len(places)
    image = rng.standard_normal((num, height, width, 3)).astype(np.float32)
    patch = rng.standard_normal((num, size, size, 3)).astype(np.float32)
    window = on_pixels(top, left, size)
    read = jax.jit(windows.read, static_argnums=2)(window, image, size)
    written = jax.jit(windows.write, static_argnums=(2, 3))(window, patch, height, width)
    wanted = np.zeros_like(image)
    for n, (y, x) in enumerate(places):
        np.testing.assert_array_equal(read[n], image[n, y : y + size, x : x + size])
        wanted[n, y : y + size, x : x + size] = patch[n]
    np.testing.assert_array_equal(written, wanted)
    box = np.stack([top, left, top + size - 1, left + size - 1], axis=-1)
    np.testing.assert_array_equal(windows.box(window, size), box)


def test_beyond_the_border_a_filter_is_that_of_the_nearest_pixel():
    image = np.random.default_rng(0).standard_normal((1, 4, 5, 1)).astype(np.float32)
    patch = windows.read(on_pixels(-1, 3, 3), image, 3)[0, :, :, 0]
    np.testing.assert_array_equal(patch, image[0, [0, 0, 1]][:, [3, 4, 4], 0])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_writing_is_the_adjoint_of_reading(shape):
    """<read(x), w> = γ² <x, write(w)>."""
    height, width, _, size = shape
    image, patch = arrays(*shape)

    def products(raw, intensity):
        window = windows.window(raw, height, width, size)._replace(intensity=intensity)
        read = windows.read(window, image, size)
        written = windows.write(window, patch, height, width)
        return (read * patch).sum((1, 2, 3)), (image * written).sum((1, 2, 3))

    for intensity in (np.ones(NUM), np.array([0.5, 1.5, 2.0, 3.0])):
        with jax.enable_x64(True):
            one, other = jax.jit(products)(raw_of(2), intensity)
        np.testing.assert_allclose(one, intensity**2 * np.asarray(other), rtol=1e-9)


def test_gradients_are_finite_differences():
    height, width, channels, size = SHAPES[0]
    raw, (image, patch) = raw_of(3), arrays(height, width, channels, size)

    def read(raw, image):
        return windows.read(windows.window(raw, height, width, size), image, size)

    def write(raw, patch):
        return windows.write(windows.window(raw, height, width, size), patch, height, width)

    with jax.enable_x64(True):
        check_grads(jax.jit(read), (raw, image), order=1, modes=("rev",))
        check_grads(jax.jit(write), (raw, patch), order=1, modes=("rev",))


@pytest.mark.parametrize(
    ("height", "width", "size"), [(8, 8, 3), (8, 8, 1), (28, 28, 2), (5, 9, 4)]
)
def test_a_window_starts_over_the_whole_image(height, width, size):
    """For outputs of zero, its corners are those of the image or of the enclosing square."""
    side = max(height, width) - 1 if size > 1 else 0
    top, left = (height - 1 - side) / 2, (width - 1 - side) / 2
    wanted = [[top, left, top + side, left + side]]
    image, patch = jnp.ones((3, height, width, 1)), jnp.ones((3, size, size, 1))

    def outcome(raw):
        window = windows.window(raw, height, width, size)
        weight = jax.grad(lambda image: windows.read(window, image, size).sum())(image)
        written = windows.write(window, patch, height, width)
        return window, windows.box(window, size), weight, written

    raw = [
        np.zeros(5),
        *(windows.covering(height, width, size, writes) for writes in (False, True)),
    ]
    window, box, weight, written = jax.jit(outcome)(np.stack(raw).astype(np.float32))
    np.testing.assert_allclose(box, wanted * 3, atol=1e-5)
    np.testing.assert_array_equal(window.intensity[:2], 1.0)
    # The others are wide enough for every pixel to contribute to the patch.
    assert weight[1].min() > 0.2 * weight[1].max()
    np.testing.assert_allclose(window.variance[1], window.variance[2])
    # The last writes about the patch's value to every pixel.
    np.testing.assert_allclose(written[2].mean(), 1.0, rtol=1e-5)
