"""The data set contract: named splits of integer images, read by index."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from rnngen_jax.config import refuse_unread, require, require_at_least, require_choice
from rnngen_jax.errors import UserError
from rnngen_jax.shapes import IMAGE, ImageSpec

SPLITS = ("train", "validation", "test")
BINARISATIONS = ("none", "static", "dynamic", "threshold")
PLACEMENTS = ("auto", "device", "stream")
BOUNCES = ("deterministic", "stochastic")

MOVING = "moving"  # the source that makes its sequences
_OF_MOVING = ("objects", "canvas", "speed", "bounces", "colour")  # fields that it alone reads


@dataclass(frozen=True)
class DataConfig:
    """The images, and how they are processed before a model sees them.

    Attributes:
      name: "digits", "idx:FOLDER", "folder:FOLDER", "npz:FILE", "tfds:NAME" or "codes:RUN", the
        codes that the run of a tokenizer gives its images; sequences of frames are
        "moving:SOURCE", images of a source that move about, and "frames:FOLDER".
      binarisation: "none"; "static" samples each pixel once and for all with its brightness as the
        probability; "dynamic" resamples it at every step; "threshold" cuts at half brightness.
      validation_fraction: the fraction held out from the end of train if the source has no
        validation split.
      shift: random translation by up to this many pixels each way, padded with zeros.
      flip: random left-right mirroring.
      placement: "device" keeps the split on the accelerator, "stream" reads batches in background
        threads, "auto" chooses the device below 512 MiB. The batches are the same. Sequences of
        `moving` are always streamed.
      context: of sequences, the number of frames that a prediction is given; `moving` makes
        sequences of `context + horizon` frames.
      horizon: of sequences, the number of frames to predict.
      objects: of `moving`, the number of images that move in each sequence.
      canvas: of `moving`, the frames' height and width in pixels; 0 for 64 if the images are 28
        pixels high or wide, and otherwise twice their longer side, so 16 for the digits.
      speed: of `moving`, the way of an image per frame, in units of the way that it has from wall
        to wall.
      bounces: of `moving`, "deterministic" reflects an image off a wall, "stochastic" sends it off
        in a random direction.
      colour: of `moving`, gives each grey image a colour of its own.
    """

    name: str = "digits"
    binarisation: str = "none"
    validation_fraction: float = 0.1
    shift: int = 0
    flip: bool = False
    placement: str = "auto"
    context: int = 10
    horizon: int = 10
    objects: int = 2
    canvas: int = 0
    speed: float = 0.1
    bounces: str = "deterministic"
    colour: bool = False

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
        if self.name.partition(":")[0] != MOVING:
            for field in _OF_MOVING:
                refuse_unread(self, "config.data", field, ["name"])
        require_at_least(self, "config.data", 1, "context", "horizon", "objects")
        require_at_least(self, "config.data", 0, "canvas")
        require(0 <= self.speed <= 1, "config.data.speed", self.speed, "in [0, 1]")
        require_choice("config.data.bounces", self.bounces, BOUNCES)

    def lengths(self, frames: int) -> tuple[int, int]:
        """`context` and `horizon`, for sequences of so many frames.

        Raises:
          UserError: still images, or sequences that are too short.
        """
        if not frames:
            raise UserError(
                f"config.data.name={self.name!r} has still images, but sequences are needed, such "
                "as moving:digits or frames:FOLDER."
            )
        require(
            self.context < frames,
            "config.data.context",
            self.context,
            f"< {frames}, the number of frames of a sequence of {self.name}",
        )
        require(
            self.context + self.horizon <= frames,
            "config.data.horizon",
            self.horizon,
            f"≤ {frames - self.context}, as {self.context} of the {frames} frames of a sequence "
            f"of {self.name} are given (config.data.context)",
        )
        return self.context, self.horizon


class Split(NamedTuple):
    """One split, read by index.

    Attributes:
      num: number of items.
      read: `read(indices [N]) -> (items [N, ...], int32 [N])`, items in the spec's shape and
        dtype, and labels, 0 if the data has none. Thread-safe.
      key: the items' key in a batch, as in `ImageSpec.key`.
      made: whether items are made as they are read, so many that no one reads them all: they are
        streamed.
    """

    num: int
    read: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
    key: str = IMAGE
    made: bool = False


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
