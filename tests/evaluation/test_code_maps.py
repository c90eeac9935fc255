"""Places of codes in their images, and colours of codes."""

import numpy as np
import pytest

from rnngen_jax.evaluation import code_maps
from rnngen_jax.modules.vqvae import sizes
from rnngen_jax.shapes import ImageSpec


@pytest.mark.parametrize("stages", [1, 2, 3])
@pytest.mark.parametrize(("height", "width"), [(8, 8), (28, 28), (5, 9), (32, 12)])
def test_places_are_those_of_the_encoder(height, width, stages):
    """Each halving of the encoder makes one place of two, the last of which may be half."""
    *_, (h, w) = sizes(height, width, stages)
    grid, image = ImageSpec(h, w), ImageSpec(height, width)
    assert code_maps.side(grid, image) == 2**stages
    places = np.arange(h * w).reshape(1, h, w, 1)
    found = code_maps.enlarged(places, grid, image)[0, ..., 0]
    down, right = np.mgrid[:height, :width] // 2**stages
    np.testing.assert_array_equal(found, down * w + right)
    each = np.eye(h * w, dtype=bool).reshape(-1, h, w)
    for number, (top, left, bottom, right) in enumerate(code_maps.boxes(each, grid, image)):
        own = np.argwhere(found == number)
        assert [top, left, bottom, right] == [*own.min(0), *own.max(0)]


def test_a_box_encloses_all_its_places_and_there_is_none_without():
    places = np.zeros((2, 4, 4), bool)
    places[1, 1, 2] = places[1, 2, 1] = True
    found = code_maps.boxes(places, ImageSpec(4, 4), ImageSpec(8, 8))
    assert np.isnan(found[0]).all()
    np.testing.assert_array_equal(found[1], [2, 2, 5, 5])


def test_a_window_is_cut_off_at_the_image():
    images = np.arange(1, 2 * 36 + 1.0).reshape(2, 6, 6, 1)
    found, inside = code_maps.windows(images, np.array([1, 2]), np.array([1, 0]), 2)
    assert found.shape == (2, 6, 6, 1)
    np.testing.assert_array_equal(found[0], images[0])
    assert inside[0].all()
    np.testing.assert_array_equal(found[1, :4, 2:], images[1, 2:, :4])
    outside = np.ones((6, 6), bool)
    outside[:4, 2:] = False
    np.testing.assert_array_equal(inside[1], ~outside)
    assert (found[1][outside] == 0).all()


def test_colours_are_the_principal_components():
    """Vectors on three axes of different lengths: each axis is one component of the colour."""
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.normal(size=(5, 5)))[0][:3]
    along = rng.uniform(-1, 1, (400, 3)) * [9, 3, 1]
    vectors = along @ axes + rng.normal(size=5)
    colours = code_maps.fit(vectors)
    found = colours.of(vectors.reshape(20, 20, 5)).reshape(-1, 3)
    assert found.dtype == np.uint8
    assert (found.min(0) == code_maps.DARKEST).all()
    assert (found.max(0) == 255).all()
    correlation = np.corrcoef(along.T, found.T)[:3, 3:]
    np.testing.assert_allclose(np.abs(correlation), np.eye(3), atol=0.15)
    np.testing.assert_array_equal(code_maps.fit(vectors).of(vectors), found)
    # The same axes, whatever their order and sign.
    np.testing.assert_array_equal(code_maps.fit(vectors[::-1]).of(vectors), found)


@pytest.mark.parametrize("num", [1, 2])
def test_few_vectors_have_colours_too(num):
    vectors = np.arange(num)[:, None] * np.ones(4)
    found = code_maps.fit(vectors).of(vectors)
    assert (found[:, 1:] == found[0, 1]).all()
    assert len(np.unique(found[:, 0])) == num
    far = code_maps.fit(vectors).of(np.full(4, 1e9))
    assert far.max() <= 255
