"""Sizes of images as PNG and lossless WebP, to compare a model's compression with.

Each format is used at its best. PNG takes the smallest of 8-bit levels scaled to 0..255, 8-bit
levels as they are and, for up to 16 levels, 1, 2 or 4 bits per pixel. WebP takes levels as they are
and packs them itself. Encoders use their slowest settings: `optimize` for PNG, quality 100 and
method 6 for WebP. As headers outweigh the pixels of small images, all images are also compressed
side by side on one sheet.
"""

import io
import math
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from rnngen_jax.evaluation.pictures import to_pixels

WEBP = {"format": "WEBP", "lossless": True, "quality": 100, "method": 6}
PNG = {"format": "PNG", "optimize": True}
FEW = 16  # levels that fit into 4 bits


class Sizes(NamedTuple):
    """Sizes in bytes: of all images in separate files, and on one sheet."""

    singles: int
    sheet: int


def png(images: np.ndarray, levels: int) -> Sizes:
    """Sizes as PNG of images, uint8 `[N, H, W, C]` with 1 or 3 channels."""
    one = sheet(images)[None]
    return Sizes(_png(images, levels), _png(one, levels))


def webp(images: np.ndarray) -> Sizes:
    """Sizes as lossless WebP of images, uint8 `[N, H, W, C]` with 1 or 3 channels."""
    singles = sum(_bytes(picture(image), WEBP) for image in images)
    return Sizes(singles, _bytes(picture(sheet(images)), WEBP))


def sheet(images: np.ndarray) -> np.ndarray:
    """All images side by side, about as high as wide; empty cells are 0.

    Args:
      images: uint8 `[N, H, W, C]`.

    Returns:
      uint8 `[H', W', C]`.
    """
    num, height, width, channels = images.shape
    columns = min(num, math.ceil(math.sqrt(num * height / width)))
    rows = math.ceil(num / columns)
    cells = np.zeros((rows * columns, height, width, channels), np.uint8)
    cells[:num] = images
    cells = cells.reshape(rows, columns, height, width, channels).swapaxes(1, 2)
    return cells.reshape(rows * height, columns * width, channels)


def _png(images: np.ndarray, levels: int) -> int:
    """Total size of all images in separate files, in the form that takes the fewest bytes."""
    forms = [images, to_pixels(images, levels)[..., : images.shape[-1]]]
    sizes = [sum(_bytes(picture(image), PNG) for image in form) for form in forms]
    if levels <= FEW and images.shape[-1] == 1:
        sizes.append(sum(_bytes(_packed(image, levels), PNG) for image in images))
    return min(sizes)


def picture(image: np.ndarray) -> Image.Image:
    """`[H, W, C]` as a grey or RGB picture."""
    single = image[..., 0] if image.shape[-1] == 1 else image
    return Image.fromarray(np.ascontiguousarray(single))


def _packed(image: np.ndarray, levels: int) -> Image.Image:
    """A grey image `[H, W, 1]` of few levels, as a picture of few bits per pixel in PNG."""
    if levels == 2:
        return Image.fromarray(image[..., 0] > 0)
    packed = picture(image)
    greys = to_pixels(np.arange(levels, dtype=np.uint8)[:, None], levels)
    packed.putpalette(greys.tobytes())  # its length sets Pillow's bits per pixel
    return packed


def _bytes(whole: Image.Image, options: dict[str, Any]) -> int:
    """The size of one file in bytes."""
    file = io.BytesIO()
    whole.save(file, **options)
    return file.tell()
