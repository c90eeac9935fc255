"""Animated GIFs of sampling, reconstruction and training, with attention windows as boxes."""

import os
from collections.abc import Sequence

import numpy as np
from PIL import Image

from rnngen_jax.data.folder import read_image
from rnngen_jax.evaluation import code_maps, pictures
from rnngen_jax.evaluation.code_maps import Colours
from rnngen_jax.evaluation.drawing import Film
from rnngen_jax.files import replacing
from rnngen_jax.models.base import Canvases
from rnngen_jax.paths import Path
from rnngen_jax.shapes import ImageSpec

MILLISECONDS = 160  # duration of a frame
HOLD = 2000  # milliseconds of the last frame, if an animation ends in a result
LINE = 2  # width of a box's outline in pixels
READ_COLOUR = (64, 192, 96)
WRITE_COLOUR = (224, 64, 48)
MOST_FRAMES = 100  # in an animation of training
GREYS = 32  # entries of a colour animation's palette that are reserved for greys


def write_gif(
    path: str | os.PathLike[str],
    frames: np.ndarray,
    milliseconds: int = MILLISECONDS,
    hold: int | None = None,
) -> None:
    """Writes an animation that loops; an existing file is replaced only by a complete one.

    All frames share one palette. Up to 256 colours are exact, and greys stay grey. A frame that
    equals the previous one is not stored; its duration is added to that one's.

    Args:
      path: the file.
      frames: uint8 RGB `[F, H, W, 3]`.
      milliseconds: duration of each frame, a multiple of 10 in GIF.
      hold: duration of the last frame; `milliseconds` by default.
    """
    palette, indices = _indexed(frames)
    images = [Image.fromarray(frame, mode="P") for frame in indices]
    for image in images:
        image.putpalette(palette.tobytes())
    durations = [milliseconds] * (len(images) - 1) + [milliseconds if hold is None else hold]
    with replacing(path) as temporary:
        images[0].save(
            temporary,
            format="GIF",
            save_all=True,
            append_images=images[1:],
            duration=durations,
            loop=0,
        )


def write_animation(path: str, frames: np.ndarray, milliseconds: int = MILLISECONDS) -> None:
    """Writes an animation that loops, a lossless WebP if the path ends so, or else a GIF.

    Args:
      path: the file.
      frames: uint8 RGB `[F, H, W, 3]`.
      milliseconds: duration of each frame.
    """
    if pictures.ending(path) != ".webp":
        write_gif(path, frames, milliseconds)
        return
    images = [Image.fromarray(frame) for frame in frames]
    with replacing(path) as temporary:
        images[0].save(
            temporary,
            format="WEBP",
            save_all=True,
            append_images=images[1:],
            duration=milliseconds,
            loop=0,
            lossless=True,
        )


def forth_and_back(frames: np.ndarray) -> np.ndarray:
    """`frames` `[F, ...]`, F ≥ 2, forward and back without repeating the ends: `[2F - 2, ...]`."""
    return np.concatenate([frames, frames[-2:0:-1]])


def draw_boxes(
    frames: np.ndarray,
    boxes: np.ndarray,
    laid: pictures.Layout,
    colour: Sequence[int],
    first: int = 0,
) -> np.ndarray:
    """Outlines a box on each image of each frame, clipped to the image.

    A box encloses the pixels from its top to its bottom and from its left to its right, inclusive.
    A box outside its image is not drawn.

    Args:
      frames: pictures from `pictures.tile`, uint8 RGB `[T, H', W', 3]`.
      boxes: top, left, bottom and right in pixels of the images, from 0, `[T, N, 4]`; may be
        fractional.
      laid: the layout of the images.
      colour: RGB.
      first: index of the first of the N images in the table, row by row.

    Returns:
      New frames with boxes.
    """
    drawn = frames.copy()
    size = np.array([laid.height, laid.width])
    for frame, of_frame in zip(drawn, boxes, strict=True):
        for number, box in enumerate(of_frame, start=first):
            if not np.isfinite(box).all():
                continue
            low = np.rint(np.clip(box[:2] * laid.scale, 0, size)).astype(int)
            high = np.rint(np.clip((box[2:] + 1) * laid.scale, 0, size)).astype(int)
            if (low >= high).any():
                continue
            corner = np.array(laid.corner(*divmod(number, laid.columns)))
            _outline(frame, *(corner + low), *(corner + high), colour)
    return drawn


