"""The file format: what was packed comes back, and nothing else is ever believed."""

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
    pixels=b"pixelpix",
    maker="0.10.2 cpu x86_64",
    names=None,
    stream=np.random.default_rng(0).bytes(4000),
)
SMALL = CONTENT._replace(shape=(4, 3, 1), num=3, batch_size=4, names=("a", "b.c", "ü d"))


@pytest.mark.parametrize(
    "content",
    [CONTENT, SMALL, SMALL._replace(levels=2, labelled=False, maker="", stream=b"", batch_size=1)],
)
def test_what_was_packed_comes_back(content):
    assert container.unpack(container.pack(content), "f") == content


def test_little_stands_beside_the_stream():
    assert len(container.pack(CONTENT)) - len(CONTENT.stream) <= 64


def test_the_bytes_stand_where_the_format_says():
    """Read by hand, for files outlive the code that wrote them."""
    whole = container.pack(SMALL)
    assert whole[:6] == b"\x89RNN\x01\x03"
    assert struct.unpack_from("<HHBBIB", whole, 6) == (4, 3, 1, 255, 3, 2)
    assert whole[17:33] == b"modelmodpixelpix"
    assert struct.unpack_from("<IB", whole, 33) == (1000, 17)
    assert whole[38:55] == b"0.10.2 cpu x86_64"
    (length,) = struct.unpack_from("<I", whole, 55)
    assert zlib.decompress(whole[59 : 59 + length]).decode() == "a\nb.c\nü d"
    assert whole[59 + length : -8] == SMALL.stream


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
    whole = container.pack(SMALL._replace(stream=SMALL.stream[:120]))
    rng = np.random.default_rng(0)
    tried = 0
    while tried < 1000:
        damaged = corrupted(whole, rng)
        if damaged != whole:
            tried += 1
            with pytest.raises(UserError):
                container.unpack(damaged, "f")


def test_headers_that_lie_under_a_right_digest():
    """Every byte of the head is set to every value, and the digest made anew."""
    content = SMALL._replace(stream=SMALL.stream[:40])
    body = container.pack(content)[:-8]
    head = len(body) - len(content.stream)
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
            assert len(got.stream) == len(content.stream)
            assert got.names is None or len(got.names) == got.num
    assert refused > 256 * 10


def forged(content, **fields):
    """A file with other numbers in its head, under a right digest."""
    whole = bytearray(container.pack(content))
    places = {"version": "<B4", "num": "<I12", "log_batch": "<B16", "words": "<I33"}
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
        (forged(SMALL, version=2), "format version 2; this one reads 1"),
        (forged(SMALL, num=2**32 - 1), "claims 4294967295 images, too many"),
        (forged(SMALL, num=0), "holds 0 images"),
        (forged(SMALL, log_batch=200), r"batch size is 2\^200"),
        (forged(SMALL, words=2**32 - 1), "bytes early"),
        (forged(SMALL, words=999), "4 bytes follow the stream"),
        (forged(SMALL._replace(names=("a", "b", "../c"))), "no plain file name"),
        (forged(SMALL._replace(names=("a", "b", "/etc/c"))), "no plain file name"),
        (forged(SMALL._replace(names=("a", "b", "..\\c"))), "no plain file name"),
        (forged(SMALL._replace(names=("a", "b", "C:c"))), "no plain file name"),
        (forged(SMALL._replace(names=("a", "b", ".."))), "no plain file name"),
        (forged(SMALL._replace(names=("a", "b", ".hidden"))), "no plain file name"),
        (forged(SMALL._replace(names=("a", "b", ""))), "no plain file name"),
        (forged(SMALL._replace(names=("a", "b", "c\0d"))), "no plain file name"),
        (forged(SMALL._replace(names=("a", "b", "c" * 252))), "no plain file name"),
        (forged(SMALL._replace(names=("a", "b", "a"))), "two images have the same name"),
        (forged(SMALL._replace(names=("a", "b"))), "2 names for 3 images"),
        (forged(SMALL._replace(names=("a" * 600, "b", "c"))), "no plain file name"),
        (forged(SMALL._replace(names=("a" * 800, "b", "c"))), "cut off, or too long"),
        (forged(SMALL._replace(names=("a", "b", "c\nd"))), "4 names for 3 images"),
        (forged(SMALL._replace(maker="\x1b[31m")), "was made with"),
    ],
)
def test_files_that_are_refused(whole, expected):
    with pytest.raises(UserError, match=expected):
        container.unpack(whole, "f")


def test_a_stream_of_nothing_holds_no_more_than_it_can():
    """No value is coded in no bits at all, so a short stream cannot hold many."""
    short = SMALL._replace(shape=(8, 8, 1), names=None, stream=bytes(4))
    assert container.unpack(forged(short, num=95_000), "f").num == 95_000
    with pytest.raises(UserError, match="too many for a stream of 1 words"):
        container.unpack(forged(short, num=100_000), "f")


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
    for fields in (
        {"shape": (2**16, 1, 1)},
        {"shape": (1, 1, 256)},
        {"levels": 257},
        {"num": 0},
        {"num": 2**32},
    ):
        with pytest.raises(UserError, match="do not fit"):
            container.pack(CONTENT._replace(**fields))
    with pytest.raises(UserError, match="the names take"):
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
