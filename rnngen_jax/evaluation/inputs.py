"""A verb's images, from a split or from the user, and masks."""

import jax
import numpy as np
from jax import Array

from rnngen_jax import keys, paths
from rnngen_jax.config import nearest, require
from rnngen_jax.data.base import Dataset
from rnngen_jax.data.folder import read_image
from rnngen_jax.data.frames import read_clip as frames_of
from rnngen_jax.data.npz import briefly, read_arrays
from rnngen_jax.data.transforms import evaluation_transform
from rnngen_jax.errors import UserError
from rnngen_jax.evaluation.likelihood import SEED
from rnngen_jax.evaluation.pictures import to_levels, to_pixels
from rnngen_jax.files import require_file
from rnngen_jax.ops import masks
from rnngen_jax.paths import Path
from rnngen_jax.shapes import ImageSpec


def read_split(dataset: Dataset, split: str, num: int | None) -> tuple[np.ndarray, np.ndarray]:
    """The first images of a split as a model sees them in evaluation, and their labels.

    Args:
      dataset: the data.
      split: the split's name.
      num: most images to read; `None` for all.

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


def image_files(path: str, num: int | None) -> list[Path]:
    """The image files that `read_images` reads from a path; empty for an npz.

    Raises:
      UserError: a missing path, an empty folder, or one that holds folders.
    """
    place = paths.reached(path)
    if not paths.exists(place):
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

    8-bit images are rounded to the nearest of the model's levels. An npz holds levels: its array
    `levels`, 256 by default, must be the model's number of levels, or 256.

    Args:
      path: an image file, a folder of them (in the order of their names), or an npz with the array
        `image`, and optionally `label`.
      spec: the model's images.
      num: most images to read, from the start; `None` for all.
      exact: refuses 8-bit images with values between the model's levels.

    Returns:
      uint8 `[N, H, W, C]`, and the labels int32 `[N]` of an npz that has them.

    Raises:
      UserError: missing, damaged or empty input, or images of another size or number of channels.
    """
    files = image_files(path, num)
    if not files:
        return _read_npz(paths.of(path), spec, num, exact)
    if spec.frames or spec.levels > 256:
        raise UserError(
            f"--input={path} must be an npz with the array {spec.key!r}, as the model is of "
            f"{'sequences' if spec.frames else 'codes'}."
        )
    images = [_fitting(read_image(file), spec, str(file)) for file in files]
    if exact:
        for file, image in zip(files, images, strict=True):
            _check_exact(image, spec.levels, str(file))
    return to_levels(np.stack(images), spec.levels), None


def read_clip(path: str, spec: ImageSpec) -> np.ndarray:
    """One sequence of one's own, an animation or a folder of numbered images, in a model's levels.

    Returns:
      Integers `[T, H, W, C]`, whatever T is.

    Raises:
      UserError: missing or damaged input, or frames of another size or number of channels.
    """
    place, where = paths.reached(path), f"--input={path}"
    if not paths.exists(place):
        raise UserError(f"{where}: there is no such file or folder.")
    still = spec._replace(frames=0)
    frames = np.stack([_fitting(frame, still, where) for frame in frames_of(place)])
    return to_levels(frames, spec.levels)


def known_pixels(mask: str, key: Array, num: int, spec: ImageSpec) -> np.ndarray:
    """Which pixels are known, bool `[N, H, W]`; for sequences `[N, T, H, W]`, all frames alike.

    Args:
      mask: "lower", "upper", "centre", "random", or the path of a mask image: white where pixels
        are known, black where they are missing.
      key: for random masks, of which each image has its own.
      num: number of images N.
      spec: the images.

    Raises:
      UserError: an unknown mask, or a mask image of another size, with colours other than black
        and white, or with no missing pixel.
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
    path = paths.of(mask)
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
        raise UserError(f"--mask={mask} has colours other than black (missing) and white (known).")
    if known.all():
        raise UserError(f"--mask={mask} is all white: no pixel is missing; paint some black.")
    return known


def _read_npz(
    path: Path, spec: ImageSpec, num: int | None, exact: bool
) -> tuple[np.ndarray, np.ndarray | None]:
    """Images and labels of an npz, as grey levels of the model."""
    stored, where = read_arrays(path), f"--input={path}"
    if spec.key not in stored:
        raise UserError(
            f"--input={path} holds no array {spec.key!r}; save the images under that name."
        )
    images, labels = stored[spec.key][:num], stored.get("label")
    codes = spec.levels > 256
    right = images.dtype.kind in "iu" if codes else images.dtype == np.uint8
    allowed = "integer" if codes else "uint8"
    require(right, f"{where}: the dtype of {spec.key!r}", images.dtype.name, allowed)
    right = images.ndim in (len(spec.shape), len(spec.shape) + 1) and images.size > 0
    allowed = "[N, T, H, W, C]" if spec.frames else "[N, H, W] or [N, H, W, C]"
    require(right, f"{where}: the shape of {spec.key!r}", images.shape, f"{allowed} with N ≥ 1")
    levels = stored.get("levels", np.int32(256))
    whole = levels.shape == () and levels.dtype.kind in "iu"
    right = whole and int(levels) in (spec.levels, max(spec.levels, 256))
    allowed = f"{spec.levels}, the model's" + ", or 256" * (spec.levels < 256)
    require(right, f"{where}: 'levels'", briefly(levels), allowed)
    images = np.stack([_fitting(image, spec, str(path)) for image in images])
    if int(levels) != spec.levels:
        if exact:
            _check_exact(images, spec.levels, f"--input={path}")
        images = to_levels(images, spec.levels)
    span, allowed = (int(images.min()), int(images.max())), f"in [0, {spec.levels - 1}]"
    right = span[0] >= 0 and span[1] < spec.levels
    require(right, f"{where}: the least and the greatest grey level", span, allowed)
    images = images.astype(spec.dtype)
    if labels is None:
        return images, None
    labels, most = labels[:num], max(spec.classes, 1) - 1
    right = labels.shape == (len(images),) and labels.dtype.kind in "iu"
    require(right, f"{where}: 'label'", briefly(labels), f"{len(images)} integers")
    span = int(labels.min()), int(labels.max())
    right = span[0] >= 0 and span[1] <= most
    require(right, f"{where}: the least and the greatest label", span, f"in [0, {most}]")
    return images, labels.astype(np.int32)


def _fitting(image: np.ndarray, spec: ImageSpec, where: str) -> np.ndarray:
    """One item in the model's shape; raises a `UserError` if it has another size."""
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
    """Raises a `UserError` unless 8-bit values are levels of a model, so coding is lossless."""
    back = to_pixels(to_levels(pixels, levels), levels)[..., : pixels.shape[-1]]
    lost = pixels[back != pixels]
    if lost.size:
        raise UserError(
            f"{where} holds the value {lost[0]}, which is not one of the model's {levels} levels "
            "(0 to 255 in equal steps), so it cannot be compressed without loss."
        )


def _size(shape: tuple[int, ...]) -> str:
    """A shape in words, such as "8x8 grey" for still images."""
    *frames, height, width, channels = shape
    kind = {1: "grey", 3: "RGB"}.get(channels, f"of {channels} channels")
    return f"{width}x{height} {kind}" + "".join(f", {number} frames" for number in frames)
