"""Pictures: uint8 images of grey levels, as grids and single files that people can look at."""

import math
import os
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from rnngen_jax.config import require
from rnngen_jax.errors import UserError
from rnngen_jax.files import filling, replacing

CELL = 48  # pixels that the shorter side of an image in a grid has at least
GAP = 2  # pixels between the images of a grid
GAP_COLOUR = (40, 40, 40)
MISSING_COLOUR = (64, 96, 192)  # no grey, so that it is never taken for a pixel's value
ENDINGS = (".png", ".npz")


def to_pixels(images: np.ndarray, levels: int) -> np.ndarray:
    """Grey levels in `[0, levels)` as RGB in `[0, 255]`.

    Args:
      images: uint8 `[..., H, W, C]` with 1 or 3 channels.
      levels: number of grey levels.

    Returns:
      uint8 `[..., H, W, 3]`.
    """
    scaled = np.rint(images.astype(np.float64) * (255 / (levels - 1))).astype(np.uint8)
    return np.broadcast_to(scaled, (*scaled.shape[:-1], 3))


def to_levels(pixels: np.ndarray, levels: int) -> np.ndarray:
    """The nearest grey levels to 8-bit values: undoes the scaling of `to_pixels` exactly."""
    return np.rint(pixels.astype(np.float64) * ((levels - 1) / 255)).astype(np.uint8)


def tile(cells: np.ndarray) -> np.ndarray:
    """One picture from a table of images, each enlarged by whole steps to at least 48 pixels.

    Args:
      cells: uint8 RGB `[rows, columns, H, W, 3]`.

    Returns:
      uint8 RGB `[H', W', 3]`.
    """
    rows, columns, height, width, _ = cells.shape
    scale = max(1, math.ceil(CELL / min(height, width)))
    cells = cells.repeat(scale, axis=2).repeat(scale, axis=3)
    down, across = height * scale + GAP, width * scale + GAP
    picture = np.empty((rows * down + GAP, columns * across + GAP, 3), np.uint8)
    picture[:] = GAP_COLOUR
    for row in range(rows):
        for column in range(columns):
            top, left = row * down + GAP, column * across + GAP
            picture[top : top + down - GAP, left : left + across - GAP] = cells[row, column]
    return picture


def grid(images: np.ndarray, levels: int) -> np.ndarray:
    """Images side by side, about as many columns as rows; row after row, the rest left empty.

    Args:
      images: uint8 `[N, H, W, C]`.
      levels: number of grey levels.

    Returns:
      uint8 RGB `[H', W', 3]`.
    """
    num = len(images)
    columns = math.ceil(math.sqrt(num))
    rows = math.ceil(num / columns)
    cells = np.empty((rows * columns, *images.shape[1:3], 3), np.uint8)
    cells[:] = GAP_COLOUR
    cells[:num] = to_pixels(images, levels)
    return tile(cells.reshape(rows, columns, *cells.shape[1:]))


def completions(
    images: np.ndarray, known: np.ndarray, completed: np.ndarray, levels: int
) -> np.ndarray:
    """A column an image: the original, the damaged image, then its completions.

    Args:
      images: the originals, uint8 `[N, H, W, C]`.
      known: bool `[N, H, W]`; missing pixels are shown in a flat blue.
      completed: uint8 `[N, K, H, W, C]`.
      levels: number of grey levels.

    Returns:
      uint8 RGB `[H', W', 3]`.
    """
    original = to_pixels(images, levels)
    damaged = np.where(known[..., None], original, np.array(MISSING_COLOUR, np.uint8))
    drawn = to_pixels(np.moveaxis(completed, 1, 0), levels)
    return tile(np.concatenate([original[None], damaged[None], drawn]))


def write_png(path: str | os.PathLike[str], pixels: np.ndarray) -> None:
    """Writes a PNG, uint8 `[H, W]` or `[H, W, 3]`; an old one is replaced only by a whole one."""
    with replacing(path) as temporary:
        Image.fromarray(np.ascontiguousarray(pixels)).save(temporary, format="PNG")


def write_npz(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray]) -> None:
    """Writes arrays by name, compressed; an old file is replaced only by a whole one."""
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def numbered(num: int) -> list[str]:
    """Names without ending that are numbers: 00000, 00001 and so on."""
    digits = max(5, len(str(num - 1)))
    return [f"{number:0{digits}}" for number in range(num)]


def write_singles(
    folder: str | os.PathLike[str],
    images: np.ndarray,
    levels: int,
    names: Sequence[str] | None = None,
) -> None:
    """Writes each image, in its own size, to `FOLDER/00000.png` and so on.

    Args:
      folder: made if missing; files of the same names are replaced.
      images: uint8 `[N, H, W, C]`.
      levels: number of grey levels, scaled to 0..255.
      names: the files' names without ending, if not numbers.
    """
    pixels = to_pixels(images, levels)
    names = numbered(len(images)) if names is None else names
    with filling(folder) as temporary:
        for name, image in zip(names, pixels, strict=True):
            single = image[..., 0] if images.shape[-1] == 1 else image
            Image.fromarray(np.ascontiguousarray(single)).save(
                temporary / f"{name}.png", format="PNG"
            )


def require_out(out: str, folder: bool) -> None:
    """Checks the ending of `--out` before any work is done.

    Args:
      out: a file that ends in .png or .npz, or a folder: it ends in "/" or exists.
      folder: whether a folder is allowed.

    Raises:
      UserError: another ending, or a folder where none is allowed.
    """
    # An empty --out, such as of an unset shell variable, would be the current folder.
    is_folder = out.endswith(("/", os.sep)) or (out != "" and pathlib.Path(out).is_dir())
    allowed = "a file that ends in .png or .npz" + (", or a folder/" if folder else "")
    fits = folder if is_folder else pathlib.Path(out).suffix.lower() in ENDINGS
    require(fits, "--out", out, allowed)
    if is_folder and pathlib.Path(out).is_file():
        raise UserError(f"--out={out} is a file, not a folder; allowed: {allowed}.")


def write_samples(out: str, images: np.ndarray, labels: np.ndarray | None, levels: int) -> None:
    """Writes samples as `--out` asks: a grid, arrays, or a folder of single PNGs.

    Args:
      out: as `require_out` allows.
      images: uint8 `[N, H, W, C]`; an npz holds these grey levels as they are, as `image`.
      labels: int32 `[N]`, stored in an npz as `label`; `None` without classes.
      levels: number of grey levels; an npz holds it as `levels`.
    """
    if out.endswith(("/", os.sep)) or pathlib.Path(out).is_dir():
        write_singles(out, images, levels)
    elif pathlib.Path(out).suffix.lower() == ".npz":
        arrays = {"image": images, "levels": np.int32(levels)}
        write_npz(out, arrays if labels is None else {**arrays, "label": labels})
    else:
        write_png(out, grid(images, levels))
