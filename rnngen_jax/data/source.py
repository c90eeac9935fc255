"""The Source record, and helpers shared by data sources.

A source is a file of this folder with `load_source(argument, config) -> Source`.
"""

import functools
import os
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from rnngen_jax import paths
from rnngen_jax.config import require
from rnngen_jax.data.base import SPLITS, Split
from rnngen_jax.errors import UserError
from rnngen_jax.paths import Path
from rnngen_jax.shapes import FRAMES, IMAGE, dtype_of

MAX_BYTES = 2**33  # unpacked size limit: a file's header may be wrong
# Embeddings and one-hot vectors of class-conditional models have one entry per class.
MOST_CLASSES = 2**16
MOST_LEVELS = 2**20  # entries of a codebook
MOST_CHANNELS = 255  # of a grid of residual codes
FEW_CLASSES = 1000  # up to this many may be inferred from labels, however few the images


class Source(NamedTuple):
    """Images as on disk: before binarisation, and before missing splits are held out.

    Attributes:
      splits: by name; "train" is required, "validation" and "test" are optional.
      shape: of one item, `(H, W, C)` or `(T, H, W, C)`.
      levels: grey levels or codes, 2 to `MOST_LEVELS`.
      classes: number of classes, 0 without labels.
    """

    splits: Mapping[str, Split]
    shape: tuple[int, ...]
    levels: int
    classes: int


def from_arrays(
    arrays: Mapping[str, tuple[np.ndarray, np.ndarray | None]],
    levels: int,
    where: str,
    classes: int | None = None,
    *,
    coded: bool = False,
) -> Source:
    """A source of images in memory, after checking their consistency.

    Args:
      arrays: items as for `checked`, and labels, integers `[N]` or `None`, by split.
      levels: grey levels or codes.
      where: name of the data in messages, such as the path of its file.
      classes: number of classes if the source knows it; by default the largest label of train plus
        one, which must be at most the number of its images, or `FEW_CLASSES` if that is more.
      coded: whether items are grids of codes, whatever the number of levels.

    Raises:
      UserError: arrays of wrong type or shape, splits of different image sizes or only partly with
        labels, or a label or grey level out of range.
    """
    fitting = {
        name: checked(*pair, f"{where}: {name}", levels, coded=coded)
        for name, pair in arrays.items()
    }
    if "train" not in fitting:
        raise UserError(f"{where}: has no train split; give one, beside {', '.join(fitting)}.")
    shapes = {images.shape[1:] for images, _ in fitting.values()}
    if len(shapes) > 1:
        raise UserError(
            f"{where}: the images of all splits must have one shape, got {sorted(shapes)}."
        )
    labelled = {name for name, (_, labels) in fitting.items() if labels is not None}
    if labelled and labelled != set(fitting):
        missing = ", ".join(sorted(set(fitting) - labelled))
        raise UserError(f"{where}: no labels for {missing}; give labels for all splits or none.")
    if not labelled:
        classes = 0
    elif classes is None:
        classes = _inferred_classes(fitting["train"][1], where)  # type: ignore[arg-type]
    for name, (images, labels) in fitting.items():
        largest, allowed = int(images.max()), f"in [0, {levels - 1}]"
        require(largest < levels, f"{where}: the grey levels of {name}", largest, allowed)
        if labels is not None:
            greatest, allowed = int(labels.max()), f"in [0, {classes - 1}], as those of train"
            require(greatest < classes, f"{where}: the labels of {name}", greatest, allowed)
    splits = {name: array_split(*fitting[name]) for name in SPLITS if name in fitting}
    return Source(splits, fitting["train"][0].shape[1:], levels, classes)  # type: ignore[arg-type]


