"""Cutting into patches and reassembling, against loops."""

import numpy as np
import pytest

from rnngen_jax.ops import patches

B, H, W, C = 3, 4, 6, 2
SIZES = [(1, W), (H, 1), (2, 2), (2, 3), (1, 1), (H, W)]  # rows, columns, squares and others


def cut(images, height, width):
    """Patches in raster order, values in raster order within each."""
    steps = []
    for top in range(0, images.shape[1], height):
        for left in range(0, images.shape[2], width):
            patch = images[:, top : top + height, left : left + width]
            steps.append([image.ravel() for image in patch])
    return np.array(steps)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_an_image_is_cut_in_raster_order(height, width):
    images = np.arange(B * H * W * C).reshape(B, H, W, C)
    got = patches.to_steps(images, height, width)
    np.testing.assert_array_equal(got, cut(images, height, width))


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("rest", [(), (5,), (2, 3)])
def test_patches_are_put_where_they_were(height, width, rest):
    images = np.random.default_rng(0).standard_normal((B, H, W, C, *rest))
    # Trailing axes belong to each value, so they may be cut separately.
    flat = images.reshape(B, H, W, C, -1)
    steps = np.stack([cut(flat[..., n], height, width) for n in range(flat.shape[-1])], -1)
    steps = steps.reshape(*steps.shape[:3], *rest).astype(np.float32)
    got = patches.from_steps(steps, (H, W, C), height, width)
    np.testing.assert_array_equal(got, images.astype(np.float32))


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_one_undoes_the_other(height, width):
    images = np.random.default_rng(0).integers(0, 256, (B, H, W, C))
    steps = patches.to_steps(images, height, width)
    back = patches.from_steps(steps, (H, W, C), height, width)
    np.testing.assert_array_equal(back, images)
    np.testing.assert_array_equal(patches.to_steps(back, height, width), steps)


@pytest.mark.parametrize("size", [1, 2])
def test_patches_become_places_and_back(size):
    """In raster order, within a patch and over a map, for any leading axes."""
    images = np.arange(2 * B * H * W * C).reshape(2, B, H, W, C)
    maps = patches.space_to_depth(images, size)
    assert maps.shape == (2, B, H // size, W // size, size**2 * C)
    steps = np.stack([cut(frame, size, size) for frame in images], axis=1)
    wanted = np.moveaxis(steps, 0, 2).reshape(maps.shape)
    np.testing.assert_array_equal(maps, wanted)
    np.testing.assert_array_equal(patches.depth_to_space(maps, size), images)


def test_patches_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="patches of side 4 must divide images of 4 by 6"):
        patches.space_to_depth(np.zeros((B, H, W, C)), 4)
    with pytest.raises(ValueError, match="6 features are no patches of side 2"):
        patches.depth_to_space(np.zeros((B, H, W, 6)), 2)
