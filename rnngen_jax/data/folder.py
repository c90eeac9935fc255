"""`folder:FOLDER`: PNG, JPEG or WebP files, 8 bits per channel, grey or RGB, all of one size.

The folder holds images; or one folder of images per class; or the folders `train` and, optionally,
`validation` and `test`, each in one of these two layouts. Classes are numbered in the order of
their names. Each split is in a fixed random order, so that splits held out from the end of train
contain every class. Hidden files and JPEG orientation tags are ignored.
"""

import os
import pathlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from PIL import Image

from rnngen_jax.config import require
from rnngen_jax.data.base import SPLITS, DataConfig, Split
from rnngen_jax.data.source import (
    Source,
    from_arrays,
    need_argument,
    path_of,
    permutation,
    resolved,
)
from rnngen_jax.errors import UserError
from rnngen_jax.files import opened, require_file, require_folder
from rnngen_jax.paths import Path, is_remote

ENDINGS = (".png", ".jpg", ".jpeg", ".webp")
FORMATS = ("PNG", "JPEG", "WEBP")
MAX_PIXELS = 4096 * 4096
MEMORY_BYTES = 512 * 2**20  # folders up to this size are decoded once, when they are opened
_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_DEPTH = 24  # byte of a PNG file with its bits per channel

canonical = resolved  # the argument is the path of a folder


def load_source(argument: str, config: DataConfig) -> Source:
    """Images of a folder. Up to 512 MiB are kept in memory; larger ones are decoded on each read.

    Raises:
      UserError: a missing or empty folder, a damaged image, one of unsupported bit depth, colours
        or size, a link that leaves the folder, or an unknown layout. Where images are decoded on
        each read, a damaged one raises then.
    """
    root = local_folder(argument, "folder", "images")
    files = {
        name: [listed[i] for i in permutation(0, 0, len(listed))]
        for name, listed in _layout(root).items()
    }
    class_names = sorted({name for _, name in files["train"]})
    labels = {name: _labels(listed, class_names) for name, listed in files.items()}
    paths = {name: [path for path, _ in listed] for name, listed in files.items()}
    shape = _common_shape([path for listed in paths.values() for path in listed])
    splits = {name: _lazy(paths[name], labels[name], shape) for name in paths}
    classes = 0 if class_names == [""] else len(class_names)
    num = sum(split.num for split in splits.values())
    if num * int(np.prod(shape)) > MEMORY_BYTES:
        return Source(splits, shape, 256, classes)
    arrays = {name: split.read(np.arange(split.num)) for name, split in splits.items()}
    if not classes:
        arrays = {name: (images, None) for name, (images, _) in arrays.items()}
    return from_arrays(arrays, levels=256, where=str(root), classes=classes)


def local_folder(argument: str, source: str, what: str) -> Path:
    """The folder that the argument of a source names.

    Args:
      argument: of the source.
      source: the source's name.
      what: it should hold, for messages.

    Raises:
      UserError: no argument, no such folder, or one in a bucket.
    """
    need_argument(argument, source, "FOLDER")
    if is_remote(argument):
        raise UserError(
            f"config.data.name='{source}:{argument}': single images are read from a local folder "
            "only; import it with `rnngen prepare`, whose files can be in a bucket."
        )
    root = path_of(argument)
    hint = f"set it to {source}:FOLDER, a folder of your {what}"
    require_folder(root, hint, f"config.data.name='{source}:{argument}' ({root.absolute()})")
    return root


def read_image(path: Path) -> np.ndarray:
    """One whole image file, uint8 `[H, W, C]` with C of 1 or 3.

    Raises:
      UserError: missing, damaged, truncated, or of unsupported bit depth or colours.
    """
    with _opened(path) as image:
        image.verify()  # decoding a PNG ignores checksums and trailing data
    with _opened(path) as image:  # verify() consumes the image
        pixels = np.asarray(image)
    return pixels if pixels.ndim == 3 else pixels[..., None]


def is_deep_png(path: Path) -> bool:
    """Whether a file is a PNG of 16 bits per channel, by its own header.

    Pillow silently opens 16-bit RGB as 8-bit RGB.
    """
    with opened(path) as file:
        header = file.read(_PNG_DEPTH + 1)
    return header.startswith(_PNG) and header[_PNG_DEPTH] == 16


def by_split(root: Path, endings: Sequence[str] = ENDINGS) -> dict[str, Path]:
    """Folders by split; without folders of splits, `root` itself is train.

    Raises:
      UserError: as `entries_of`; no train, other entries beside splits, or a split misspelt.
    """
    entries = entries_of(root, root, endings)
    for entry in entries:  # else "Train" would count as a class, and Test as training images
        if entry.is_dir() and entry.name.lower() in SPLITS and entry.name not in SPLITS:
            raise UserError(
                f"{entry}: the folder of a split must be one of {', '.join(SPLITS)}; rename it to "
                f"{entry.name.lower()}."
            )
    if not any(entry.is_dir() and entry.name in SPLITS for entry in entries):
        return {"train": root}
    for entry in entries:
        if not entry.is_dir() or entry.name not in SPLITS:
            raise UserError(
                f"{entry}: is beside folders of splits; only {', '.join(SPLITS)} may be there."
            )
    found = [entry.name for entry in entries]
    if "train" not in found:
        raise UserError(f"{root}: holds {' and '.join(found)} but no folder 'train'; give one.")
    return {name: root / name for name in SPLITS if name in found}


