"""The .rnn file format: compressed images, and what decoding them needs.

Little-endian, in this order:

    bytes   what
    4       b"\\x89RNN"
    1       version of the format, 2 to 5
    1       flags: 1 a stream begins with labels, 2 file names are stored; in version 5 also 8 the
            items are codes in the place of images
    2, 2    height, width
    1       channels; 2 bytes from version 3 on
    2       frames of a sequence, 0 for still images and codes; from version 3 on
    1       grey levels or codes, minus one; 4 bytes from version 3 on
    4       number of images
    1       base-2 logarithm of the batch size
    8       digest of the model: its config, its parameters
    4       digest of the arithmetic: the model's probabilities for a synthetic image
    1, n    length and text of the software and machine, such as "0.10.2 cpu x86_64"
    4, n    length and names, one per line, compressed by zlib; only with flag 2
    1       number of grids of codes; only with flag 8
    10·g    of each grid: height, width, depth, 2 bytes each, and codes, minus one, 4 bytes
    8·b     digest of the pixels, with flag 8 of the codes, and labels of each batch
    4·b     the length of each batch's stream in words; from version 4 on
    4·n     the streams one after the other, 32-bit words
    8       digest of all preceding bytes

Digests are BLAKE2b of 8 bytes, or the first 4 of them. Magic, version and the last digest have the
same place in every version, so that a newer file can be told from a damaged one. A digest detects
damage, not malice: every header field is checked before it is used.

The work that a file can cause is bounded by its size: a stream that differs from its header's
claims is detected within one batch, and a batch takes 8 bytes. Of a single batch, version 2 is
written for still images of up to 256 levels, and version 3 for all others; several batches are
written in version 4, each with a stream of its own. Version 5 is written for codes in the place of
images, which come back with loss: its head describes the images, its grids the codes, and its
streams are of the codes alone. Versions 2 and 3 with several batches, which have one stream for
all, are still read. So is version 1; instead of the arithmetic's digest it has one of all pixels
and labels, 8 bytes, and the stream's length in words, 4 bytes.
"""

import hashlib
import math
import os
import struct
import zlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from rnngen_jax import paths
from rnngen_jax.config import require
from rnngen_jax.errors import UserError
from rnngen_jax.files import require_file
from rnngen_jax.shapes import dtype_of

ENDING = ".rnn"
MAGIC = b"\x89RNN"
VERSION = 5
MOST_BYTES = 2**31  # of a file, and of the images in it
MOST_LEVELS = 2**20
MOST_NAMES = 2**26  # bytes of all names
MOST_BATCH = 2**16
LONGEST_NAME = 255  # bytes, ending included, as on most file systems

_LABELLED, _NAMED, _CODES = 1, 2, 8
_FLAGS = dict.fromkeys(range(1, 5), _LABELLED | _NAMED) | {5: _LABELLED | _NAMED | _CODES}
_DIGEST = 8
_ARITHMETIC = 4
_HEADS = {  # by version
    1: struct.Struct(f"<4sBBHHBBIB{_DIGEST}s{_DIGEST}sI"),
    2: struct.Struct(f"<4sBBHHBBIB{_DIGEST}s{_ARITHMETIC}s"),
    3: struct.Struct(f"<4sBBHHHHIIB{_DIGEST}s{_ARITHMETIC}s"),
}
_HEADS[4] = _HEADS[5] = _HEADS[3]
_GRID = struct.Struct("<HHHI")
_LENGTH = struct.Struct("<I")
_RESERVED = frozenset("/\\:")  # would name a place outside a folder, on this or another system


class Grid(NamedTuple):
    """A grid of codes of an image.

    Attributes:
      shape: `(h, w, depth)`.
      codes: number of codes, 2 to `MOST_LEVELS`.
    """

    shape: tuple[int, ...]
    codes: int

    def __str__(self) -> str:
        return f"{'x'.join(map(str, self.shape))} codes of {self.codes}"


class Container(NamedTuple):
    """The content of a file.

    Attributes:
      shape: `(H, W, C)` of one image, or `(T, H, W, C)` of a sequence.
      levels: grey levels or codes, 2 to `MOST_LEVELS`.
      num: number of images.
      batch_size: images that were coded together, a power of two.
      labelled: whether a stream begins with labels.
      model: digest of the model.
      arithmetic: digest of probabilities, 4 bytes, which differs where floating point does; `None`
        in a file of version 1.
      pixels: digests of the images, or of their codes, and labels of each batch; one of them all in
        version 1.
      maker: the JAX version and the machine that coded them.
      names: the images' names without ending, or `None`.
      streams: the coded words of each batch, or of all batches in one stream.
      grids: of the codes that are stored in the place of an image; empty without loss.
    """

    shape: tuple[int, ...]
    levels: int
    num: int
    batch_size: int
    labelled: bool
    model: bytes
    arithmetic: bytes | None
    pixels: tuple[bytes, ...]
    maker: str
    names: tuple[str, ...] | None
    streams: tuple[bytes, ...]
    grids: tuple[Grid, ...] = ()


