"""Images that a verb works on, of a split or from a user, and masks."""

import os
import pathlib

import jax
import numpy as np
from jax import Array

from rnngen_jax import keys
from rnngen_jax.config import nearest
from rnngen_jax.data.base import Dataset
from rnngen_jax.data.folder import read_image
from rnngen_jax.data.npz import read_arrays
from rnngen_jax.data.transforms import evaluation_transform
from rnngen_jax.errors import UserError
from rnngen_jax.evaluation.likelihood import SEED
from rnngen_jax.evaluation.pictures import to_levels, to_pixels
from rnngen_jax.files import require_file
from rnngen_jax.ops import masks
from rnngen_jax.shapes import ImageSpec


def read_split(dataset: Dataset, split: str, num: int | None) -> tuple[np.ndarray, np.ndarray]:
    """The first images of a split as a model sees them in evaluation, and their labels.

    Args:
      dataset: the data.
      split: the split's name.
      num: how many images at most, `None` for all.

    Returns:
      uint8 `[N, H, W, C]` and int32 `[N]`.
    """
    source = dataset.splits[split]
    index = np.arange(source.num if num is None else min(num, source.num), dtype=np.int32)
    image, label = source.read(index)
    batch = jax.jit(evaluation_transform(dataset))(
        {source.key: image, "label": label, "index": index},
        keys.named(jax.random.key(SEED), "transform"),
    )
    return np.asarray(batch[source.key]), label


def image_files(path: str, num: int | None) -> list[pathlib.Path]:
    """The image files that `read_images` reads of a path; none of an npz.

    Raises:
      UserError: there is nothing, an empty folder, or one that holds folders.
    """
    place = pathlib.Path(path)
    if not os.path.lexists(place):
        raise UserError(f"--input={path}: there is no such file or folder.")
    if not place.is_dir():
        require_file(place, "give an image file, a folder of them or an npz", f"--input={path}")
        return [] if place.suffix.lower() == ".npz" else [place]
    files = sorted(file for file in place.iterdir() if not file.name.startswith("."))[:num]
    if not files:
        raise UserError(f"--input={path}: the folder is empty; give one with images.")
    for file in files:
        if file.is_dir():
            raise UserError(
                f"--input={path} holds the folder {file.name!r}; give an image, an npz or a folder "
                f"of images alone, such as {file}."
            )
    return files


def read_images(
    path: str, spec: ImageSpec, num: int | None, exact: bool = False
) -> tuple[np.ndarray, np.ndarray | None]:
    """The images of a file, a folder or an npz, as grey levels of a model.

    8-bit images are brought to the nearest of the model's levels. An npz holds levels already: its
    array `levels`, 256 by default, must be the model's, or 256.

    Args:
      path: an image file, a folder of them (in the order of their names), or an npz with the array
        `image`, and optionally `label`.
      spec: the model's images.
      num: how many images at most, from the start; `None` for all.
      exact: refuses 8-bit images that lie between the model's levels.

    Returns:
      uint8 `[N, H, W, C]`, and the labels int32 `[N]` of an npz that has them.

    Raises:
      UserError: missing, damaged or empty input, or images of another size or number of channels.
    """
    files = image_files(path, num)
    if not files:
        return _read_npz(pathlib.Path(path), spec, num, exact)
    if spec.frames or spec.levels > 256:
        raise UserError(
            f"--input={path}: the model is of {'sequences' if spec.frames else 'codes'}, which no "
            f"image file holds; give an npz with the array {spec.key!r}."
        )
    images = [_fitting(read_image(file), spec, str(file)) for file in files]
    if exact:
        for file, image in zip(files, images, strict=True):
            _check_exact(image, spec.levels, str(file))
    return to_levels(np.stack(images), spec.levels), None


def known_pixels(mask: str, key: Array, num: int, spec: ImageSpec) -> np.ndarray:
    """Which pixels are known, bool `[N, H, W]`; of sequences `[N, T, H, W]`, each frame alike.

    Args:
      mask: "lower", "upper", "centre", "random", or the path of a mask image: white where pixels
        are known, black where they are missing.
      key: for random masks, one an image.
      num: number of images N.
      spec: the images.

    Raises:
      UserError: an unknown mask, or a mask image of another size, with other colours than black
        and white, or with nothing missing.
    """
    height, width = spec.height, spec.width
    if mask == "random":
        index = np.arange(num, dtype=np.int32)
        known = np.asarray(masks.random_each(keys.named(key, "mask"), index, height, width))
    elif mask in masks.FIXED:
        known = np.asarray(masks.FIXED[mask](height, width))
    else:
        known = _read_mask(mask, height, width)
    known = np.broadcast_to(known, (num, height, width))
    if not spec.frames:
        return known
    return np.broadcast_to(known[:, None], (num, *spec.shape[:-1]))


