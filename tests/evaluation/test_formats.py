"""Reported sizes are those of lossless PNG and WebP files."""

import io

import numpy as np
import pytest
from PIL import Image

from rnngen_jax.evaluation import formats, pictures


def images(num, levels, shape=(6, 5, 1)):
    smooth = np.random.default_rng(0).random((num, *shape)).cumsum(1)
    return (smooth / smooth.max() * (levels - 1)).astype(np.uint8)


def test_a_sheet_holds_all_images_side_by_side():
    drawn = images(7, 256, (4, 2, 3))
    sheet = formats.sheet(drawn)
    assert sheet.shape == (2 * 4, 4 * 2, 3)  # as square as can be
    for number in range(7):
        row, column = divmod(number, 4)
        cell = sheet[row * 4 : row * 4 + 4, column * 2 : column * 2 + 2]
        np.testing.assert_array_equal(cell, drawn[number])
    assert not sheet[4:, 6:].any()
    assert formats.sheet(drawn[:1]).shape == (4, 2, 3)
    assert formats.sheet(images(3, 256, (1, 50, 1))).shape == (3, 50, 1)


@pytest.mark.parametrize("levels", [2, 4, 16, 17, 256])
def test_png_is_never_larger_than_the_pictures_that_are_written(tmp_path, levels):
    drawn = images(9, levels)
    pictures.write_singles(tmp_path, drawn, levels)
    written = sum(path.stat().st_size for path in tmp_path.iterdir())
    sizes = formats.png(drawn, levels)
    assert sizes.sheet < sizes.singles <= written


@pytest.mark.parametrize("levels", [2, 3, 4, 5, 16])
def test_few_levels_are_stored_in_few_bits_and_come_back(levels):
    drawn = images(1, levels)[0]
    file = io.BytesIO()
    formats._packed(drawn, levels).save(file, **formats.PNG)
    bits = file.getvalue()[24]  # a channel's, in the header
    assert bits == {2: 1, 3: 2, 4: 2, 5: 4, 16: 4}[levels]
    with Image.open(file) as image:
        pixels = np.asarray(image.convert("L"))
    np.testing.assert_array_equal(pixels, pictures.to_pixels(drawn, levels)[..., 0])


@pytest.mark.parametrize("channels", [1, 3])
def test_webp_loses_nothing(channels):
    drawn = images(2, 256, (9, 8, channels))
    total = 0
    for image in drawn:
        file = io.BytesIO()
        formats.picture(image).save(file, **formats.WEBP)
        total += len(file.getvalue())
        with Image.open(file) as opened:
            pixels = np.asarray(opened.convert("RGB"))
        np.testing.assert_array_equal(pixels, np.broadcast_to(image, (9, 8, 3)))
    assert formats.webp(drawn).singles == total
