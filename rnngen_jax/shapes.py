"""The legend of axis letters, and what an item of a data set looks like.

Axis letters, as in `[T, B, D]`, mean the same in every docstring:

    T  time steps               B  batch              N  number of images
    D  features of an input     F  features of a cell's state or output
    H  image height             W  image width        C  image channels
    L  levels of a pixel        K  mixture components, or steps in one call
"""

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:  # --help does not wait for it
    import numpy as np

IMAGE, FRAMES = "image", "frames"  # what a batch and an npz call items, by what they are


class ImageSpec(NamedTuple):
    """What one item of a data set is: everything that a model needs to be built.

    An item is an array of integers in `[0, levels)`: a still image `(H, W, C)`, whose 2 levels are
    a binary image, 17 the embedded digits and 256 an ordinary photograph; a sequence of frames
    `(T, H, W, C)`; or a grid of codes `(H, W, D)` of as many levels as its codebook has entries.
    `classes` is 0 for unlabelled data; `frames` is 0 for still images and codes, and T for
    sequences. Nothing else should assume how many axes, levels or bytes there are.
    """

    height: int
    width: int
    channels: int = 1
    levels: int = 256
    classes: int = 0
    frames: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one image, `(H, W, C)`, with frames `(T, H, W, C)`."""
        still = (self.height, self.width, self.channels)
        return (self.frames, *still) if self.frames else still

    @property
    def key(self) -> str:
        """What a batch and an npz call such items: "image", codes too, or "frames"."""
        return FRAMES if self.frames else IMAGE

    @property
    def dtype(self) -> "np.dtype":
        """Of an item: uint8 up to 256 levels, int32 above."""
        return dtype_of(self.levels)

    @property
    def dims(self) -> int:
        """Number of values in one item: what nats are divided by for bits per dimension."""
        return max(self.frames, 1) * self.height * self.width * self.channels


def dtype_of(levels: int) -> "np.dtype":
    """The dtype of items of so many levels."""
    import numpy as np

    return np.dtype(np.uint8 if levels <= 256 else np.int32)


def spec_of(shape: tuple[int, ...], levels: int, classes: int) -> ImageSpec:
    """The spec of items `(H, W, C)` or `(T, H, W, C)`."""
    *frames, height, width, channels = shape
    return ImageSpec(height, width, channels, levels, classes, *frames)