def _read_mask(mask: str, height: int, width: int) -> np.ndarray:
    """A mask image as bool `[H, W]`."""
    path = pathlib.Path(mask)
    if not path.suffix:
        raise UserError(
            f"--mask={mask} is not known; {nearest(mask, [*masks.FIXED, 'random', 'FILE.png'])}"
        )
    require_file(path, "give a mask image", f"--mask={mask}")
    pixels = read_image(path)
    if pixels.shape[:2] != (height, width):
        raise UserError(
            f"--mask={mask} is {pixels.shape[1]}x{pixels.shape[0]} pixels; "
            f"the model's images are {width}x{height}."
        )
    known = pixels[..., 0] == 255
    if not (np.isin(pixels, (0, 255)).all() and (pixels == pixels[..., :1]).all()):
        raise UserError(f"--mask={mask} has other values than black (missing) and white (known).")
    if known.all():
        raise UserError(f"--mask={mask} is all white: nothing is missing; paint that part black.")
    return known


def _read_npz(
    path: pathlib.Path, spec: ImageSpec, num: int | None, exact: bool
) -> tuple[np.ndarray, np.ndarray | None]:
    """Images and labels of an npz, as grey levels of the model."""
    stored = read_arrays(path)
    if spec.key not in stored:
        raise UserError(
            f"--input={path} holds no array {spec.key!r}; save the images by that name."
        )
    images, labels = stored[spec.key][:num], stored.get("label")
    axes = (len(spec.shape), len(spec.shape) + 1)
    right = images.dtype.kind in "iu" if spec.levels > 256 else images.dtype == np.uint8
    if not right or images.ndim not in axes or not images.size:
        kind = "integers" if spec.levels > 256 else "uint8"
        allowed = "[N, T, H, W, C]" if spec.frames else "[N, H, W] or [N, H, W, C]"
        raise UserError(
            f"--input={path}: {spec.key!r} is {images.dtype} of shape {images.shape}; "
            f"allowed: {kind} {allowed}."
        )
    levels = stored.get("levels", np.int32(256))
    whole = levels.shape == () and levels.dtype.kind in "iu"
    others = (spec.levels, 256) if spec.levels < 256 else (spec.levels,)
    if not whole or int(levels) not in others:
        allowed = f"{spec.levels}, the model's" + ", or 256" * (spec.levels < 256)
        raise UserError(f"--input={path} has {levels} grey levels; allowed: {allowed}.")
    images = np.stack([_fitting(image, spec, str(path)) for image in images])
    if int(levels) != spec.levels:
        if exact:
            _check_exact(images, spec.levels, f"--input={path}")
        images = to_levels(images, spec.levels)
    if images.max() >= spec.levels:
        raise UserError(
            f"--input={path} holds the grey level {images.max()}; allowed: 0 to {spec.levels - 1}."
        )
    if images.min() < 0:
        raise UserError(f"--input={path} holds {images.min()}; allowed: 0 to {spec.levels - 1}.")
    images = images.astype(spec.dtype)
    if labels is None:
        return images, None
    labels = labels[:num]
    fits = labels.shape == (len(images),) and labels.dtype.kind in "iu"
    if not fits or labels.min() < 0 or labels.max() >= max(spec.classes, 1):
        raise UserError(
            f"--input={path}: 'label' does not fit; "
            f"allowed: {len(images)} integers, 0 to {max(spec.classes, 1) - 1}."
        )
    return images, labels.astype(np.int32)


def _fitting(image: np.ndarray, spec: ImageSpec, where: str) -> np.ndarray:
    """One item in the model's shape, if it is of its size."""
    image = image if image.ndim == len(spec.shape) else image[..., None]
    # Grey pictures are often saved as RGB.
    if spec.channels == 1 and image.shape[-1] == 3 and (image == image[..., :1]).all():
        image = image[..., :1]
    if image.shape != spec.shape:
        raise UserError(
            f"{where}: {_size(image.shape)}; the model's images are {_size(spec.shape)}."
        )
    return image


def _check_exact(pixels: np.ndarray, levels: int, where: str) -> None:
    """Raises a `UserError` unless 8-bit values are levels of a model, and come back as they are."""
    back = to_pixels(to_levels(pixels, levels), levels)[..., : pixels.shape[-1]]
    lost = pixels[back != pixels]
    if lost.size:
        raise UserError(
            f"{where} holds the value {lost[0]}, which is none of the model's {levels} levels "
            "(0 to 255 in equal steps); it would not come back as it is."
        )


def _size(shape: tuple[int, ...]) -> str:
    """A shape in words, of still images such as "8x8 grey"."""
    *frames, height, width, channels = shape
    kind = {1: "grey", 3: "RGB"}.get(channels, f"of {channels} channels")
    return f"{width}x{height} {kind}" + "".join(f", {number} frames" for number in frames)
