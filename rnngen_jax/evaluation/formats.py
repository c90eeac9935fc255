"""What PNG and lossless WebP make of images, to compare a model's compression with.

Each gets its best: PNG the smallest of 8-bit levels brought to 0..255, 8-bit levels as they are
and, for up to 16 levels, 1, 2 or 4 bits a pixel; WebP levels as they are, which it packs itself.
Encoders try their hardest: `optimize` for PNG, quality 100 and method 6 for WebP. As headers weigh
more than a small image's pixels, all images are also put side by side on one sheet.
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
    """Bytes that images take: each in a file of its own, and all on one sheet."""

    singles: int
    sheet: int


def png(images: np.ndarray, levels: int) -> Sizes:
    """Bytes as PNG, of uint8 `[N, H, W, C]` with 1 or 3 channels."""
    one = sheet(images)[None]
    return Sizes(_png(images, levels), _png(one, levels))


def webp(images: np.ndarray) -> Sizes:
    """Bytes as lossless WebP, of uint8 `[N, H, W, C]` with 1 or 3 channels."""
    singles = sum(_bytes(_picture(image), WEBP) for image in images)
    return Sizes(singles, _bytes(_picture(sheet(images)), WEBP))


def sheet(images: np.ndarray) -> np.ndarray:
    """All images side by side, about as high as wide; what stays empty is 0.

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
    """Bytes of all images, a file each, in the form that takes fewest."""
    forms = [images, to_pixels(images, levels)[..., : images.shape[-1]]]
    sizes = [sum(_bytes(_picture(image), PNG) for image in form) for form in forms]
    if levels <= FEW and images.shape[-1] == 1:
        sizes.append(sum(_bytes(_packed(image, levels), PNG) for image in images))
    return min(sizes)


def _picture(image: np.ndarray) -> Image.Image:
    """`[H, W, C]` as a grey or RGB picture."""
    single = image[..., 0] if image.shape[-1] == 1 else image
    return Image.fromarray(np.ascontiguousarray(single))


def _packed(image: np.ndarray, levels: int) -> Image.Image:
    """A grey image `[H, W, 1]` of few levels, as a picture that is stored in few bits a pixel."""
    if levels == 2:
        return Image.fromarray(image[..., 0] > 0)
    picture = _picture(image)
    greys = to_pixels(np.arange(levels, dtype=np.uint8)[:, None], levels)
    picture.putpalette(greys.tobytes())  # Pillow takes the bits from the palette's length
    return picture


def _bytes(picture: Image.Image, options: dict[str, Any]) -> int:
    """The size of one file."""
    file = io.BytesIO()
    picture.save(file, **options)
    return file.tell()
