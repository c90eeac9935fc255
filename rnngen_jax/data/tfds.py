"""`tfds:NAME`, `tfds:NAME:VERSION` or `tfds:PATH`: a prepared TFDS data set in ArrayRecord files.

A name is looked up in $TFDS_DATA_DIR, by default `~/tensorflow_datasets`; the newest version is
used. An argument with a slash is a path: of the data set's folder, or of one version within it.
TensorFlow is not needed. Images are the feature `image`, uint8 of one fixed shape `[H, W, C]`, or
sequences the feature `frames`, `[T, H, W, C]`; classes, if any, are the feature `label`, a
ClassLabel. Other features, and splits other than train, validation and
test, are ignored. `prepare` makes such a data set from any other source. Images are read on demand.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from rnngen_jax.config import nearest, require
from rnngen_jax.data.base import SPLITS, DataConfig, Split
from rnngen_jax.data.source import Source, need_argument, path_of, resolved
from rnngen_jax.errors import UserError
from rnngen_jax.files import require_file, require_folder
from rnngen_jax.paths import Path
from rnngen_jax.shapes import FRAMES, IMAGE

_VERSION = re.compile(r"\d+\.\d+\.\d+")
_FEATURES = "tensorflow_datasets.core.features."


def data_dir() -> Path:
    """The folder of data sets by name: $TFDS_DATA_DIR or `~/tensorflow_datasets`."""
    return path_of(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets")


def canonical(argument: str) -> str:
    """The path of a data set by name or path; without a version, that of the newest."""
    if _is_path(argument):
        return resolved(argument)
    name, _, version = argument.partition(":")
    return resolved(str(data_dir() / name / version))


def prepared(folder: Path) -> list[str]:
    """Names of the complete data sets in `folder`."""
    if not folder.is_dir():
        return []
    return sorted(entry.name for entry in folder.iterdir() if _versions(entry))


def load_source(argument: str, config: DataConfig) -> Source:
    """A prepared data set, read by index.

    Raises:
      UserError: an unknown data set, one not in ArrayRecord files, or unsupported features.
    """
    need_argument(argument, "tfds", "NAME")
    folder = _find(argument)
    for entry in sorted(folder.iterdir()):
        if not entry.is_dir():
            require_file(entry, "prepare the data set again")
    _check_features(folder)
    import tensorflow_datasets as tfds  # here, as it takes a second to import

    try:
        builder = tfds.builder_from_directory(folder)
        described, found = builder.info.features, builder.info.splits
        named = isinstance(described, tfds.features.FeaturesDict)
        features = dict(described.items()) if named else {}
        metadata = dict(builder.info.metadata or {})
        file_format = builder.info.file_format
    except Exception as error:  # a damaged description can raise anything
        raise _damaged(folder, error) from error
    if file_format is None or file_format.value != "array_record":
        given = file_format.value if file_format else "nothing"
        raise UserError(
            f"{folder}: the file format must be array_record, got {given}. "
            "Prepare it again with TFDS's file_format='array_record'."
        )
    shape, classes = _item_shape(features, folder), _classes(features, folder)
    levels = metadata.get("levels", 256)
    right = type(levels) is int and 2 <= levels <= 256
    require(right, f"{folder}: levels in metadata.json", levels, "an integer in [2, 256]")
    if "train" not in found:
        raise UserError(
            f"{folder}: must have a split 'train', got {', '.join(found) or 'no split'}."
        )
    splits = {}
    for name in SPLITS:
        if name in found:
            splits[name] = _split(builder, name, shape, levels, classes, folder)
    return Source(splits, shape, levels, classes)


def _split(
    builder: Any,
    name: str,
    shape: tuple[int, ...],
    levels: int,
    classes: int,
    folder: Path,
) -> Split:
    """A split that reads its records by index; labels are 0 without `classes`."""
    try:
        records = builder.as_data_source(split=name)
        num = len(records)
    except Exception as error:
        raise _damaged(folder, error) from error
    if not num:
        raise UserError(f"{folder}: the split {name} is empty; prepare the data set again.")

    key = IMAGE if len(shape) == 3 else FRAMES

    def read(indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        try:
            examples = records.__getitems__([int(index) for index in indices])
            images = np.stack([example[key] for example in examples]).reshape(-1, *shape)
        except Exception as error:
            raise _damaged(folder, error) from error
        labels = np.array([example["label"] if classes else 0 for example in examples])
        largest, allowed = int(images.max()), f"in [0, {levels - 1}]"
        require(largest < levels, f"{folder}: the grey levels of {name}", largest, allowed)
        if classes:
            span, allowed = (int(labels.min()), int(labels.max())), f"in [0, {classes - 1}]"
            right = 0 <= span[0] <= span[1] < classes
            require(right, f"{folder}: the least and the greatest label of {name}", span, allowed)
        return images, labels.astype(np.int32)

    read(np.array([0, num - 1]))  # detects missing or truncated files now
    return Split(num, read, key)


def _find(argument: str) -> Path:
    """The folder of one version of a data set, by path or name."""
    if _is_path(argument):
        path = path_of(argument)
        require_folder(path, "give one that `prepare` made")
        if (path / "dataset_info.json").is_file():
            return path
        version = ""
    else:
        name, _, version = argument.partition(":")
        path = data_dir() / name
        if not _versions(path):
            known = prepared(data_dir())
            hint = nearest(name, known) if known else "make one with `prepare`."
            raise UserError(
                f"config.data.name='tfds:{argument}': no prepared data set in {data_dir()}; {hint}"
            )
    versions = _versions(path)
    if not versions:
        raise UserError(f"{path}: holds no prepared data set; make one with `prepare`.")
    if version and version not in versions:
        raise UserError(f"{path}: has no version {version!r}; {nearest(version, versions)}")
    return path / (version or versions[-1])


def _is_path(argument: str) -> bool:
    return "/" in argument or os.sep in argument


def _versions(folder: Path) -> list[str]:
    """Complete versions of a data set, oldest first; TFDS writes others under other names."""
    if folder.name.startswith(".") or not folder.is_dir():
        return []
    complete = [
        entry.name
        for entry in folder.iterdir()
        if _VERSION.fullmatch(entry.name) and (entry / "dataset_info.json").is_file()
    ]
    return sorted(complete, key=lambda version: [int(number) for number in version.split(".")])


def _check_features(folder: Path) -> None:
    """Raises a `UserError` if features.json names Python classes that are not TFDS's own.

    TFDS imports the module of any class that the file names, so a data set could run arbitrary
    code. Older formats, which nest the names deeper, are refused as well.
    """
    path = folder / "features.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise UserError(f"{path}: is missing or damaged; prepare the data set again.") from None
    if not isinstance(content, dict) or "type" in content:
        raise UserError(f"{path}: has an old format; prepare the data set again with a newer TFDS.")
    for key, value in _items(content):
        plain = key.replace("_", "").lower()
        named = plain == "pythonclassname" and str(value).startswith(_FEATURES)
        if plain in ("jsonfeature", "protocls") or (plain == "pythonclassname" and not named):
            raise UserError(
                f"{path}: {key} {value!r} is not allowed; only TFDS's own features are read."
            )


def _items(content: Any) -> Iterator[tuple[str, Any]]:
    """All keys and values of nested JSON objects."""
    if isinstance(content, dict):
        for key, value in content.items():
            yield key, value
            yield from _items(value)
    elif isinstance(content, list):
        for value in content:
            yield from _items(value)


def _item_shape(features: Mapping[str, Any], folder: Path) -> tuple[int, ...]:
    """The shape `(H, W, C)` of images, or `(T, H, W, C)` of frames, in the description."""
    key, axes = (FRAMES, "(T, H, W, C)") if FRAMES in features else (IMAGE, "(H, W, C)")
    if key not in features:
        given = ", ".join(sorted(features)) or "unnamed"  # unordered, as in a protobuf map
        raise UserError(f"{folder}: must have a feature 'image' or 'frames', got {given}.")
    if key == FRAMES and IMAGE in features:
        raise UserError(f"{folder}: has the features 'image' and 'frames'; keep one of them.")
    item = features[key]
    dtype, shape = np.dtype(item.np_dtype), item.shape
    require(dtype == np.uint8, f"{folder}: the dtype of {key!r}", dtype.name, "uint8")
    right = len(shape) == len(axes.split(",")) and shape[-1] in (1, 3)
    require(right, f"{folder}: the shape of {key!r}", shape, f"{axes} with C 1 or 3")
    if None in shape:
        raise UserError(
            f"{folder}: the images must have one size, got the shape {shape}. Resize them first."
        )
    return tuple(shape)


def _classes(features: Mapping[str, Any], folder: Path) -> int:
    """Number of classes, 0 without a feature `label`."""
    if "label" not in features:
        return 0
    label = features["label"]
    classes = getattr(label, "num_classes", None)
    allowed = "a ClassLabel with a number of classes"
    require(bool(classes), f"{folder}: the feature 'label'", type(label).__name__, allowed)
    return int(classes)


def _damaged(folder: Path, error: Exception) -> UserError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return UserError(f"{folder}: cannot be read ({reason}); prepare the data set again.")