def _layout(root: Path) -> dict[str, list[tuple[Path, str]]]:
    """Image files and the names of their classes, "" without classes, by split."""
    return {name: _classes(folder, root) for name, folder in by_split(root).items()}


def _classes(folder: Path, root: Path) -> list[tuple[Path, str]]:
    """Image files with their classes' names, of the folder itself or of its subfolders."""
    entries = entries_of(folder, root)
    if not any(entry.is_dir() for entry in entries):
        return [(path, "") for path in entries]
    listed = []
    for entry in entries:
        if not entry.is_dir():
            raise UserError(f"{entry}: is beside folders of classes; move it into one of them.")
        for path in entries_of(entry, root):
            if path.is_dir():
                raise UserError(f"{path}: is a folder within a class; only images may be there.")
            listed.append((path, entry.name))
    return listed


def entries_of(folder: Path, root: Path, endings: Sequence[str] = ENDINGS) -> list[Path]:
    """A folder's visible entries, sorted: folders and files with one of these endings.

    Raises:
      UserError: no entries, other files, or a link that leaves `root`.
    """
    within = os.path.realpath(root)
    entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    if not entries:
        raise UserError(f"{folder}: the folder is empty; put {', '.join(endings)} files there.")
    for entry in entries:
        if not pathlib.Path(os.path.realpath(entry)).is_relative_to(within):
            raise UserError(f"{entry}: is a link that leaves {root}; put the file itself there.")
        if entry.is_dir():
            continue
        require_file(entry, "remove it")
        if entry.suffix.lower() not in endings:
            raise UserError(
                f"{entry}: does not end in {', '.join(endings[:-1])} or {endings[-1]}; convert it "
                "if it is an image, or move it out of the folder."
            )
    return entries


def _labels(listed: Sequence[tuple[Path, str]], class_names: Sequence[str]) -> np.ndarray:
    """Class indices, int32 `[N]`, into the names of train's classes."""
    for path, name in listed:
        allowed = f"one of train's, {', '.join(class_names) or 'which has none'}"
        require(name in class_names, f"{path}: the class", name, allowed)
    number = {name: place for place, name in enumerate(class_names)}
    return np.array([number[name] for _, name in listed], np.int32)


def _common_shape(paths: Sequence[Path]) -> tuple[int, int, int]:
    """The common shape `(H, W, C)` of all files, from their headers; verifies PNG checksums."""
    first = None
    for path in paths:
        with _opened(path) as image:
            shape = (image.height, image.width, len(image.getbands()))
            image.verify()  # decoding a PNG ignores checksums and trailing data
        if first is None:
            first = shape
        elif shape != first:
            raise UserError(
                f"{path} must be {_words(first)}, as {paths[0]} is, got {_words(shape)}. "
                "All must have one size, and be all grey or all RGB: crop or resize them first."
            )
    assert first is not None  # entries_of refuses an empty folder
    return first


def _words(shape: tuple[int, int, int]) -> str:
    height, width, channels = shape
    return f"{width}x{height} {'RGB' if channels == 3 else 'grey'}"


def _lazy(paths: Sequence[Path], labels: np.ndarray, shape: tuple[int, int, int]) -> Split:
    """A split whose files are decoded on each read."""

    def read(indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        images = np.empty((len(indices), *shape), np.uint8)
        for place, index in enumerate(indices):
            with _opened(paths[index]) as image:
                pixels = np.asarray(image)
            if pixels.size != images[place].size:
                raise UserError(f"{paths[index]}: has changed since the folder was opened.")
            images[place] = pixels.reshape(shape)
        return images, labels[indices]

    return Split(len(paths), read)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """A supported image, not yet decoded; errors inside the `with` block name the file."""
    require_file(path, "replace or remove it")
    try:
        with opened(path) as file, Image.open(file, formats=FORMATS) as image:
            _check(image, path)
            yield image
    except Image.DecompressionBombError:
        raise UserError(
            f"{path}: the number of pixels must be ≤ {MAX_PIXELS}; make it smaller."
        ) from None
    except (OSError, SyntaxError, ValueError, EOFError):
        raise UserError(
            f"{path}: is truncated, damaged or not a {', '.join(FORMATS)} image; replace or remove "
            "it."
        ) from None


def _check(image: Image.Image, path: Path) -> None:
    """Raises a `UserError` for unsupported images."""
    deep = image.mode.startswith("I") or is_deep_png(path)
    if deep or image.mode not in ("L", "RGB"):
        kind = "16 bits per channel" if deep else f"mode {image.mode}"
        raise UserError(
            f"{path} must be 8-bit grey (L) or RGB, got {kind}. "
            "Convert it, such as with ImageMagick: convert IN -depth 8 -type TrueColor OUT."
        )
    if "transparency" in image.info:
        raise UserError(f"{path}: has a transparent colour; save it without, as grey or RGB.")
    frames, pixels = getattr(image, "n_frames", 1), image.width * image.height
    require(frames == 1, f"{path}: the number of frames", frames, "1")
    require(pixels <= MAX_PIXELS, f"{path}: the number of pixels", pixels, f"≤ {MAX_PIXELS}")
