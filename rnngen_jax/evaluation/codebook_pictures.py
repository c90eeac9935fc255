"""A codebook in pictures: what each code stands for, how often it is used, and maps of codes."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jax import Array

from rnngen_jax.evaluation import code_maps, pictures
from rnngen_jax.evaluation.batching import Track, map_batches
from rnngen_jax.evaluation.codes import counts
from rnngen_jax.evaluation.sampling import BATCH, codes_of
from rnngen_jax.models.base import Extra, Model, Params
from rnngen_jax.shapes import ImageSpec

BARS = (512, 96)  # width and height of a histogram in pixels, if its bars have room
MOST_BARS = 1024
NEIGHBOURS = [(down, right) for down in range(3) for right in range(3) if (down, right) != (1, 1)]
LINE_COLOUR = (255, 255, 255)
PLAIN = 160  # grey of the bars of codes that are not shown


class CodeImages(NamedTuple):
    """The codes of a codebook as the images of a split use them.

    Those shown are, at each of the D depths, the first S of its K codes by how often they are used.
    Windows show a code's own place and those around it.

    Attributes:
      counts: how often each code is used, int64 `[D, K]`.
      shown: the codes shown, int `[D, S]`.
      alone: the expected image of a grid that holds nothing but the code, float32
        `[D, S, H', W', C]` in [0, 1]: its window.
      surrounded: the same in the code's commonest surroundings; NaN outside of the image, and for a
        code that is not used.
      vectors: of the grids of `alone`, `[D, S, V]`.
    """

    counts: np.ndarray
    shown: np.ndarray
    alone: np.ndarray
    surrounded: np.ndarray
    vectors: np.ndarray


def typical(grids: np.ndarray, codes: int) -> np.ndarray:
    """Where each code is in its commonest surroundings.

    A neighbour is the more usual, the more often it is found on that side of the code. Of a code's
    places that have most neighbours, eight unless they are at an edge, this is the one whose
    neighbours have the highest geometric mean of these frequencies; the first of several.

    Args:
      grids: `[N, h, w]`, the codes of one depth.
      codes: number of codes K.

    Returns:
      Grid, row and column of each code, int `[K, 3]`; -1 for a code that is nowhere.
    """
    flat, (height, width) = grids.reshape(-1).astype(np.int64), grids.shape[1:]
    padded = np.pad(grids.astype(np.int64), ((0, 0), (1, 1), (1, 1)), constant_values=-1)
    usual, within = np.zeros(flat.size), np.zeros(flat.size)
    for down, right in NEIGHBOURS:
        beside = padded[:, down : down + height, right : right + width].reshape(-1)
        here = np.flatnonzero(beside >= 0)
        pairs = flat[here] * codes + beside[here]
        _, which, often = np.unique(pairs, return_inverse=True, return_counts=True)
        usual[here] += np.log(often[which])
        within[here] += 1
    usual /= np.maximum(within, 1)  # a grid of one place has no neighbours
    first = np.lexsort((-usual, -within, flat))  # stable, so the first of equal ones
    code, place = np.unique(flat[first], return_index=True)
    found = np.full((codes, 3), -1)
    found[code] = np.stack(np.unravel_index(first[place], grids.shape), axis=-1)
    return found


def decoder(model: Model, track: Track = iter) -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    """`decode(params, extra, grids) -> (expected images [N, H, W, C], vectors [N, h, w, D])`.

    Raises:
      UserError: the model has no codes.
    """
    codes = codes_of(model, "to show")

    def one(params: Params, extra: Extra, batch: Any, common: None) -> tuple[Array, Array]:
        del common
        own = codes.bind(params, extra)
        vectors = codes.vectors(*own, batch[1])
        return codes.likelihood.mean(codes.decode(*own, vectors)), vectors

    def decode(params: Params, extra: Extra, grids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return map_batches(one, params, extra, None, len(grids), BATCH, grids, track=track)

    return decode


def code_images(
    decode: Callable[..., tuple[np.ndarray, np.ndarray]],
    params: Params,
    extra: Extra,
    grids: np.ndarray,
    grid: ImageSpec,
    image: ImageSpec,
    most: int,
) -> CodeImages:
    """The codes of a model as the grids of a split use them.

    A code of one depth is shown with the codes that it has beside it at the other depths in its
    commonest surroundings; a code that is not used, with the commonest ones.

    Args:
      decode: from `decoder`.
      params, extra: the model's.
      grids: codes `[N, h, w, depth]`.
      grid, image: the specs of grids and of images.
      most: number of codes shown of each depth.
    """
    used = counts(grids, grid.levels)
    shown = np.argsort(-used, axis=1, kind="stable")[:, :most]
    pixels, middle = code_maps.side(grid, image), (grid.height // 2, grid.width // 2)
    alone, surrounded, vectors = [], [], []
    for depth, own in enumerate(shown):
        place = typical(grids[..., depth], grid.levels)[own]
        there = place[:, 0] >= 0
        full = np.repeat(used.argmax(1)[None], len(own), axis=0)  # [S, depth]
        full[there] = grids[tuple(place[there].T)]
        full[:, depth] = own
        nothing_else = np.broadcast_to(full[:, None, None], (len(own), *grid.shape))
        mean, found = decode(params, extra, nothing_else.astype(grid.dtype))
        rows, columns = (np.full(len(own), side) for side in middle)
        alone.append(_window(mean, rows, columns, pixels))
        vectors.append(found[:, 0, 0])
        mean, _ = decode(params, extra, grids[np.maximum(place[:, 0], 0)])
        around = _window(mean, *np.maximum(place[:, 1:], 0).T, pixels)
        surrounded.append(np.where(there[:, None, None, None], around, np.nan))
    return CodeImages(used, shown, *map(np.stack, (alone, surrounded, vectors)))


def _window(mean: np.ndarray, rows: np.ndarray, columns: np.ndarray, pixels: int) -> np.ndarray:
    """The windows of images, NaN outside of them."""
    found, inside = code_maps.windows(mean, rows, columns, pixels)
    return np.where(inside[..., None], found, np.float32(np.nan))


def of_codes(found: CodeImages, depth: int, colours: code_maps.Colours) -> np.ndarray:
    """A picture of the codes of a depth: each one's colour, alone, and surrounded.

    Returns:
      uint8 RGB `[H', W', 3]`.
    """
    shown = [_to_pixels(part[depth]) for part in (found.alone, found.surrounded)]
    swatches = np.broadcast_to(colours.of(found.vectors[depth])[:, None, None], shown[0].shape)
    cells = np.stack([swatches, *shown], axis=1).reshape(-1, *swatches.shape[1:])
    # Each code takes three cells of a row.
    per_row = max(1, round((len(swatches) / 3) ** 0.5))
    return pictures.tile(pictures.in_table(cells, -(-len(swatches) // per_row), 3 * per_row))


def of_usage(found: CodeImages, colours: code_maps.Colours) -> np.ndarray:
    """A histogram per depth: bars of the codes, the commonest first, in the colours of those shown.

    A white line shows how often each would be used if all K were used alike.

    Returns:
      uint8 RGB `[H', W', 3]`.
    """
    width, height = BARS
    up, rows = np.arange(height, 0, -1)[:, None], []
    for used, vectors in zip(found.counts, found.vectors, strict=True):
        often = np.sort(used)[::-1][:MOST_BARS]
        colour = np.full((len(often), 3), PLAIN, np.uint8)
        colour[: len(vectors)] = colours.of(vectors)[:MOST_BARS]
        scale = height / max(used.max(), 1)
        bars = np.where((up <= np.ceil(often * scale))[..., None], colour, np.uint8(0))
        bars[height - max(1, round(used.mean() * scale))] = LINE_COLOUR
        rows.append(bars.repeat(max(1, width // len(often)), axis=1))
    return pictures.tile(np.stack(rows)[:, None])


def of_maps(
    images: np.ndarray,
    mean: np.ndarray,
    vectors: np.ndarray,
    colours: code_maps.Colours,
    grid: ImageSpec,
    image: ImageSpec,
) -> np.ndarray:
    """A picture with one column per image: the original, its map of codes, its reconstruction.

    Args:
      images: the originals, integers `[N, H, W, C]`.
      mean: the images expected, `[N, H, W, C]` in [0, 1].
      vectors: of their codes, `[N, h, w, D]`.
      colours: of codes.
      grid, image: the specs of grids and of images.

    Returns:
      uint8 RGB `[H', W', 3]`.
    """
    maps = code_maps.enlarged(colours.of(vectors), grid, image)
    original = pictures.to_pixels(images, image.levels)
    return pictures.tile(np.stack([original, maps, _to_pixels(mean)]))


def _to_pixels(mean: np.ndarray) -> np.ndarray:
    """Values in [0, 1] as RGB; NaN looks like a gap."""
    known = np.isfinite(mean)
    pixels = pictures.to_pixels(pictures.to_bytes(np.where(known, mean, 0)), 256)
    return np.where(known[..., :1], pixels, np.array(pictures.GAP_COLOUR, np.uint8))
