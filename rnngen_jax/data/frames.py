"""`frames:FOLDER`: sequences of frames, each a folder of numbered images or an animated file.

An entry of the folder is either a folder of PNG, JPEG or WebP images, whose last number in the name
gives their order, or one animation: GIF, WebP or APNG. Or the folder holds the folders `train` and,
optionally, `validation` and `test` of such entries. All sequences have one length, one size, and
are all grey or all RGB; animations of formats that know no grey count as grey if all their pixels
are. Each split is in a fixed random order. Times between frames and hidden files are ignored.
"""

import itertools
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from PIL import Image

from rnngen_jax.config import require
from rnngen_jax.data.base import DataConfig, Split
from rnngen_jax.data.folder import (
    MAX_PIXELS,
    MEMORY_BYTES,
    by_split,
    entries_of,
    is_deep_png,
    local_folder,
    read_image,
)
from rnngen_jax.data.source import Source, from_arrays, permutation, resolved
from rnngen_jax.errors import UserError
from rnngen_jax.files import opened, require_file
from rnngen_jax.paths import Path
from rnngen_jax.shapes import FRAMES

ENDINGS = (".gif", ".webp", ".png", ".apng")
FORMATS = ("GIF", "WEBP", "PNG")
MAX_FRAMES = 1000  # of a sequence
MAX_VALUES = 2**30  # of a sequence, in all its frames

_GIF_END = b";"
_NUMBER = re.compile(r"\d+")
# Raised by Pillow's decoders for invalid files.
_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, IndexError, RuntimeError)

canonical = resolved  # the argument is the path of a folder


class Clip(NamedTuple):
    """One sequence on disk.

    Attributes:
      path: of its folder, or of its animation.
      images: the frames' files in order; empty for an animation.
    """

    path: Path
    images: Sequence[Path]


def load_source(argument: str, config: DataConfig) -> Source:
    """Sequences of a folder, without labels; each is decoded once when the folder is opened.

    Up to 512 MiB are kept in memory; larger ones are decoded again on each read.

    Raises:
      UserError: a missing or empty folder, another layout, or a sequence that is damaged, has less
        than two frames or more than `MAX_FRAMES`, or differs in length, size or colours. Where
        sequences are decoded on each read, a damaged one raises then, too.
    """
    root = local_folder(argument, "frames", "sequences")
    clips = {}
    for name, folder in by_split(root, ENDINGS).items():
        listed = [_clip(entry, root) for entry in entries_of(folder, root, ENDINGS)]
        clips[name] = [listed[i] for i in permutation(0, 0, len(listed))]
    shape, kept = _decoded([clip for listed in clips.values() for clip in listed])
    if kept is None:
        splits = {name: _lazy(listed, shape) for name, listed in clips.items()}
        return Source(splits, shape, 256, 0)
    ends = np.cumsum([len(listed) for listed in clips.values()])[:-1]
    parts = np.split(kept, ends)
    arrays = {name: (part, None) for name, part in zip(clips, parts, strict=True)}
    return from_arrays(arrays, levels=256, where=str(root))


def read_clip(path: Path) -> np.ndarray:
    """One sequence: a folder of numbered images, or an animation; uint8 `[T, H, W, C]`, C 1 or 3.

    Raises:
      UserError: as `load_source`, of one sequence.
    """
    found, either = _read(_clip(path, path))
    return found[..., :1] if either else found


def _clip(path: Path, root: Path) -> Clip:
    """A sequence's files, in order."""
    if not path.is_dir():
        return Clip(path, ())
    numbered: dict[int, Path] = {}
    for entry in entries_of(path, root):
        if entry.is_dir():
            raise UserError(f"{entry}: is a folder within a sequence; only images may be there.")
        numbers = _NUMBER.findall(entry.stem)
        if not numbers:
            raise UserError(f"{entry}: has no number in its name, which gives the frames' order.")
        number = int(numbers[-1])
        if number in numbered:
            raise UserError(f"{entry}: has the number of {numbered[number].name}; rename it.")
        numbered[number] = entry
    order = sorted(numbered)
    _check_length(len(order), path)
    for one, two in itertools.pairwise(order):
        if two - one != order[1] - order[0]:
            raise UserError(
                f"{path}: a frame is missing between {numbered[one].name} and "
                f"{numbered[two].name}; give it, or number the frames without gaps."
            )
    return Clip(path, [numbered[number] for number in order])


def _decoded(clips: Sequence[Clip]) -> tuple[tuple[int, ...], np.ndarray | None]:
    """The common shape `(T, H, W, C)`, and the sequences `[N, T, H, W, C]` if they fit in memory.

    Raises:
      UserError: as `load_source`.
    """
    kept, length, declared, channels = None, None, {}, 1
    for place, clip in enumerate(clips):
        found, either = _read(clip)
        if length is None:
            length = found.shape[:3]
            if len(clips) * found.size <= MEMORY_BYTES:
                kept = np.empty((len(clips), *found.shape), np.uint8)
        elif found.shape[:3] != length:
            raise UserError(
                f"{clip.path} must be {_words(length)}, as {clips[0].path} is, got "
                f"{_words(found.shape)}. All must have one length and one size: cut or resize them."
            )
        if not either:
            declared.setdefault(found.shape[3], clip.path)
            channels = max(channels, found.shape[3])
        if kept is not None:
            kept[place] = found[..., : kept.shape[-1]]
    if len(declared) > 1:
        raise UserError(
            f"{declared[1]} is grey but {declared[3]} is RGB; all must be grey or all RGB: convert "
            "them first."
        )
    assert length is not None  # entries_of refuses an empty folder
    shape = (*length, channels)
    return shape, None if kept is None else np.ascontiguousarray(kept[..., :channels])


