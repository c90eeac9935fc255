"""The legend of axis letters, and the spec of a data set's items.

Axis letters, as in `[T, B, D]`, mean the same in every docstring:

    T  time steps               B  batch              N  number of images
    D  features of an input     F  features of a cell's state or output
    H  image height             W  image width        C  image channels
    L  levels of a pixel        K  mixture components, or steps in one call
"""

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:  # importing it would slow down --help
    import numpy as np

IMAGE, FRAMES = "image", "frames"  # keys of items in a batch and in an npz


class ImageSpec(NamedTuple):
    """The spec of one item of a data set: everything needed to build a model for it.

    An item is an array of integers in `[0, levels)`: a still image `(H, W, C)`, with 2 levels if
    binary, 17 for the embedded digits and 256 for an ordinary photograph; a sequence of frames
    `(T, H, W, C)`; or a grid of codes `(H, W, D)` with one level per codebook entry. `classes` is 0
    for unlabelled data; `frames` is 0 for still images and codes, and T for sequences. No other
    code should assume a number of axes, levels or bytes.
    """

    height: int
    width: int
    channels: int = 1
    levels: int = 256
    classes: int = 0
    frames: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one item: `(H, W, C)`, or `(T, H, W, C)` for frames."""
        still = (self.height, self.width, self.channels)
        return (self.frames, *still) if self.frames else still

    @property
    def key(self) -> str:
        """Key of such items in a batch and in an npz: "image", also for codes, or "frames"."""
        return FRAMES if self.frames else IMAGE

    @property
    def dtype(self) -> "np.dtype":
        """Dtype of an item: uint8 up to 256 levels, int32 above."""
        return dtype_of(self.levels)

    @property
    def dims(self) -> int:
        """Number of values in one item, the dimensions of "bits per dimension"."""
        return max(self.frames, 1) * self.height * self.width * self.channels


def dtype_of(levels: int) -> "np.dtype":
    """The dtype of items with this number of levels."""
    import numpy as np

    return np.dtype(np.uint8 if levels <= 256 else np.int32)


def spec_of(shape: tuple[int, ...], levels: int, classes: int) -> ImageSpec:
    """The spec of items `(H, W, C)` or `(T, H, W, C)`."""
    *frames, height, width, channels = shape
    return ImageSpec(height, width, channels, levels, classes, *frames)