def sampled(canvases: Canvases) -> np.ndarray:
    """An animation of sampling: the canvases in a grid, with write boxes.

    The last frame repeats the last canvases without boxes.

    Args:
      canvases: of N images in T steps.

    Returns:
      Frames, uint8 RGB `[T + 1, H', W', 3]`.
    """
    images = pictures.to_bytes(canvases.mean)
    frames = np.stack([pictures.grid(image, 256) for image in images])
    laid = pictures.layout(*pictures.table(images.shape[1]), *images.shape[2:4])
    return _with_result(frames, laid, [(canvases.write, WRITE_COLOUR, 0)])


def reconstructed(images: np.ndarray, canvases: Canvases, levels: int) -> np.ndarray:
    """An animation of reconstruction: originals with read boxes above canvases with write boxes.

    Args:
      images: the originals, uint8 `[N, H, W, C]`.
      canvases: of these, in T steps.
      levels: number of grey levels.

    Returns:
      Frames, uint8 RGB `[T + 1, H', W', 3]`; the last one without boxes.
    """
    num = len(images)
    frames = np.stack([pictures.reconstructions(images, mean, levels) for mean in canvases.mean])
    laid = pictures.layout(2, num, *images.shape[1:3])
    boxes = [(canvases.read, READ_COLOUR, 0), (canvases.write, WRITE_COLOUR, num)]
    return _with_result(frames, laid, boxes)


def sampled_codes(
    film: Film, colours: Sequence[Colours], grids: Sequence[ImageSpec], spec: ImageSpec
) -> np.ndarray:
    """An animation of codes being drawn: each map of codes beside the image that is expected.

    Boxes show the places that are drawn in a frame. The last frame repeats the last one without.

    Args:
      film: of the grids of N images in F frames.
      colours, grids: the colours and specs of each level.
      spec: the images.

    Returns:
      Frames, uint8 RGB `[F + 1, H', W', 3]`.
    """
    parts, boxes = _parts(film, colours, grids, spec)
    beside = np.stack(parts, axis=2).reshape(len(film.mean), -1, *parts[0].shape[2:])
    rows, columns = pictures.table(film.mean.shape[1])
    columns *= len(parts)
    frames = [pictures.tile(pictures.in_table(cells, rows, columns)) for cells in beside]
    laid = pictures.layout(rows, columns, spec.height, spec.width)
    each = np.tile(np.stack(boxes, axis=1), (1, film.mean.shape[1], 1))
    return _with_result(np.stack(frames), laid, [(each, WRITE_COLOUR, 0)])


def reconstructed_codes(
    images: np.ndarray,
    film: Film,
    colours: Sequence[Colours],
    grids: Sequence[ImageSpec],
    spec: ImageSpec,
) -> np.ndarray:
    """An animation of images being rebuilt from their codes, one column per image.

    The originals, with boxes of what is read, are above the maps of codes and the images that are
    expected, with boxes of what is written.

    Args:
      images: the originals, uint8 `[N, H, W, C]`.
      film: of their grids, in F frames.
      colours, grids: the colours and specs of each level.
      spec: the images.

    Returns:
      Frames, uint8 RGB `[F + 1, H', W', 3]`; the last one without boxes.
    """
    num, original = len(images), pictures.to_pixels(images, spec.levels)
    parts, boxes = _parts(film, colours, grids, spec)
    frames = [pictures.tile(np.stack([original, *rows])) for rows in zip(*parts, strict=True)]
    laid = pictures.layout(1 + len(parts), num, spec.height, spec.width)
    read, *written = (np.repeat(box[:, None], num, axis=1) for box in (boxes[-1], *boxes))
    drawn = [(box, WRITE_COLOUR, num * row) for row, box in enumerate(written, start=1)]
    return _with_result(np.stack(frames), laid, [(read, READ_COLOUR, 0), *drawn])


def predicted(rows: Sequence[np.ndarray]) -> np.ndarray:
    """An animation of sequences, each kind in a row of its own, as `pictures.predictions` has them.

    Args:
      rows: pixels of each kind, uint8 RGB `[N, T, H, W, 3]`, such as the truth and predictions.

    Returns:
      Frames, uint8 RGB `[T, H', W', 3]`, one column per sequence.
    """
    return np.stack([pictures.tile(cells) for cells in np.moveaxis(np.stack(rows), 2, 0)])


def training(folder: Path) -> np.ndarray | None:
    """An animation of training: its grids of samples in order, at most `MOST_FRAMES` of them.

    Args:
      folder: a run's `samples`, with step_STEP.png.

    Returns:
      Frames, uint8 RGB `[F, H', W', 3]`, evenly spaced over training; `None` for fewer than two
      grids, or for grids of different sizes, as a resumed run may have.
    """
    files = sorted(folder.glob("step_*.png"))
    if len(files) > MOST_FRAMES:
        files = [files[n] for n in np.linspace(0, len(files) - 1, MOST_FRAMES).round().astype(int)]
    frames = [read_image(file) for file in files]
    if len(frames) < 2 or len({frame.shape for frame in frames}) > 1:
        return None
    return np.broadcast_to(np.stack(frames), (*np.shape(frames)[:3], 3))


