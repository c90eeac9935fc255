"""Imports any source into a TFDS data set of ArrayRecord files, which `tfds:NAME` then reads."""

import contextlib
import dataclasses
import io
import os
import pathlib
import re
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np

from rnngen_jax import paths
from rnngen_jax.config import require
from rnngen_jax.data import load, tfds
from rnngen_jax.data.base import MOVING, DataConfig, Dataset, Split
from rnngen_jax.data.source import path_of
from rnngen_jax.errors import UserError
from rnngen_jax.files import upload
from rnngen_jax.paths import Path

VERSION = "1.0.0"
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_AT_A_TIME = 1024
_BYTES_AT_A_TIME = 64 * 2**20


def prepare(source: DataConfig, name: str, data_dir: str | os.PathLike[str] | None = None) -> Path:
    """Writes a source's three splits, in order, as a TFDS data set.

    The images are stored with their original grey levels: `binarisation`, `shift` and `flip` belong
    to training and are not applied. Splits are held out as by `load`, and are then the data set's
    own: under static binarisation, images held out from train get the draws of their new positions,
    which differ from those in the source. The data set is built in a hidden folder and renamed
    when complete; for a bucket it is built on disk and uploaded.

    Args:
      source: the images; of its fields, `name` and `validation_fraction` matter.
      name: the data set's name, lower-case letters, digits and underscores.
      data_dir: the folder for the data set's folder; by default `tfds.data_dir()`.

    Returns:
      The data set's folder, `data_dir/name`.

    Raises:
      UserError: an invalid or existing name, a source that cannot be read or that makes its items
        as they are read, or a folder that cannot be written to.
    """
    allowed = "lower-case letters, digits and underscores, a letter first"
    require(_NAME.fullmatch(name) is not None, "name", name, allowed)
    folder = paths.absolute(path_of(os.fspath(data_dir)) if data_dir else tfds.data_dir())
    target = folder / name
    if paths.exists(target):
        raise UserError(f"{target}: exists already and is left as it is; give another name.")
    if source.name.partition(":")[0] == MOVING:
        raise UserError(
            f"{source.name}: is made as it is read, one sequence like any other, so there is "
            f"nothing to prepare; train with config.data.name={source.name}."
        )
    dataset = load(dataclasses.replace(source, binarisation="none"))
    if paths.is_remote(folder):
        with tempfile.TemporaryDirectory() as temporary:
            _build(dataset, source, name, pathlib.Path(temporary))
            # A data set counts as one once it has this file.
            upload(pathlib.Path(temporary) / name, target, last="dataset_info.json")
        return target
    try:
        folder.mkdir(parents=True, exist_ok=True)
        temporary = pathlib.Path(tempfile.mkdtemp(prefix=f".{name}.", dir=folder))
    except OSError as error:
        raise UserError(f"{folder}: cannot be written to ({error.strerror}).") from None
    try:
        _build(dataset, source, name, temporary)
        try:
            # Fails if a folder of that name has been made in the meantime, as it is not empty.
            (temporary / name).rename(target)
        except OSError as error:
            raise UserError(f"{target}: cannot be created ({error.strerror}).") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def _build(dataset: Dataset, source: DataConfig, name: str, folder: pathlib.Path) -> None:
    """Writes the data set to `folder/name/VERSION`."""
    import tensorflow_datasets
    from tqdm import tqdm

    features = tensorflow_datasets.features
    spec = dataset.spec
    # Raw bytes are read ten times as fast as PNG, and TFDS can write them without TensorFlow.
    tensor = features.Tensor(shape=spec.shape, dtype=np.uint8, encoding="bytes")
    described: dict[str, Any] = {spec.key: tensor}
    if spec.classes:
        described["label"] = features.ClassLabel(num_classes=spec.classes)
    total = sum(split.num for split in dataset.splits.values())
    bar = tqdm(total=total, desc=name, unit=" images", disable=None)  # None: only on a terminal

    # Sequences are larger than images.
    many = max(1, min(_AT_A_TIME, _BYTES_AT_A_TIME // spec.dims))

    def examples(split: Split) -> Iterator[tuple[int, dict[str, Any]]]:
        for start in range(0, split.num, many):
            indices = np.arange(start, min(start + many, split.num))
            images, labels = split.read(indices)
            for index, image, label in zip(indices, images, labels, strict=True):
                example = {spec.key: image, "label": int(label)}
                yield int(index), {key: example[key] for key in described}
            bar.update(len(indices))

    class Builder(tensorflow_datasets.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tensorflow_datasets.core.Version(VERSION)
        code_path = None  # there are no checksum or metadata files beside this code
        pkg_dir_path = folder

        def _info(self) -> Any:
            return tensorflow_datasets.core.DatasetInfo(
                builder=self,
                description=f"Images of {source.name}, imported by rnngen_jax.",
                features=features.FeaturesDict(described),
                disable_shuffling=True,
                metadata=tensorflow_datasets.core.MetadataDict(
                    {
                        "levels": dataset.raw_levels,
                        "source": source.name,
                        "validation_fraction": source.validation_fraction,
                    }
                ),
            )

        def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
            return {key: self._generate_examples(split) for key, split in dataset.splits.items()}

        def _generate_examples(self, split: Split) -> Iterator[tuple[int, dict[str, Any]]]:
            return examples(split)

    Builder.name = name
    tensorflow_datasets.disable_progress_bar()  # `bar` counts images, and is silent in log files
    with bar, contextlib.redirect_stdout(io.StringIO()):
        Builder(data_dir=folder, file_format="array_record").download_and_prepare()
