"""The file format: packing is invertible, and every field is checked when read."""

import os
import struct
import tracemalloc
import zlib

import numpy as np
import pytest

from rnngen_jax.errors import UserError
from rnngen_jax.evaluation import container

CONTENT = container.Container(
    shape=(28, 20, 3),
    levels=256,
    num=70_000,
    batch_size=1024,
    labelled=True,
    model=b"modelmod",
    arithmetic=b"arit",
    pixels=tuple(bytes([batch] * 8) for batch in range(69)),
    maker="0.10.2 cpu x86_64",
    names=None,
    streams=(np.random.default_rng(0).bytes(4000),),
)
SMALL = CONTENT._replace(
    shape=(4, 3, 1), num=3, batch_size=4, pixels=(b"pixelpix",), names=("a", "b.c", "ü d")
)
# Only these need version 3.
CODES = SMALL._replace(shape=(4, 3, 2), levels=1024)
# And this version 4: two batches with a stream each.
BATCHES = SMALL._replace(
    batch_size=2, pixels=(b"pixelpix", b"elsepixe"), streams=(bytes(range(12)), b"\1\2\3\4")
)
# And these version 5: codes in the place of the images, of one grid and of two.
GRID = container.Grid((7, 6, 2), 512)
LOSSY = SMALL._replace(grids=(GRID,))
TWO_GRIDS = BATCHES._replace(grids=(GRID, container.Grid((14, 14, 1), 2**20)))
# Digests of the first four contents' files, as written before there was a version 5.
BEFORE = ["9fc60b41a94301b8", "5fb0d963cbc5358c", "a5cfa967677e96b2", "7753a2ddcb724d4e"]
# Two batches, of three images, as version 1 packed them.
FIRST = bytes.fromhex(
    "89524e4e01030400030001ff03000000016d6f64656c6d6f64706978656c7069780a00000011302e31302e322063"
    "7075207838365f36341200000078da4be44ad24be63abc4721050010e8036c000102030405060708090a0b0c0d0e"
    "0f101112131415161718191a1b1c1d1e1f2021222324252627571eb8bc0161982d"
)


@pytest.mark.parametrize(
    "content",
    [
        CONTENT,
        SMALL,
        SMALL._replace(levels=2, labelled=False, maker="", streams=(b"",)),
        CODES,
        CODES._replace(levels=container.MOST_LEVELS),
        SMALL._replace(shape=(5, 4, 3, 1)),
        BATCHES,
        BATCHES._replace(streams=(b"", bytes(8)), names=None),
        LOSSY,
        TWO_GRIDS,
        SMALL._replace(shape=(1, 1, 2**16 - 1)),
        SMALL._replace(batch_size=1, pixels=(b"pixel--0", b"pixel--1", b"pixel--2")),
    ],
)
def test_what_was_packed_comes_back(content):
    assert container.unpack(container.pack(content), "f") == content


def test_little_stands_beside_the_stream():
    beside = len(container.pack(CONTENT)) - len(CONTENT.streams[0])
    assert beside <= 56 + 8 * 69  # of which each batch takes 8


def test_version_3_is_written_for_what_version_2_cannot_hold():
    assert container.pack(SMALL)[4] == 2
    whole = container.pack(CODES._replace(shape=(5, 4, 3, 2)))
    assert whole[:6] == b"\x89RNN\x03\x03"
    assert struct.unpack_from("<HHHHIIB", whole, 6) == (4, 3, 2, 5, 1023, 3, 2)


def test_the_bytes_stand_where_the_format_says():
    """Read by hand, as files outlive the code that wrote them."""
    whole = container.pack(SMALL)
    assert whole[:6] == b"\x89RNN\x02\x03"
    assert struct.unpack_from("<HHBBIB", whole, 6) == (4, 3, 1, 255, 3, 2)
    assert whole[17:30] == b"modelmodarit\x11"
    assert whole[30:47] == b"0.10.2 cpu x86_64"
    (length,) = struct.unpack_from("<I", whole, 47)
    assert zlib.decompress(whole[51 : 51 + length]).decode() == "a\nb.c\nü d"
    assert whole[51 + length : -8] == b"pixelpix" + SMALL.streams[0]


