"""Grids of codes beside their images: which pixels a code stands for, and a colour for each code.

Numbers of codes mean nothing by themselves, so a code is shown in a colour that depends on its
vector: the first three principal components of the codes' vectors are red, green and blue. Codes of
similar vectors then have similar colours, whatever the quantiser.
"""

from typing import Any, NamedTuple

import jax
import numpy as np

from rnngen_jax.evaluation.batching import map_batches
from rnngen_jax.evaluation.sampling import codes_of
from rnngen_jax.models.base import Extra, Model, Params
from rnngen_jax.models.levels import packed
from rnngen_jax.shapes import ImageSpec

AROUND = 1  # places on each side of a code that a window shows
DARKEST = 48  # of a colour's components, so that no code looks like an empty place
NUM = 1024  # random codes whose vectors make up the axes of colours
LEAST = 1e-6  # share of the first component below which another one is rounding


def side(grid: ImageSpec, image: ImageSpec) -> int:
    """Pixels of an image along a side of a place of its grid, a power of two.

    The last place of a row or column may stand for fewer.
    """
    pixels = 1
    while -(-image.height // pixels) > grid.height or -(-image.width // pixels) > grid.width:
        pixels *= 2
    return pixels


def enlarged(maps: np.ndarray, grid: ImageSpec, image: ImageSpec) -> np.ndarray:
    """Maps `[..., h, w, C]` with a value per place as images `[..., H, W, C]`."""
    pixels = side(grid, image)
    maps = maps.repeat(pixels, axis=-3).repeat(pixels, axis=-2)
    return maps[..., : image.height, : image.width, :]


def boxes(places: np.ndarray, grid: ImageSpec, image: ImageSpec) -> np.ndarray:
    """The smallest boxes around places.

    Args:
      places: bool `[T, h, w]`.
      grid, image: the specs of grids and of images.

    Returns:
      Top, left, bottom and right in pixels from 0, inclusive, `[T, 4]`; NaN where there is no
      place.
    """
    found = np.full((len(places), 4), np.nan)
    pixels = side(grid, image)
    for box, mask in zip(found, places, strict=True):
        where = np.argwhere(mask)
        if where.size:
            box[:2] = where.min(0) * pixels
            last = (where.max(0) + 1) * pixels
            box[2:] = np.minimum(last, (image.height, image.width)) - 1
    return found


def windows(
    images: np.ndarray, rows: np.ndarray, columns: np.ndarray, pixels: int
) -> tuple[np.ndarray, np.ndarray]:
    """What images show at a place and around it.

    Args:
      images: `[N, H, W, C]`.
      rows, columns: the place in each image, int `[N]`.
      pixels: along the side of a place.

    Returns:
      `[N, 3·pixels, 3·pixels, C]`, and bool `[N, 3·pixels, 3·pixels]`: which pixels are inside the
      image; those outside are 0.
    """
    size, margin = (2 * AROUND + 1) * pixels, (AROUND * pixels, (AROUND + 1) * pixels)
    padded = np.pad(images, ((0, 0), margin, margin, (0, 0)))
    within = np.pad(np.ones(images.shape[1:3], bool), margin)
    here = [
        np.s_[row * pixels : row * pixels + size, column * pixels : column * pixels + size]
        for row, column in zip(rows, columns, strict=True)
    ]
    found = np.stack([image[part] for image, part in zip(padded, here, strict=True)])
    inside = np.stack([within[part] for part in here])
    return found, inside


class Colours(NamedTuple):
    """The axes of colours; see `fit`.

    Attributes:
      mean: of the vectors, `[D]`.
      axes: the axis of each component of a colour, `[3, D]`; zeros where there is none.
      low, high: the least and greatest value along each, `[3]`.
    """

    mean: np.ndarray
    axes: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def of(self, vectors: np.ndarray) -> np.ndarray:
        """The colours of vectors `[..., D]`, uint8 RGB `[..., 3]`."""
        along = (np.asarray(vectors, np.float64) - self.mean) @ self.axes.T
        length = self.high - self.low
        share = np.where(length > 0, (along - self.low) / np.where(length > 0, length, 1), 0.5)
        return np.rint(DARKEST + np.clip(share, 0, 1) * (255 - DARKEST)).astype(np.uint8)


def colours_of(model: Model, params: Params, extra: Extra) -> list[Colours]:
    """The colours of each level's codes, the same in all pictures: a level's codes count alike.

    Raises:
      UserError: the model has no codes.
    """
    codes = codes_of(model, "to show")

    def one(params: Params, extra: Extra, batch: Any, common: None) -> Any:
        del common
        return codes.vectors(*codes.bind(params, extra), packed(batch[1:]))

    rng = np.random.default_rng(0)
    some = [
        rng.integers(0, spec.levels, (NUM, 1, 1, spec.channels)).astype(spec.dtype)
        for spec in codes.specs
    ]
    vectors = map_batches(one, params, extra, None, NUM, NUM, *some)
    return [fit(own) for own in jax.tree.leaves(vectors)]


def fit(vectors: np.ndarray) -> Colours:
    """Colours for vectors `[..., D]`: their first three principal components."""
    flat = np.asarray(vectors, np.float64).reshape(-1, vectors.shape[-1])
    mean = flat.mean(0)
    _, sizes, directions = np.linalg.svd(flat - mean, full_matrices=False)
    axes = np.zeros((3, flat.shape[1]))
    for n, direction in enumerate(directions[:3]):
        if sizes[n] > LEAST * sizes[0]:
            # Either sign would do; this one does not depend on the machine.
            axes[n] = direction * np.sign(direction[np.abs(direction).argmax()])
    along = (flat - mean) @ axes.T
    return Colours(mean, axes, along.min(0), along.max(0))
