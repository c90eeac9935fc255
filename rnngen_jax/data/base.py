"""What a data set is to the rest of the project: named splits of uint8 images, read by index."""

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
    """Which images, and what is done to them before a model sees them.

    Attributes:
      name: "digits", "idx:FOLDER", "folder:FOLDER", "npz:FILE" or "tfds:NAME".
      binarisation: "none"; "static" draws each pixel once for ever with its brightness as the
        probability; "dynamic" draws it anew at every step; "threshold" cuts at half brightness.
      validation_fraction: the share cut from the end of train where the source has no validation
        split of its own.
      shift: random translation by up to this many pixels each way, edges filled with zeros.
      flip: random left-right mirroring.
      placement: "device" keeps the split on the accelerator, "stream" reads batches in background
        threads, "auto" picks the device below 512 MiB. The batches are the same.
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
      read: `read(indices [N]) -> (items [N, ...], int32 [N])`, items of the spec's shape and dtype
        and labels; labels are 0 where the data has none. Safe to call from several threads.
      key: what a batch calls the items, as in `ImageSpec.key`.
    """

    num: int
    read: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
    key: str = IMAGE


class Dataset(NamedTuple):
    """A data set behind the one door.

    Attributes:
      name: as given in the config.
      spec: the images as a model sees them, so 2 levels under any binarisation.
      splits: by name, "train", "validation" and "test".
      binarisation: as in `DataConfig`; "static" and "threshold" are already done in what `read`
        gives, "dynamic" is done by the transforms in `data/transforms.py`.
      raw_levels: grey levels of what `read` gives.
    """

    name: str
    spec: ImageSpec
    splits: Mapping[str, Split]
    binarisation: str
    raw_levels: int