def digest(parts: Iterable[bytes]) -> bytes:
    """BLAKE2b of 8 bytes over all parts in order."""
    state = hashlib.blake2b(digest_size=_DIGEST)
    for part in parts:
        state.update(part)
    return state.digest()


def arithmetic(tables: Iterable[bytes]) -> bytes:
    """The digest of probabilities, given as bytes, for `Container.arithmetic`."""
    return digest(tables)[:_ARITHMETIC]


def pack(content: Container) -> bytes:
    """The bytes of a file, in the oldest version still written that can hold the content.

    Raises:
      UserError: images or names that the format cannot hold.
    """
    *frames, height, width, channels = content.shape
    names = b""
    where = "images to compress"
    for shape, levels in ((content.shape, content.levels), *content.grids):
        require(max(shape) < 2**16, f"the shape of {where}", shape, "≤ 65535 per axis")
        allowed = f"in [2, {MOST_LEVELS}]"
        require(2 <= levels <= MOST_LEVELS, f"the levels of {where}", levels, allowed)
    require(1 <= content.num < 2**32, f"the number of {where}", content.num, "in [1, 2^32)")
    if content.names is not None:
        text = "\n".join(content.names).encode()
        require(len(text) <= MOST_NAMES, "the names' bytes", len(text), f"≤ {MOST_NAMES}")
        names = zlib.compress(text, 9)
        names = _LENGTH.pack(len(names)) + names
    maker = content.maker.encode()[:255]
    version = 2 if not frames and channels < 2**8 and content.levels <= 2**8 else 3
    lengths = grids = b""
    if content.grids:
        version = 5
        packed = (_GRID.pack(*grid.shape, grid.codes - 1) for grid in content.grids)
        grids = bytes([len(content.grids)]) + b"".join(packed)
    elif len(content.streams) > 1:
        version = 4
    if version > 3:
        lengths = b"".join(_LENGTH.pack(len(stream) // 4) for stream in content.streams)
    head = _HEADS[version].pack(
        MAGIC,
        version,
        _LABELLED * content.labelled
        | _NAMED * (content.names is not None)
        | _CODES * bool(content.grids),
        height,
        width,
        channels,
        *([] if version == 2 else frames or [0]),
        content.levels - 1,
        content.num,
        content.batch_size.bit_length() - 1,
        content.model,
        content.arithmetic,
    )
    parts = [head, bytes([len(maker)]), maker, names, grids, *content.pixels, lengths]
    whole = b"".join([*parts, *content.streams])
    return whole + digest([whole])


def read(path: str | os.PathLike[str]) -> Container:
    """Reads a file and checks all that can be checked without its model.

    Raises:
      UserError: missing, not such a file, of a newer version, or damaged.
    """
    path = paths.of(path)
    require_file(path, "give one that `compress` wrote", f"--input={path}")
    if paths.size(path) > MOST_BYTES:
        raise UserError(
            f"{path} is larger than {MOST_BYTES} bytes; `compress` never writes such a file."
        )
    return unpack(path.read_bytes(), str(path))


def unpack(whole: bytes, path: str) -> Container:
    """The content of a file's bytes; `path` names it in messages.

    Raises:
      UserError: as `read`.
    """
    if whole[: len(MAGIC)] != MAGIC:
        raise UserError(f"{path} is not a file that `compress` wrote, or its start is damaged.")
    body, stored = whole[:-_DIGEST], whole[-_DIGEST:]
    if len(body) < len(MAGIC) + 1 or digest([body]) != stored:
        raise UserError(f"{path} is damaged or truncated: its checksum differs; get it again.")
    version = body[len(MAGIC)]
    if version not in _HEADS:
        raise UserError(
            f"{path} has format version {version}, and this version reads 1 to {VERSION}; "
            "update rnngen_jax."
        )
    try:
        return _checked(body, version)
    except (ValueError, struct.error) as error:
        raise UserError(f"{path} is damaged: {error}.") from None


def check_names(names: Sequence[str]) -> None:
    """Raises a `ValueError` unless all names are plain, distinct, and stay within a folder."""
    for name in names:
        plain = name.isprintable() and not _RESERVED & set(name) and not name.startswith(".")
        if not name or not plain or len(name.encode()) > LONGEST_NAME - len(".png"):
            raise ValueError(f"{name[:80]!r} is not a plain file name")
    if len(set(names)) != len(names):
        raise ValueError("two images have the same name")


def _checked(body: bytes, version: int) -> Container:
    """The content, each field checked before it is used; raises a `ValueError`."""
    rest, head = _Rest(body), _HEADS[version]
    _, _, flags, height, width, channels, *fields = head.unpack(rest.take(head.size))
    frames = fields.pop(0) if version > 2 else 0
    top, num, log_batch, model, *others = fields
    shape = (frames, height, width, channels) if frames else (height, width, channels)
    levels, batch_size, labelled = top + 1, 2**log_batch, bool(flags & _LABELLED)
    if flags & ~_FLAGS[version]:
        raise ValueError(f"its flags are {flags}")
    if not (math.prod(shape) and 0 < top < MOST_LEVELS and num):
        raise ValueError(f"it holds {num} images of shape {shape}, {levels} levels")
    if batch_size > MOST_BATCH:
        raise ValueError(f"its batch size is 2^{log_batch}")
    # Version 1 has no digest per batch, but the size that it would have with them bounds it too.
    batches = math.ceil(num / batch_size)
    size = math.prod(shape) * dtype_of(levels).itemsize
    if num * size > MOST_BYTES or batches * _DIGEST > len(body):
        raise ValueError(f"it claims {num} images, too many for {len(body)} bytes")
    maker = rest.take(rest.take(1)[0]).decode()
    if not maker.isprintable():
        raise ValueError(f"it was made with {maker!r}")
    names = None
    if flags & _NAMED:
        names = _names(rest.take(*_LENGTH.unpack(rest.take(_LENGTH.size))), num)
    grids = _grids(rest, num) if flags & _CODES else ()
    if version == 1:
        arithmetic, (whole, words) = None, others
        pixels, streams = (whole,), (rest.take(4 * words),)
    else:
        (arithmetic,) = others
        pixels = tuple(rest.take(_DIGEST) for _ in range(batches))
        lengths = [rest.left // 4]
        if version > 3:
            lengths = [_LENGTH.unpack(rest.take(_LENGTH.size))[0] for _ in range(batches)]
        streams = tuple(rest.take(4 * words) for words in lengths)
    if rest.left:
        raise ValueError(f"{rest.left} bytes follow the stream")
    facts = shape, levels, num, batch_size, labelled, model, arithmetic
    return Container(*facts, pixels, maker, names, streams, grids)


def _grids(rest: "_Rest", num: int) -> tuple[Grid, ...]:
    """The grids of codes of each of `num` images."""
    found = []
    for _ in range(rest.take(1)[0]):
        *shape, top = _GRID.unpack(rest.take(_GRID.size))
        if not (math.prod(shape) and 0 < top < MOST_LEVELS):
            raise ValueError(f"it holds grids of shape {tuple(shape)}, {top + 1} codes")
        found.append(Grid(tuple(shape), top + 1))
    size = sum(math.prod(grid.shape) * dtype_of(grid.codes).itemsize for grid in found)
    if not found or num * size > MOST_BYTES:
        raise ValueError(f"it claims {len(found)} grids of codes for each of {num} images")
    return tuple(found)


def _names(packed: bytes, num: int) -> tuple[str, ...]:
    """The names of `num` images; unpacks no more bytes than that many names can take."""
    inflate = zlib.decompressobj()
    try:
        text = inflate.decompress(packed, min(num * (LONGEST_NAME + 1), MOST_NAMES))
    except zlib.error:
        raise ValueError("its names cannot be unpacked") from None
    if not inflate.eof or inflate.unused_data:
        raise ValueError("its names are cut off, or too long")
    found = text.count(b"\n") + 1
    if found != num:
        raise ValueError(f"it has {found} names for {num} images")
    names = tuple(text.decode().split("\n"))
    check_names(names)
    return names


class _Rest:
    """Bytes that are read from the front."""

    def __init__(self, body: bytes) -> None:
        self._body, self._at = body, 0

    @property
    def left(self) -> int:
        """Number of bytes left."""
        return len(self._body) - self._at

    def take(self, num: int) -> bytes:
        """The next `num` bytes; raises a `ValueError` if there are fewer."""
        if num > self.left:
            raise ValueError(f"it ends {num - self.left} bytes early")
        self._at += num
        return self._body[self._at - num : self._at]
