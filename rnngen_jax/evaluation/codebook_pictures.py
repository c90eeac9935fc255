"""A codebook in pictures: what each code stands for, how often it is used, and maps of codes."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from rnngen_jax.evaluation import code_maps, pictures
from rnngen_jax.evaluation.batching import Track, map_batches
from rnngen_jax.evaluation.codes import counts
from rnngen_jax.evaluation.sampling import BATCH, codes_of
from rnngen_jax.models.base import Extra, Model, Params
from rnngen_jax.models.levels import packed
from rnngen_jax.shapes import ImageSpec

BARS = (512, 96)  # width and height of a histogram in pixels, if its bars have room
MOST_BARS = 1024
NEIGHBOURS = [(down, right) for down in range(3) for right in range(3) if (down, right) != (1, 1)]
LINE_COLOUR = (255, 255, 255)
Decode = Callable[..., tuple[np.ndarray, list[np.ndarray]]]
PLAIN = 160  # grey of the bars of codes that are not shown


class CodeImages(NamedTuple):
    """The codes of a level's codebook as the images of a split use them.

    Those shown are, at each of the D depths, the first S of its K codes by how often they are used.
    Windows show a code's own place and those around it.

    Attributes:
      counts: how often each code is used, int64 `[D, K]`.
      shown: the codes shown, int `[D, S]`.
      alone: the expected image of a grid that holds nothing but the code, float32
        `[D, S, H', W', C]` in [0, 1]: a window of it.
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


def decoder(model: Model, track: Track = iter) -> Decode:
    """`decode(params, extra, grids) -> (images [N, H, W, C], vectors)`: the expected images.

    `grids` has the grids of each level, `[N, h, w, depth]`, and `vectors` their vectors,
    `[N, h, w, D]`.

    Raises:
      UserError: the model has no codes.
    """
    codes = codes_of(model, "to show")

    def one(params: Params, extra: Extra, batch: Any, common: None) -> Any:
        del common
        own = codes.bind(params, extra)
        vectors = codes.vectors(*own, packed(batch[1:]))
        return codes.likelihood.mean(codes.decode(*own, vectors)), jax.tree.leaves(vectors)

    def decode(
        params: Params, extra: Extra, grids: Sequence[np.ndarray]
    ) -> tuple[np.ndarray, list[np.ndarray]]:
        return map_batches(one, params, extra, None, len(grids[0]), BATCH, *grids, track=track)

    return decode


def code_images(
    decode: Decode,
    params: Params,
    extra: Extra,
    grids: Sequence[np.ndarray],
    specs: Sequence[ImageSpec],
    image: ImageSpec,
    level: int,
    most: int,
) -> CodeImages:
    """The codes of a level as the grids of a split use them.

    A code of one depth is shown with the codes that it has beside it at the other depths in its
    commonest surroundings; a code that is not used, with the commonest ones. Where a code is alone,
    the other levels have their commonest codes everywhere.

    Args:
      decode: from `decoder`.
      params, extra: the model's.
      grids: codes `[N, h, w, depth]` of each level.
      specs, image: the specs of each level's grids and of images.
      level: index of the level.
      most: number of codes shown of each depth.
    """
    own, spec, used = grids[level], specs[level], counts(grids[level], specs[level].levels)
    shown = np.argsort(-used, axis=1, kind="stable")[:, :most]
    pixels, middle = code_maps.side(spec, image), (spec.height // 2, spec.width // 2)
    usual = [counts(grid, own.levels).argmax(1) for grid, own in zip(grids, specs, strict=True)]
    alone, surrounded, vectors = [], [], []
    for depth, code in enumerate(shown):
        place = typical(own[..., depth], spec.levels)[code]
        there = place[:, 0] >= 0
        each = [np.repeat(codes[None], len(code), axis=0) for codes in usual]  # [S, depth]
        each[level][there] = own[tuple(place[there].T)]
        each[level][:, depth] = code
        full = [
            np.broadcast_to(codes[:, None, None], (len(code), *one.shape)).astype(one.dtype)
            for codes, one in zip(each, specs, strict=True)
        ]
        mean, found = decode(params, extra, full)
        rows, columns = (np.full(len(code), side) for side in middle)
        alone.append(_window(mean, rows, columns, pixels))
        vectors.append(found[level][:, 0, 0])
        mean, _ = decode(params, extra, [grid[np.maximum(place[:, 0], 0)] for grid in grids])
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
    vectors: Sequence[np.ndarray],
    colours: Sequence[code_maps.Colours],
    specs: Sequence[ImageSpec],
    image: ImageSpec,
) -> np.ndarray:
    """A picture with one column per image: the original, its maps of codes, its reconstruction.

    Args:
      images: the originals, integers `[N, H, W, C]`.
      mean: the images expected, `[N, H, W, C]` in [0, 1].
      vectors: of each level's codes, `[N, h, w, D]`.
      colours, specs: the colours and grids of each level.
      image: the spec of images.

    Returns:
      uint8 RGB `[H', W', 3]`.
    """
    maps = [
        code_maps.enlarged(own.of(found), grid, image)
        for own, found, grid in zip(colours, vectors, specs, strict=True)
    ]
    original = pictures.to_pixels(images, image.levels)
    return pictures.tile(np.stack([original, *maps, _to_pixels(mean)]))


def _to_pixels(mean: np.ndarray) -> np.ndarray:
    """Values in [0, 1] as RGB; NaN looks like a gap."""
    known = np.isfinite(mean)
    pixels = pictures.to_pixels(pictures.to_bytes(np.where(known, mean, 0)), 256)
    return np.where(known[..., :1], pixels, np.array(pictures.GAP_COLOUR, np.uint8))
