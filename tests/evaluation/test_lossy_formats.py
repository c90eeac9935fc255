"""JPEG and WebP with loss: what comes back, and which bytes of a file are headers."""

import io

import numpy as np
import pytest
from PIL import Image

from rnngen_jax.errors import UserError
from rnngen_jax.evaluation import formats, lossy_formats


def smooth(num, side, channels=1):
    """Blurred blobs, which both formats take well to."""
    at = np.arange(side) / side
    phase = np.arange(num)[:, None, None, None] + np.arange(channels)
    waves = np.sin(6 * at[:, None, None] + phase) * np.cos(5 * at[:, None] + phase)
    return np.rint(127.5 + 127 * waves).astype(np.uint8)


def segment(marker, body):
    return bytes([0xFF, marker]) + (len(body) + 2).to_bytes(2, "big") + body


def test_a_jpegs_payload_is_what_is_in_no_segment():
    """Stuffed zeros and restart markers are parts of a scan; several scans are summed."""
    scans = [b"\x01\xff\x00\x02\xff\xd3\x03", b"\xff\xd7\xff\x00", b"abc"]
    file = b"\xff\xd8" + segment(0xE0, b"JFIF\0" + bytes(9)) + segment(0xDB, bytes(65))
    for scan in scans:
        file += segment(0xC4, b"\xff\xda\xff\xd9") + segment(0xDA, b"\x01\x02\xff\xda") + scan
    assert lossy_formats.jpeg_payload(file + b"\xff\xd9") == sum(map(len, scans))


def test_a_webps_payload_is_the_images_chunk_without_the_frames_header():
    def chunk(name, body):
        return name + len(body).to_bytes(4, "little") + body + b"\0" * (len(body) % 2)

    chunks = chunk(b"VP8X", bytes(10)) + chunk(b"ICCP", b"VP8 VP8") + chunk(b"VP8 ", bytes(33))
    file = b"RIFF" + len(chunks).to_bytes(4, "little") + b"WEBP" + chunks
    assert lossy_formats.webp_payload(file) == 23


@pytest.mark.parametrize("name", ["jpeg", "webp"])
@pytest.mark.parametrize("channels", [1, 3])
def test_images_come_back_from_one_sheet(name, channels):
    """Five of 12x12, on a sheet with an empty place; better at higher quality, in more bytes."""
    images = smooth(5, 12, channels)
    low, high = getattr(lossy_formats, name)(images, [5, 95])
    errors = [np.abs(one.images - images.astype(float)).mean() for one in (low, high)]
    assert errors[1] < errors[0] / 2
    assert (low.quality, high.quality) == (5, 95)
    for one in (low, high):
        assert one.images.dtype == np.uint8
        assert 0 < one.payload < one.size
    assert low.payload < high.payload
    # The file is the one that Pillow makes of the sheet.
    options = {"format": name.upper(), "quality": 95}
    options |= {"method": 6} if name == "webp" else {"optimize": True}
    file = io.BytesIO()
    Image.fromarray(formats.sheet(images).squeeze()).save(file, **options)
    assert high.size <= file.tell()
    with Image.open(file) as opened:
        back = np.asarray(opened.convert("L" if channels == 1 else "RGB"))
    np.testing.assert_array_equal(formats.sheet(high.images)[:12], back.reshape(24, 36, -1)[:12])
    if name == "webp":
        assert high.size - high.payload - 30 in (0, 1)  # 12, 8 and 10 bytes, and a chunk's padding


def test_levels_are_spread_over_eight_bits():
    images = np.arange(17, dtype=np.uint8).reshape(1, 17, 1, 1)
    got = lossy_formats.eight_bit(images, 17).ravel()
    assert got.shape == (17,)
    assert (got[0], got[8], got[16]) == (0, 128, 255)


def test_other_than_grey_or_rgb_is_refused():
    lossy_formats.require_fits(3)
    with pytest.raises(UserError, match="1 or 3 channels, and these have 2"):
        lossy_formats.require_fits(2)