def _read(clip: Clip) -> tuple[np.ndarray, bool]:
    """A sequence, uint8 `[T, H, W, C]`, and whether it is grey by its pixels alone.

    Raises:
      UserError: as `load_source`, of one sequence.
    """
    if not clip.images:
        return _animation(clip.path)
    frames = []
    for path in clip.images:
        frames.append(read_image(path))
        if frames[-1].shape != frames[0].shape:
            raise UserError(
                f"{path} must be {_size(frames[0].shape)}, as {clip.images[0].name} is, got "
                f"{_size(frames[-1].shape)}; all frames of a sequence must be alike."
            )
        if len(frames) == 1:
            _check_values(len(clip.images) * frames[0].size, clip.path)
    return np.stack(frames), False


def _animation(path: Path) -> tuple[np.ndarray, bool]:
    """The frames of an animated file, as `_read` gives them."""
    with _opened(path) as image:
        pixels = image.width * image.height
        require(pixels <= MAX_PIXELS, f"{path}: the number of pixels", pixels, f"≤ {MAX_PIXELS}")
        _check_end(path, image.format)
        # The picture of an APNG for programs that know no animations is none of its frames.
        first = 1 if getattr(image, "default_image", False) else 0
        num = getattr(image, "n_frames", 1) - first
        _check_length(num, path)
        _check_values(3 * num * pixels, path)
        frames = np.empty((num, image.height, image.width, 3), np.uint8)
        declared, mode = image.format == "PNG", image.mode
        if declared:
            image.verify()  # decoding a PNG ignores checksums and trailing data
    with _opened(path) as image:
        for place in range(num):
            try:
                image.seek(first + place)
                rgba = np.asarray(image.convert("RGBA"))
            except _UNREADABLE:
                raise UserError(
                    f"{path}: frame {place + 1} of {num} is damaged; replace or remove the file."
                ) from None
            if rgba[..., 3].min() < 255:
                raise UserError(
                    f"{path}: frame {place + 1} of {num} is transparent in places; save it on a "
                    "background."
                )
            frames[place] = rgba[..., :3]
    if declared:
        return (frames[..., :1] if mode == "L" else frames), False
    return frames, bool((frames == frames[..., :1]).all())


def _check_end(path: Path, kind: str | None) -> None:
    """Raises a `ValueError` for a GIF that ends too soon, of which Pillow reads what is there."""
    with opened(path) as file:
        if kind == "GIF" and not file.read().rstrip(b"\0").endswith(_GIF_END):
            raise ValueError("truncated")


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """A supported animation, not yet decoded; errors inside the `with` block name the file."""
    require_file(path, "replace or remove it")
    try:
        with opened(path) as file, Image.open(file, formats=FORMATS) as image:
            if is_deep_png(path):
                raise UserError(f"{path} must be of 8 bits per channel, got 16; convert it.")
            yield image
    except Image.DecompressionBombError:
        raise UserError(
            f"{path}: the number of pixels must be ≤ {MAX_PIXELS}; make it smaller."
        ) from None
    except _UNREADABLE:
        raise UserError(
            f"{path}: is truncated, damaged or not a {', '.join(FORMATS)} animation; replace or "
            "remove it."
        ) from None


def _check_length(frames: int, path: Path) -> None:
    """Raises a `UserError` for a single image, and for more than `MAX_FRAMES`."""
    if frames < 2:
        raise UserError(
            f"{path}: is a single image; a sequence must have ≥ 2 frames, in an animation or in a "
            "folder of its own."
        )
    if frames > MAX_FRAMES:
        raise UserError(
            f"{path}: a sequence must have ≤ {MAX_FRAMES} frames, got {frames}; cut it into "
            "shorter ones."
        )


def _check_values(values: int, path: Path) -> None:
    """Raises a `UserError` for a sequence that would fill the memory."""
    if values > MAX_VALUES:
        raise UserError(
            f"{path}: a sequence must have ≤ {MAX_VALUES} values in all its frames, got {values}; "
            "make it shorter or smaller."
        )


def _lazy(clips: Sequence[Clip], shape: tuple[int, ...]) -> Split:
    """A split whose sequences are decoded on each read."""

    def read(indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        frames = np.empty((len(indices), *shape), np.uint8)
        for place, index in enumerate(indices):
            found, _ = _read(clips[index])
            if found.shape[:3] != shape[:3] or found.shape[3] < shape[3]:
                raise UserError(f"{clips[index].path}: has changed since the folder was opened.")
            frames[place] = found[..., : shape[3]]
        return frames, np.zeros(len(indices), np.int32)

    return Split(len(clips), read, FRAMES)


def _words(shape: Sequence[int]) -> str:
    return f"{shape[0]} frames of {shape[2]}x{shape[1]}"


def _size(shape: Sequence[int]) -> str:
    return f"{shape[1]}x{shape[0]} {'RGB' if shape[2] == 3 else 'grey'}"
