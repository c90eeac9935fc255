"""Pictures for people: images of grey levels as grids and as single files."""

import math
import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from rnngen_jax import paths
from rnngen_jax.config import require
from rnngen_jax.errors import UserError
from rnngen_jax.files import filling, replacing
from rnngen_jax.shapes import FRAMES, IMAGE

CELL = 48  # least length of the shorter side of an image in a grid, in pixels
GAP = 2  # pixels between the images of a grid
GAP_COLOUR = (40, 40, 40)
MISSING_COLOUR = (64, 96, 192)  # not a grey, so that it is never taken for a pixel's value
ENDINGS = (".png", ".npz")
MOVING = (*ENDINGS, ".gif")  # of verbs that can write an animation


def to_pixels(images: np.ndarray, levels: int) -> np.ndarray:
    """Grey levels in `[0, levels)` as RGB in `[0, 255]`.

    Args:
      images: integers `[..., H, W, C]`: grey or RGB, or the D numbers of each residual code.
      levels: number of grey levels or codes.

    Returns:
      uint8 `[..., H, W', 3]`; W' is W, or W·D of codes, whose D maps stand side by side.
    """
    scaled = np.rint(images.astype(np.float64) * (255 / (levels - 1))).astype(np.uint8)
    if scaled.shape[-1] not in (1, 3):
        scaled = np.moveaxis(scaled, -1, -2).reshape(*scaled.shape[:-2], -1, 1)
    return np.broadcast_to(scaled, (*scaled.shape[:-1], 3))


def strips(images: np.ndarray) -> np.ndarray:
    """Sequences `[N, T, H, W, C]` as images `[N, H, T·W, C]`, frame beside frame; images as is."""
    if images.ndim != 5:
        return images
    num, frames, height, width, channels = images.shape
    return np.moveaxis(images, 1, 2).reshape(num, height, frames * width, channels)


def to_levels(pixels: np.ndarray, levels: int) -> np.ndarray:
    """The nearest grey levels to 8-bit values; exactly inverts the scaling of `to_pixels`."""
    return np.rint(pixels.astype(np.float64) * ((levels - 1) / 255)).astype(np.uint8)


def to_bytes(images: np.ndarray) -> np.ndarray:
    """Float values `[...]` in [0, 1] as the nearest of 256 grey levels, uint8."""
    return np.rint(np.clip(images, 0, 1).astype(np.float64) * 255).astype(np.uint8)


class Layout(NamedTuple):
    """The layout of a table of images in a picture.

    Attributes:
      rows, columns: of the table.
      height, width: of an enlarged image, in pixels.
      scale: the factor by which images are enlarged.
    """

    rows: int
    columns: int
    height: int
    width: int
    scale: int

    def corner(self, row: int, column: int) -> tuple[int, int]:
        """The top and left pixel of an image."""
        return row * (self.height + GAP) + GAP, column * (self.width + GAP) + GAP


def layout(rows: int, columns: int, height: int, width: int) -> Layout:
    """The layout of images `[H, W]`, each enlarged by an integer factor to at least 48 pixels."""
    scale = max(1, math.ceil(CELL / min(height, width)))
    return Layout(rows, columns, height * scale, width * scale, scale)


def table(num: int) -> tuple[int, int]:
    """Rows and columns of a table of `num` images, about as many columns as rows."""
    columns = math.ceil(math.sqrt(num))
    return math.ceil(num / columns), columns


def tile(cells: np.ndarray) -> np.ndarray:
    """One picture from a table of images, laid out by `layout`.

    Args:
      cells: uint8 RGB `[rows, columns, H, W, 3]`.

    Returns:
      uint8 RGB `[H', W', 3]`.
    """
    laid = layout(*cells.shape[:4])
    cells = cells.repeat(laid.scale, axis=2).repeat(laid.scale, axis=3)
    picture = np.empty((*laid.corner(laid.rows, laid.columns), 3), np.uint8)
    picture[:] = GAP_COLOUR
    for row in range(laid.rows):
        for column in range(laid.columns):
            top, left = laid.corner(row, column)
            picture[top : top + laid.height, left : left + laid.width] = cells[row, column]
    return picture


def grid(images: np.ndarray, levels: int) -> np.ndarray:
    """A picture with images side by side, row by row, in about as many columns as rows.

    Args:
      images: integers `[N, H, W, C]`, or sequences `[N, T, H, W, C]`, one per row.
      levels: number of grey levels.

    Returns:
      uint8 RGB `[H', W', 3]`.
    """
    rows, columns = (len(images), 1) if images.ndim == 5 else table(len(images))
    return tile(in_table(to_pixels(strips(images), levels), rows, columns))