def _parts(
    film: Film, colours: Sequence[Colours], grids: Sequence[ImageSpec], spec: ImageSpec
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """What a film shows: maps of each level's codes drawn so far, and the expected images.

    Returns:
      Pixels of each, uint8 RGB `[F, N, H, W, 3]`, and boxes around what is new, `[F, 4]`.
    """
    parts, boxes = [], []
    for known, new, vectors, own, grid in zip(
        film.known, film.new, film.vectors, colours, grids, strict=True
    ):
        gap = np.array(pictures.GAP_COLOUR, np.uint8)
        maps = np.where(known[:, None, ..., None], own.of(vectors), gap)
        parts.append(code_maps.enlarged(maps, grid, spec))
        boxes.append(code_maps.boxes(new, grid, spec))
    parts.append(pictures.to_pixels(pictures.to_bytes(film.mean), 256))
    boxes.append(np.fmax.reduce(boxes))  # of the level that is drawn; those of others are NaN
    return parts, boxes


def _with_result(
    frames: np.ndarray,
    laid: pictures.Layout,
    boxes: Sequence[tuple[np.ndarray | None, Sequence[int], int]],
) -> np.ndarray:
    """Frames with boxes, if there are any, followed by the last frame without."""
    drawn = frames
    for of_images, colour, first in boxes:
        if of_images is not None:
            drawn = draw_boxes(drawn, of_images, laid, colour, first)
    return np.concatenate([drawn, frames[-1:]])


def _outline(
    frame: np.ndarray, top: int, left: int, bottom: int, right: int, colour: Sequence[int]
) -> None:
    """Draws a rectangle's outline, inside the rectangle, into a frame."""
    inside = frame[top:bottom, left:right]
    for line in (inside[:LINE], inside[-LINE:], inside[:, :LINE], inside[:, -LINE:]):
        line[:] = colour


def _indexed(frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A palette, uint8 `[P, 3]` with up to 256 colours, and each pixel's index in it, uint8."""
    packed = frames.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)
    found, place, counts = np.unique(packed, return_inverse=True, return_counts=True)
    colours = np.stack([found >> 16, found >> 8 & 255, found & 255], axis=-1)
    if len(colours) <= 256:
        palette, nearest = colours, np.arange(len(colours))
    else:
        palette, nearest = _reduced(colours, counts)
    return palette.astype(np.uint8), nearest.astype(np.uint8)[place].reshape(packed.shape)


def _reduced(colours: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A palette of 256 colours, `[P, 3]`, for M > 256, and the nearest entry of each, `[M]`.

    Greys have evenly spaced entries of their own, as a mean of near colours would tint them. If
    there are few other colours, such as those of boxes, they are exact.
    """
    grey = (colours == colours[:, :1]).all(-1)
    others = colours[~grey]
    kept = min(256 - GREYS, len(others)) if grey.any() else 256
    if len(others) > kept:
        others = _median_cut(others, counts[~grey], kept)
    room = 256 - len(others)
    greys = np.rint(np.linspace(0, 255, room)).astype(int) if grey.any() else np.zeros(0, int)
    palette = np.concatenate([others, np.repeat(greys[:, None], 3, axis=1)])
    nearest = np.empty(len(colours), int)
    nearest[grey] = len(others) + np.rint(colours[grey, 0] * ((room - 1) / 255)).astype(int)
    nearest[~grey] = _nearest(colours[~grey], others)
    return palette, nearest


def _median_cut(colours: np.ndarray, counts: np.ndarray, num: int) -> np.ndarray:
    """Median cut: up to `num` colours `[num, 3]` for given ones, weighted by their counts."""
    often = np.maximum(1, counts * 2**20 // counts.sum())  # about 2**20 pixels in all
    pixels = np.repeat(colours, often, axis=0).astype(np.uint8)[None]
    cut = Image.fromarray(pixels).quantize(num, Image.Quantize.MEDIANCUT)
    return np.array(cut.getpalette()[: 3 * num]).reshape(-1, 3)


def _nearest(colours: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """The index of each colour's nearest palette entry, `[M]`."""
    parts = [np.zeros(0, int)]
    for start in range(0, len(colours), 4096):  # keeps the table of distances small
        away = colours[start : start + 4096, None] - palette
        parts.append(np.square(away).sum(-1).argmin(1))
    return np.concatenate(parts)
