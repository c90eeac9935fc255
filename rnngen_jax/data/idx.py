"""`idx:FOLDER`: IDX files under MNIST's names, gzipped or not, with 256 grey levels.

The folder holds `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`, `t10k-images-idx3-ubyte` and
`t10k-labels-idx1-ubyte`, each with or without `.gz`. Validation is held out from the end of
train: a `validation_fraction` of 1/6 gives MNIST's customary last 10,000 images.
"""

import gzip
import math
import struct
import zlib
from typing import BinaryIO

import numpy as np

from rnngen_jax import paths
from rnngen_jax.config import require
from rnngen_jax.data.base import DataConfig
from rnngen_jax.data.source import (
    MAX_BYTES,
    Source,
    from_arrays,
    need_argument,
    path_of,
    resolved,
)
from rnngen_jax.errors import UserError
from rnngen_jax.files import opened, require_file, require_folder
from rnngen_jax.paths import Path

# Images and labels of each split.
_FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
_PUT = "put {}, {}, {} and {} there, each with or without .gz".format(
    *(name for names in _FILES.values() for name in names)
)
_PIECE = 2**24

canonical = resolved  # the argument is the path of a folder


def load_source(argument: str, config: DataConfig) -> Source:
    """Images and labels of a folder of IDX files.

    Raises:
      UserError: a missing folder or file, a file that is not IDX of unsigned bytes, is empty or
        of another length than its header says, or differing counts of images and labels.
    """
    need_argument(argument, "idx", "FOLDER")
    folder = path_of(argument)
    require_folder(folder, _PUT)
    paths = {split: [_find(folder, name) for name in names] for split, names in _FILES.items()}
    arrays = {}
    for split, (images_path, labels_path) in paths.items():
        images, labels = read_idx(images_path, axes=3), read_idx(labels_path, axes=1)
        allowed = f"{len(images)}, one per image"
        counted = f"{labels_path}: the number of labels"
        require(len(labels) == len(images), counted, len(labels), allowed)
        arrays[split] = (images, labels)
    return from_arrays(arrays, levels=256, where=str(folder))


def read_idx(path: Path, axes: int) -> np.ndarray:
    """The array of one IDX file of unsigned bytes.

    Args:
      path: the file; gzipped if it ends in `.gz`.
      axes: number of axes that the array must have.

    Returns:
      A read-only uint8 array.

    Raises:
      UserError: as for `load_source`.
    """
    require_file(path, "fetch it again")
    try:
        with opened(path) as file:
            return _read_idx(gzip.open(file) if path.suffix == ".gz" else file, axes, path)
    except (EOFError, zlib.error):
        raise UserError(f"{path}: the gzip file is truncated or damaged; fetch it again.") from None
    except OSError as error:  # includes gzip.BadGzipFile
        raise UserError(f"{path}: cannot be read: {error.strerror or error}.") from None


def _read_idx(file: BinaryIO, axes: int, path: Path) -> np.ndarray:
    header = _at_most(file, 4 + 4 * axes)
    if not header:
        raise UserError(f"{path}: the file is empty; fetch it again.")
    magic = b"\0\0\x08" + bytes([axes])
    if header[:4] != magic:
        raise UserError(
            f"{path}: the magic number must be 0x{magic.hex()}, IDX of unsigned bytes with {axes} "
            f"axes, got 0x{header[:4].hex()}."
        )
    if len(header) < 4 + 4 * axes:
        raise UserError(f"{path}: the file ends within its header; fetch it again.")
    shape = struct.unpack(f">{axes}I", header[4:])
    size = math.prod(shape)
    require(size > 0, f"{path}: the shape in the header", shape, "of no length 0")
    allowed = f"of at most {MAX_BYTES} bytes"
    require(size <= MAX_BYTES, f"{path}: the shape in the header", shape, allowed)
    content = _at_most(file, size + 1)  # one more byte, to detect trailing data
    if len(content) != size:
        found = "more" if len(content) > size else f"only {len(content)}"
        raise UserError(
            f"{path}: the header claims {size} bytes, shape {shape}, but there are {found}; "
            "fetch the file again."
        )
    return np.frombuffer(content, np.uint8).reshape(shape)


def _at_most(file: BinaryIO, size: int) -> bytes:
    """Up to `size` bytes, read in pieces so that a wrong header costs no memory."""
    content = bytearray()
    while len(content) < size and (piece := file.read(min(_PIECE, size - len(content)))):
        content += piece
    return bytes(content)


def _find(folder: Path, name: str) -> Path:
    """The file `name`, gzipped or not."""
    for path in (folder / name, folder / f"{name}.gz"):
        if paths.exists(path):
            return path
    raise UserError(f"{folder}: lacks {name}; {_PUT}.")
