"""`npz:FILE`: arrays in one NumPy archive.

Either `image` (uint8 `[N, H, W]` or `[N, H, W, C]`) with an optional `label` (integers `[N]`, 0 to
K - 1): the images are then put in a fixed random order, and test and validation are held out from
its end, each a `validation_fraction`. Or `train_image`, `train_label`, `validation_image`,
`test_image` and so on, kept in their order, with missing splits held out from the end of train.
Sequences are named `frames` instead of `image`, uint8 `[N, T, H, W, C]`. An optional scalar
`levels` gives the number of grey levels, 256 by default; above 256 the images are codes, of any
integer type.
"""

import lzma
import zipfile
import zlib

import numpy as np

from rnngen_jax.config import nearest, require
from rnngen_jax.data.base import SPLITS, DataConfig
from rnngen_jax.data.source import (
    MAX_BYTES,
    MOST_LEVELS,
    Source,
    checked,
    from_arrays,
    need_argument,
    path_of,
    permutation,
    resolved,
)
from rnngen_jax.errors import UserError
from rnngen_jax.files import opened, require_file
from rnngen_jax.paths import Path
from rnngen_jax.shapes import FRAMES, IMAGE

_ARRAYS = (IMAGE, FRAMES, "label")
_BY_SPLIT = tuple(f"{split}_{array}" for split in SPLITS for array in _ARRAYS)
_NAMES = ("levels", *_ARRAYS, *_BY_SPLIT)
# Raised by zipfile, its decompressors and NumPy for invalid files; a wrong array header exhausts
# the memory.
_UNREADABLE = (
    ValueError,
    EOFError,
    OSError,
    RuntimeError,
    MemoryError,
    zlib.error,
    lzma.LZMAError,
)

canonical = resolved  # the argument is the path of a file


def load_source(argument: str, config: DataConfig) -> Source:
    """Images and labels of an npz file; nothing pickled is ever read.

    Raises:
      UserError: a missing or damaged file, one that is not an npz, or arrays of unknown name, wrong
        type or shape, including pickled objects.
    """
    need_argument(argument, "npz", "FILE")
    path = path_of(argument)
    stored = read_arrays(path)
    for name in stored:
        if name not in _NAMES:
            raise UserError(f"{path}: unknown array {name!r}; {nearest(name, _NAMES)}")
    levels = _levels(stored.pop("levels", None), path)
    key = FRAMES if any(name.endswith(FRAMES) for name in stored) else IMAGE
    for name, array in stored.items():
        if name.endswith(key):
            allowed = "[N, T, H, W, C]" if key == FRAMES else "[N, H, W] or [N, H, W, C]"
            right = (array.ndim == 5) == (key == FRAMES)
            require(right, f"{path}: the shape of {name!r}", array.shape, allowed)
    if key in stored:
        split_names = sorted(set(stored) - {key, "label"})
        if split_names:
            raise UserError(
                f"{path}: holds '{key}' and {', '.join(split_names)}; "
                f"give either '{key}' or arrays by split."
            )
        images, labels = checked(stored[key], stored.get("label"), str(path), levels)
        shuffled = permutation(0, 0, len(images))
        arrays = {"train": (images[shuffled], None if labels is None else labels[shuffled])}
    else:
        arrays = {
            split: (stored[f"{split}_{key}"], stored.get(f"{split}_label"))
            for split in SPLITS
            if f"{split}_{key}" in stored
        }
        lonely = {name for name in stored if name.endswith("label")} - {
            f"{s}_label" for s in arrays
        }
        if lonely or not arrays:
            raise UserError(
                f"{path}: holds {', '.join(sorted(stored)) or 'nothing'} without images; "
                "give 'image' or 'train_image'."
            )
    return from_arrays(arrays, levels, str(path))


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an npz file by name, without pickles, after checking the unpacked size.

    Raises:
      UserError: missing, not an npz file, damaged, too large, or with entries that are not arrays.
    """
    require_file(path, "give an npz file with an array 'image'")
    try:
        with opened(path) as file, zipfile.ZipFile(file) as archive:
            size = sum(member.file_size for member in archive.infolist())
        require(size <= MAX_BYTES, f"{path}: its unpacked size in bytes", size, f"≤ {MAX_BYTES}")
        with opened(path) as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except zipfile.BadZipFile:
        raise UserError(f"{path}: is damaged, or is not an npz file.") from None
    except _UNREADABLE as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(
            f"{path}: cannot be read as plain arrays ({reason}); "
            "give uint8 images and integer labels, nothing pickled."
        ) from None
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):  # NumPy returns other files as bytes
            raise UserError(f"{path}: {name!r} is not an array; write the file with numpy.savez.")
    return arrays


def briefly(array: np.ndarray) -> object:
    """An array for an error message: its value if it is a number, otherwise its dtype and shape."""
    if array.shape == () and array.dtype.kind in "iuf":
        return array.item()
    return f"{array.dtype} of shape {array.shape}"


def _levels(stored: np.ndarray | None, path: Path) -> int:
    if stored is None:
        return 256
    right = stored.shape == () and stored.dtype.kind in "iu" and 2 <= stored <= MOST_LEVELS
    require(right, f"{path}: 'levels'", briefly(stored), f"an integer in [2, {MOST_LEVELS}]")
    return int(stored)
