"""The data set contract: named splits of integer images, read by index."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from rnngen_jax.config import require, require_choice
from rnngen_jax.shapes import IMAGE, ImageSpec

SPLITS = ("train", "validation", "test")
BINARISATIONS = ("none", "static", "dynamic", "threshold")
PLACEMENTS = ("auto", "device", "stream")


@dataclass(frozen=True)
class DataConfig:
    """The images, and how they are processed before a model sees them.

    Attributes:
      name: "digits", "idx:FOLDER", "folder:FOLDER", "npz:FILE", "tfds:NAME" or "codes:RUN", the
        codes that the run of a tokenizer gives its images.
      binarisation: "none"; "static" samples each pixel once and for all with its brightness as the
        probability; "dynamic" resamples it at every step; "threshold" cuts at half brightness.
      validation_fraction: the fraction held out from the end of train if the source has no
        validation split.
      shift: random translation by up to this many pixels each way, padded with zeros.
      flip: random left-right mirroring.
      placement: "device" keeps the split on the accelerator, "stream" reads batches in background
        threads, "auto" chooses the device below 512 MiB. The batches are the same.
    """

    name: str = "digits"
    binarisation: str = "none"
    validation_fraction: float = 0.1
    shift: int = 0
    flip: bool = False
    placement: str = "auto"

    def __post_init__(self) -> None:
        require_choice("config.data.binarisation", self.binarisation, BINARISATIONS)
        require_choice("config.data.placement", self.placement, PLACEMENTS)
        require(
            0 < self.validation_fraction < 1,
            "config.data.validation_fraction",
            self.validation_fraction,
            "in (0, 1)",
        )
        require(self.shift >= 0, "config.data.shift", self.shift, "≥ 0 pixels")


class Split(NamedTuple):
    """One split, read by index.

    Attributes:
      num: number of items.
      read: `read(indices [N]) -> (items [N, ...], int32 [N])`, items in the spec's shape and
        dtype, and labels, 0 if the data has none. Thread-safe.
      key: the items' key in a batch, as in `ImageSpec.key`.
    """

    num: int
    read: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
    key: str = IMAGE


class Dataset(NamedTuple):
    """An opened data set.

    Attributes:
      name: as given in the config.
      spec: the images as a model sees them, so 2 levels under any binarisation.
      splits: by name, "train", "validation" and "test".
      binarisation: as in `DataConfig`; "static" and "threshold" are already applied by `read`,
        "dynamic" is applied by the transforms in `data/transforms.py`.
      raw_levels: grey levels of the images that `read` returns.
    """

    name: str
    spec: ImageSpec
    splits: Mapping[str, Split]
    binarisation: str
    raw_levels: int
