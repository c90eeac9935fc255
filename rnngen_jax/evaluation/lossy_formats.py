"""JPEG and lossy WebP at their qualities, to compare a model's compression with loss with.

All images are on one sheet, as in files of their own the headers of small images outweigh them. Of
JPEG the smaller of a baseline and a progressive file is taken, with Huffman tables made for the
sheet; they hold the same pixels. WebP is written with its slowest search.

A file's payload leaves out what a sheet of any size would need: of JPEG all marker segments, so all
but the entropy-coded data (Huffman tables are in segments and so are left out, which favours JPEG);
of WebP the RIFF header, the chunks' headers, all chunks but the image's, and the first 10 bytes of
that, the frame header, which has the sheet's size.
"""

import io
import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from rnngen_jax.errors import UserError
from rnngen_jax.evaluation.formats import picture, sheet
from rnngen_jax.evaluation.pictures import to_pixels

# Finely at the low end, where a step of quality changes the size most.
JPEG_QUALITIES = (*range(1, 11), *range(12, 31, 2), *range(35, 96, 5))
WEBP_QUALITIES = (0, 0.01, 0.03, 0.1, 0.2, 0.35, 0.5, 0.75, *JPEG_QUALITIES)
VP8_HEADER = 10  # frame tag, start code, width and height (RFC 6386, section 9.1)


class Encoded(NamedTuple):
    """Images in a format with loss.

    Attributes:
      quality: of 0 to 95, of WebP also between whole numbers.
      size: bytes of the file.
      payload: bytes without its headers.
      images: what comes back, 8-bit values, uint8 `[N, H, W, C]`.
    """

    quality: float
    size: int
    payload: int
    images: np.ndarray


def require_fits(channels: int) -> None:
    """Raises a `UserError` for images that are neither grey nor RGB."""
    if channels not in (1, 3):
        raise UserError(f"JPEG and WebP take images of 1 or 3 channels, and these have {channels}.")


def eight_bit(images: np.ndarray, levels: int) -> np.ndarray:
    """Grey levels `[N, H, W, C]` as 8-bit values, uint8."""
    return to_pixels(images, levels)[..., : images.shape[-1]]


def jpeg(images: np.ndarray, qualities: Sequence[float] = JPEG_QUALITIES) -> Iterator[Encoded]:
    """Images as JPEG at each quality.

    Args:
      images: 8-bit values, uint8 `[N, H, W, C]` with 1 or 3 channels.
      qualities: whole numbers, 1 to 95.
    """
    whole = picture(sheet(images))
    for quality in qualities:
        files = [
            _file(whole, format="JPEG", quality=quality, optimize=True, progressive=progressive)
            for progressive in (False, True)
        ]
        smallest = min(files, key=len)
        payload = min(map(jpeg_payload, files))
        yield Encoded(quality, len(smallest), payload, _back(smallest, images.shape))


def webp(images: np.ndarray, qualities: Sequence[float] = WEBP_QUALITIES) -> Iterator[Encoded]:
    """Images as lossy WebP at each quality, 0 to 95; `images` as for `jpeg`."""
    whole = picture(sheet(images))
    for quality in qualities:
        file = _file(whole, format="WEBP", quality=quality, method=6)
        yield Encoded(quality, len(file), webp_payload(file), _back(file, images.shape))


def jpeg_payload(file: bytes) -> int:
    """The bytes of entropy-coded data in a JPEG file: all that is in none of its segments."""
    at, found = 2, 0  # behind the start of the image
    while True:
        marker = file[at + 1]
        if marker == 0xD9:  # the end of the image
            return found
        at += 2 + struct.unpack_from(">H", file, at + 2)[0]
        if marker == 0xDA:  # a scan follows: all up to the next marker that is not a part of it
            start = at
            while file[at] != 0xFF or file[at + 1] == 0 or 0xD0 <= file[at + 1] <= 0xD7:
                at += 1
            found += at - start


def webp_payload(file: bytes) -> int:
    """The bytes of the image itself in a lossy WebP file."""
    at = 12  # behind the RIFF header
    while file[at : at + 4] != b"VP8 ":
        size = struct.unpack_from("<I", file, at + 4)[0]
        at += 8 + size + size % 2
    return struct.unpack_from("<I", file, at + 4)[0] - VP8_HEADER


def _file(whole: Image.Image, **options: object) -> bytes:
    """A picture as a file."""
    file = io.BytesIO()
    whole.save(file, **options)
    return file.getvalue()


def _back(file: bytes, shape: tuple[int, ...]) -> np.ndarray:
    """The images on the sheet in a file, uint8 `[N, H, W, C]`."""
    num, height, width, channels = shape
    with Image.open(io.BytesIO(file)) as opened:
        pixels = np.asarray(opened.convert("L" if channels == 1 else "RGB"))
    rows, columns = pixels.shape[0] // height, pixels.shape[1] // width
    cells = pixels.reshape(rows, height, columns, width, channels).swapaxes(1, 2)
    return cells.reshape(rows * columns, height, width, channels)[:num]