def checked(
    images: np.ndarray,
    labels: np.ndarray | None,
    where: str,
    levels: int = 256,
    *,
    coded: bool = False,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Items in their dtype with a channel axis, and labels, if any, as int32 `[N]`.

    Args:
      images: non-empty uint8 `[N, H, W]`, `[N, H, W, C]` or, for sequences, `[N, T, H, W, C]`;
        above 256 levels, for codes, any integers. At 256 levels, for pictures, C is 1 or 3.
      labels: integers `[N]` ≥ 0, or `None`.
      where: name of the data in messages.
      levels: grey levels or codes.
      coded: whether items are codes whatever `levels` is, so that C is free at 256, too.

    Raises:
      UserError: arrays of another type or shape, or values out of range.
    """
    codes = levels > 256
    right = images.dtype.kind in "iu" if codes else images.dtype == np.uint8
    allowed = "integer" if codes else "uint8"
    require(right, f"{where}: the images' dtype", images.dtype.name, allowed)
    if images.ndim == 3:
        images = images[..., None]
    pictures = levels == 256 and not coded
    channels = (1, 3) if pictures else range(1, MOST_CHANNELS + 1)
    right = images.ndim in (4, 5) and images.shape[-1] in channels and images.size > 0
    many = "1 or 3" if pictures else f"in [1, {MOST_CHANNELS}]"
    allowed = f"[N, H, W], [N, H, W, C] or [N, T, H, W, C] with C {many} and no axis of length 0"
    require(right, f"{where}: the images' shape", images.shape, allowed)
    least = int(images.min())
    require(least >= 0, f"{where}: the grey levels", least, f"in [0, {levels - 1}]")
    if codes and images.max() < levels:  # the caller refuses larger values
        images = images.astype(dtype_of(levels), copy=False)  # a mapped file stays one
    if labels is None:
        return images, None
    require(labels.dtype.kind in "iu", f"{where}: the labels' dtype", labels.dtype.name, "integer")
    allowed = f"({len(images)},), one label per image"
    require(labels.shape == images.shape[:1], f"{where}: the labels' shape", labels.shape, allowed)
    span = int(labels.min()), int(labels.max())
    right = span[0] >= 0 and span[1] < 2**31 - 1
    require(right, f"{where}: the least and the greatest label", span, "in [0, 2^31 - 2]")
    return images, labels.astype(np.int32)


def check_classes(classes: int, where: str) -> None:
    """Raises a `UserError` for more than `MOST_CLASSES` classes."""
    if classes > MOST_CLASSES:
        raise UserError(
            f"{where}: the number of classes must be ≤ {MOST_CLASSES}, got {classes}. "
            "Number the labels 0 to K - 1, without gaps."
        )


def _inferred_classes(labels: np.ndarray, where: str) -> int:
    """Number of classes from the largest label of train, where the data declares none.

    Raises:
      UserError: a label so large that it must be sparse, such as an identifier.
    """
    greatest, most = int(labels.max()), max(FEW_CLASSES, len(labels))
    if greatest >= most:
        raise UserError(
            f"{where}: the labels of train must be in [0, {most - 1}] for {len(labels)} images, "
            f"got {greatest}. Number the labels 0 to K - 1, without gaps."
        )
    return greatest + 1


def array_split(images: np.ndarray, labels: np.ndarray | None) -> Split:
    """A split of items and labels `[N]` in memory; missing labels read as 0.

    Args:
      images: `[N, H, W, C]`, or sequences `[N, T, H, W, C]`.
      labels: `[N]`, or `None`.
    """

    def read(indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if labels is None:
            return images[indices], np.zeros(len(indices), np.int32)
        return images[indices], labels[indices]

    return Split(len(images), read, FRAMES if images.ndim == 5 else IMAGE)


def cut(splits: Mapping[str, Split], fraction: float, where: str) -> dict[str, Split]:
    """All three splits, with missing ones held out from the end of train.

    Without a test split, the last `fraction` of train becomes test; without a validation split,
    the `fraction` before that becomes validation. Both are fractions of the original train.

    Args:
      splits: at least "train".
      fraction: the fraction for each missing split.
      where: name of the data in messages.

    Raises:
      UserError: too few images to leave one for each split.
    """
    whole = splits["train"]
    size = max(1, round(whole.num * fraction))
    missing = [name for name in SPLITS if name not in splits]
    kept = whole.num - size * len(missing)
    if kept < 1:
        count = "1 image is" if whole.num == 1 else f"{whole.num} images are"
        raise UserError(
            f"{where}: {count} too few to cut {' and '.join(missing)} from train; "
            "give more images or those splits."
        )
    complete = {"train": part(whole, 0, kept)} | {n: splits[n] for n in splits if n != "train"}
    for place, name in enumerate(missing):
        complete[name] = part(whole, kept + place * size, size)
    return {name: complete[name] for name in SPLITS}


def part(split: Split, start: int, num: int) -> Split:
    """The images `start` to `start + num - 1` of a split."""
    return split._replace(num=num, read=lambda indices: split.read(np.asarray(indices) + start))


@functools.lru_cache(maxsize=4)
def permutation(seed: int, epoch: int, num: int) -> np.ndarray:
    """A random permutation of `num` indices, int32 `[num]`, read-only; a pure function.

    It sorts the raw words of a Philox generator keyed by `(seed, epoch)`. Raw words are part of
    the generator's definition, so the order is the same in every NumPy version, which
    `Generator.permutation` does not promise.
    """
    words = np.random.Philox(key=np.array([seed % 2**64, epoch], np.uint64)).random_raw(num)
    order = np.argsort(words, kind="stable").astype(np.int32)
    order.flags.writeable = False
    return order


def path_of(argument: str) -> Path:
    """The file or folder that a source's argument names; ~ is the home folder.

    Raises:
      UserError: a URL of another kind than gs://BUCKET/NAME, or a bucket that cannot be reached.
    """
    return paths.reached(os.path.expanduser(argument))


def resolved(argument: str) -> str:
    """The normalised path of an argument, the same for all its spellings.

    Unlike pathlib's, it accepts broken and circular links.
    """
    return paths.resolved(os.path.expanduser(argument))


def no_argument(argument: str, name: str) -> None:
    """Raises a `UserError` if a source that takes no argument was given one."""
    if argument:
        raise UserError(f"config.data.name must be {name!r}, got '{name}:{argument}'.")


def need_argument(argument: str, name: str, what: str) -> None:
    """Raises a `UserError` if a source's argument, such as a folder, is missing."""
    if not argument:
        raise UserError(f"config.data.name={name!r} lacks its {what}; give '{name}:{what}'.")