def test_the_streams_of_batches_stand_behind_their_lengths():
    whole = container.pack(BATCHES)
    assert whole[:6] == b"\x89RNN\x04\x03"
    lengths = struct.pack("<II", 3, 1)
    assert whole[:-8].endswith(b"pixelpixelsepixe" + lengths + b"".join(BATCHES.streams))
    beside = container.pack(BATCHES._replace(streams=(b"".join(BATCHES.streams),)))
    assert len(whole) - len(beside) == 6 + 2 * 4  # a longer head, and a word for each batch


def test_codes_in_the_place_of_images_are_a_version_of_their_own():
    """Older readers name the version and do not take the codes for pixels."""
    whole = container.pack(LOSSY)
    assert whole[:6] == b"\x89RNN\x05\x0b"
    assert struct.unpack_from("<HHHHIIB", whole, 6) == (4, 3, 1, 0, 255, 3, 2)  # of the images
    words = struct.pack("<I", len(LOSSY.streams[0]) // 4)
    grid = struct.pack("<BHHHI", 1, 7, 6, 2, 511)
    assert whole[:-8].endswith(grid + b"pixelpix" + words + LOSSY.streams[0])


def test_what_loses_nothing_is_written_as_before():
    """To the byte: these are the digests of files that the versions up to 4 have written."""
    written = [container.pack(content) for content in (CONTENT, SMALL, CODES, BATCHES)]
    assert [whole[4] for whole in written] == [2, 2, 3, 4]
    assert [container.digest([whole]).hex() for whole in written] == BEFORE


def test_files_of_version_1_are_read():
    assert container.unpack(FIRST, "f") == SMALL._replace(
        batch_size=2, arithmetic=None, streams=(bytes(range(40)),)
    )


def corrupted(whole, rng):
    """One of five ways in which a file is damaged."""
    damaged = bytearray(whole)
    at, other = rng.integers(0, len(whole), 2)
    match rng.integers(5):
        case 0:
            damaged[at] ^= 1 << rng.integers(8)
        case 1:
            del damaged[at:]
        case 2:
            damaged += rng.bytes(rng.integers(1, 20))
        case 3:
            damaged[at], damaged[other] = damaged[other], damaged[at]
        case 4:
            low, high = sorted((at, other))
            damaged[low : high + 1] = bytes(high + 1 - low)
    return bytes(damaged)


def test_a_thousand_damaged_files_are_refused():
    whole = container.pack(SMALL._replace(streams=(SMALL.streams[0][:120],)))
    rng = np.random.default_rng(0)
    tried = 0
    while tried < 1000:
        damaged = corrupted(whole, rng)
        if damaged != whole:
            tried += 1
            with pytest.raises(UserError):
                container.unpack(damaged, "f")


@pytest.mark.parametrize("content", [SMALL, BATCHES, LOSSY], ids=["one", "batches", "lossy"])
def test_headers_that_lie_under_a_right_digest(content):
    """Every byte of the head is set to every value, with a new digest."""
    content = content._replace(streams=tuple(stream[:40] for stream in content.streams))
    body = container.pack(content)[:-8]
    head = len(body) - sum(map(len, content.streams))
    refused = 0
    for at in range(head):
        for value in range(256):
            forged = body[:at] + bytes([value]) + body[at + 1 :]
            try:
                got = container.unpack(forged + container.digest([forged]), "f")
            except UserError:
                refused += 1
                continue
            assert got.num * np.prod(got.shape) <= container.MOST_BYTES
            assert got.batch_size <= container.MOST_BATCH
            assert 8 * len(got.pixels) + sum(map(len, got.streams)) < len(forged)
            assert len(got.streams) in (1, len(got.pixels))
            assert 8 * -(-got.num // got.batch_size) < len(forged)
            assert got.names is None or len(got.names) == got.num
    assert refused > 256 * 10


def forged(content, **fields):
    """A file with other numbers in its head and a valid digest."""
    whole = bytearray(content if isinstance(content, bytes) else container.pack(content))
    third = {"frames": "<H12", "levels": "<I14", "num": "<I18"}
    third["words4"] = f"<I{len(whole) - 8 - 16 - 8}"  # the first of two streams of two words
    places = {"version": "<B4", "num": "<I12", "log_batch": "<B16", "words": "<I33"}
    places |= third if whole[4] > 2 else {}
    if whole[4] == 5:  # one grid and one stream
        (length,) = struct.unpack_from("<I", whole, 53)  # of the names
        at = 57 + length
        places |= {"grids": f"<B{at}", "top": f"<I{at + 7}", "words5": f"<I{at + 19}"}
    for name, value in fields.items():
        kind, at = places[name][:2], int(places[name][2:])
        struct.pack_into(kind, whole, at, value)
    body = bytes(whole[:-8])
    return body + container.digest([body])


@pytest.mark.parametrize(
    ("whole", "expected"),
    [
        (b"", "not a file that `compress` wrote"),
        (b"\x89RNN", "damaged or truncated"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "not a file that `compress` wrote"),
        (forged(SMALL, version=6), "format version 6, and this version reads 1 to 5; update"),
        (forged(BATCHES._replace(streams=(bytes(8), bytes(8))), words4=9), "bytes early"),
        (forged(BATCHES._replace(streams=(bytes(8), bytes(8))), words4=1), "4 bytes follow"),
        (forged(SMALL, version=0), "format version 0, and this version reads 1 to 5; update"),
        (forged(LOSSY, num=2**24), "claims 16777216 images, too many"),
        (forged(LOSSY._replace(grids=(GRID._replace(shape=(7, 0, 2)),))), r"grids of shape \(7, 0"),
        (forged(LOSSY, grids=0), "claims 0 grids"),
        (forged(LOSSY, top=2**32 - 1), "4294967296 codes"),
        (forged(LOSSY._replace(grids=(GRID._replace(shape=(60000, 60000, 1)),))), "claims 1 grids"),
        (forged(LOSSY, words5=2**20), "bytes early"),
        (forged(LOSSY, words5=1), "bytes follow"),
        (forged(CODES, num=2**24), "claims 16777216 images, too many"),
        (forged(CODES, frames=2**16 - 1, num=2**18), "claims 262144 images, too many"),
        (forged(CODES, levels=2**32 - 1), "4294967296 levels"),
        (forged(SMALL, num=2**32 - 1), "claims 4294967295 images, too many"),
        (forged(CONTENT, num=2**24), "claims 16777216 images, too many for 4599 bytes"),
        (forged(FIRST, num=2**24), "claims 16777216 images, too many for 117 bytes"),
        (forged(SMALL, num=0), "holds 0 images"),
        (forged(SMALL, log_batch=200), r"batch size is 2\^200"),
        (forged(FIRST, words=2**32 - 1), "bytes early"),
        (forged(FIRST, words=9), "4 bytes follow the stream"),
        (forged(SMALL._replace(streams=(bytes(41),))), "1 bytes follow the stream"),
        (forged(SMALL._replace(streams=(b"",), pixels=())), "bytes early"),
        (forged(SMALL._replace(names=("a", "b", "../c"))), "is not a plain file name"),
        (forged(SMALL._replace(names=("a", "b", "/etc/c"))), "is not a plain file name"),
        (forged(SMALL._replace(names=("a", "b", "..\\c"))), "is not a plain file name"),
        (forged(SMALL._replace(names=("a", "b", "C:c"))), "is not a plain file name"),
        (forged(SMALL._replace(names=("a", "b", ".."))), "is not a plain file name"),
        (forged(SMALL._replace(names=("a", "b", ".hidden"))), "is not a plain file name"),
        (forged(SMALL._replace(names=("a", "b", ""))), "is not a plain file name"),
        (forged(SMALL._replace(names=("a", "b", "c\0d"))), "is not a plain file name"),
        (forged(SMALL._replace(names=("a", "b", "c" * 252))), "is not a plain file name"),
        (forged(SMALL._replace(names=("a", "b", "a"))), "two images have the same name"),
        (forged(SMALL._replace(names=("a", "b"))), "2 names for 3 images"),
        (forged(SMALL._replace(names=("a" * 600, "b", "c"))), "is not a plain file name"),
        (forged(SMALL._replace(names=("a" * 800, "b", "c"))), "cut off, or too long"),
        (forged(SMALL._replace(names=("a", "b", "c\nd"))), "4 names for 3 images"),
        (forged(SMALL._replace(maker="\x1b[31m")), "was made with"),
    ],
)
def test_files_that_are_refused(whole, expected):
    with pytest.raises(UserError, match=expected):
        container.unpack(whole, "f")


def test_a_file_claims_no_more_batches_than_its_size_has_room_for():
    """Each takes work and a digest of 8 bytes; version 1 has the same limit."""
    whole = FIRST[:5] + b"\0" + FIRST[6:55] + FIRST[77:]  # without names
    room = (len(whole) - 8) // 8
    assert container.unpack(forged(whole, num=2 * room), "f").num == 2 * room
    with pytest.raises(UserError, match=f"claims {2 * room + 1} images, too many for"):
        container.unpack(forged(whole, num=2 * room + 1), "f")


def test_names_that_would_unpack_to_all_memory_take_none():
    bomb = SMALL._replace(names=("a" * 50_000_000,))
    whole = container.pack(bomb)
    assert len(whole) < 100_000
    tracemalloc.start()
    with pytest.raises(UserError, match="cut off, or too long"):
        container.unpack(whole, "f")
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 2**20


def test_content_that_the_format_cannot_hold_is_refused():
    for fields, allowed in (
        ({"shape": (2**16, 1, 1)}, "≤ 65535 per axis"),
        ({"shape": (2**16, 1, 1, 1)}, "≤ 65535 per axis"),
        ({"shape": (1, 1, 2**16)}, "≤ 65535 per axis"),
        ({"levels": container.MOST_LEVELS + 1}, r"in \[2, "),
        ({"levels": 1}, r"in \[2, "),
        ({"num": 0}, r"in \[1, "),
        ({"num": 2**32}, r"in \[1, "),
        ({"grids": (GRID._replace(codes=1),)}, r"in \[2, "),
        ({"grids": (GRID._replace(shape=(2**16, 1, 1)),)}, "≤ 65535 per axis"),
    ):
        with pytest.raises(UserError, match=f"images to compress must be {allowed}"):
            container.pack(CONTENT._replace(**fields))
    with pytest.raises(UserError, match="the names' bytes must be ≤ "):
        container.pack(SMALL._replace(names=("a" * (container.MOST_NAMES + 1),)))


def test_files_that_are_not_there_or_too_large(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="no such file"):
        container.read(tmp_path / "none.rnn")
    with pytest.raises(UserError, match="is a folder, not a file; give one that `compress` wrote"):
        container.read(tmp_path)
    os.mkfifo(tmp_path / "pipe.rnn")
    with pytest.raises(UserError, match=r"pipe\.rnn: is a named pipe, not a file"):
        container.read(tmp_path / "pipe.rnn")
    (tmp_path / "f.rnn").write_bytes(container.pack(SMALL))
    assert container.read(tmp_path / "f.rnn") == SMALL
    monkeypatch.setattr(container, "MOST_BYTES", 100)
    with pytest.raises(UserError, match="larger than 100 bytes"):
        container.read(tmp_path / "f.rnn")