def in_table(pixels: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Images as the cells of a table, row by row; those that are left over look like gaps.

    Args:
      pixels: uint8 RGB `[N, H, W, 3]`.
      rows, columns: of the table, with N cells or more.

    Returns:
      uint8 RGB `[rows, columns, H, W, 3]`.
    """
    cells = np.empty((rows * columns, *pixels.shape[1:]), np.uint8)
    cells[:] = GAP_COLOUR
    cells[: len(pixels)] = pixels
    return cells.reshape(rows, columns, *cells.shape[1:])


def completions(
    images: np.ndarray, known: np.ndarray, completed: np.ndarray, levels: int
) -> np.ndarray:
    """One column per image: the original, the damaged image, then its completions.

    Args:
      images: the originals, uint8 `[N, H, W, C]`.
      known: bool `[N, H, W]`; missing pixels are shown in blue.
      completed: uint8 `[N, K, H, W, C]`.
      levels: number of grey levels.

    Returns:
      uint8 RGB `[H', W', 3]`.
    """
    original = to_pixels(strips(images), levels)
    seen = strips(np.broadcast_to(known[..., None], images.shape))
    seen = to_pixels(seen.astype(np.int32), 2) == 255  # laid out as the images are
    damaged = np.where(seen, original, np.array(MISSING_COLOUR, np.uint8))
    drawn = np.stack([to_pixels(strips(one), levels) for one in np.moveaxis(completed, 1, 0)])
    return tile(np.concatenate([original[None], damaged[None], drawn]))


def reconstructions(images: np.ndarray, rebuilt: np.ndarray, levels: int) -> np.ndarray:
    """One column per image: the original above its reconstruction.

    Args:
      images: the originals, uint8 `[N, H, W, C]`.
      rebuilt: the reconstructions, float `[N, H, W, C]` in [0, 1].
      levels: number of grey levels of the originals.

    Returns:
      uint8 RGB `[H', W', 3]`.
    """
    return tile(np.stack([to_pixels(images, levels), to_pixels(to_bytes(rebuilt), 256)]))


def predictions(rows: Sequence[np.ndarray]) -> np.ndarray:
    """A strip of frames for each sequence: its kinds one above the other, frame beside frame.

    Args:
      rows: pixels of each kind, uint8 RGB `[N, T, H, W, 3]`, such as the truth and predictions.

    Returns:
      uint8 RGB `[H', W', 3]`.
    """
    cells = np.moveaxis(np.stack(rows), 0, 1)  # [N, kinds, T, H, W, 3]
    return tile(cells.reshape(-1, *cells.shape[2:]))


def write_png(path: str | os.PathLike[str], pixels: np.ndarray) -> None:
    """Writes a PNG of uint8 `[H, W]` or `[H, W, 3]`; replaces a file only by a complete one."""
    with replacing(path) as temporary:
        Image.fromarray(np.ascontiguousarray(pixels)).save(temporary, format="PNG")


def write_npz(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray]) -> None:
    """Writes arrays by name, compressed; replaces a file only by a complete one."""
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def numbered(num: int) -> list[str]:
    """Numbers as names without ending: 00000, 00001 and so on."""
    digits = max(5, len(str(num - 1)))
    return [f"{number:0{digits}}" for number in range(num)]


def write_singles(
    folder: str | os.PathLike[str],
    images: np.ndarray,
    levels: int,
    names: Sequence[str] | None = None,
) -> None:
    """Writes each image at its own size, to `FOLDER/00000.png` and so on.

    Args:
      folder: made if missing; files of the same names are replaced.
      images: integers `[N, H, W, C]`, or sequences `[N, T, H, W, C]`, frame beside frame.
      levels: number of grey levels, which are scaled to 0..255.
      names: the files' names without ending; numbers by default.
    """
    images = strips(images)
    pixels = to_pixels(images, levels)
    names = numbered(len(images)) if names is None else names
    with filling(folder) as temporary:
        for name, image in zip(names, pixels, strict=True):
            single = image[..., 0] if images.shape[-1] == 1 else image
            Image.fromarray(np.ascontiguousarray(single)).save(
                temporary / f"{name}.png", format="PNG"
            )


def ending(out: str) -> str:
    """The ending of the file that `--out` names, in lower case, or "/" for a folder."""
    # An empty --out, as from an unset shell variable, must not mean the current folder.
    if out.endswith(("/", os.sep)) or (out != "" and paths.of(out).is_dir()):
        return "/"
    return paths.of(out).suffix.lower()


def require_out(out: str, folder: bool, endings: Sequence[str] = ENDINGS) -> None:
    """Checks the ending of `--out` before any work is done.

    Args:
      out: a file with one of the endings, or a folder, which ends in "/" or exists.
      folder: whether a folder is allowed.
      endings: the file's allowed endings.

    Raises:
      UserError: another ending, or a folder if none is allowed.
    """
    given = ending(out)
    named = " or ".join(filter(None, (", ".join(endings[:-1]), endings[-1])))
    allowed = f"a file that ends in {named}" + (", or a folder/" if folder else "")
    require(folder if given == "/" else given in endings, "--out", out, allowed)
    if given == "/" and paths.of(out).is_file():
        raise UserError(f"--out must be {allowed}, got {out!r}, which names a file.")


def write_samples(out: str, images: np.ndarray, labels: np.ndarray | None, levels: int) -> None:
    """Writes samples to `--out`: a grid, arrays, or a folder of single PNGs.

    Args:
      out: as `require_out` allows.
      images: `[N, H, W, C]`, or sequences `[N, T, H, W, C]`; an npz holds them as they are, as
        `image` or `frames`.
      labels: int32 `[N]`, stored in an npz as `label`; `None` without classes.
      levels: number of grey levels; an npz holds it as `levels`.
    """
    if ending(out) == "/":
        write_singles(out, images, levels)
    elif ending(out) == ".npz":
        key = FRAMES if images.ndim == 5 else IMAGE
        arrays = {key: images, "levels": np.int32(levels)}
        write_npz(out, arrays if labels is None else {**arrays, "label": labels})
    else:
        write_png(out, grid(images, levels))
