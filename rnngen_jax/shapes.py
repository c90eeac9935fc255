"""The legend of axis letters, and what a data set's images look like.

Axis letters, as in `[T, B, D]`, mean the same in every docstring:

    T  time steps               B  batch              N  number of images
    D  features of an input     F  features of a cell's state or output
    H  image height             W  image width        C  image channels
    L  levels of a pixel        K  mixture components, or steps in one call
"""

from typing import NamedTuple


class ImageSpec(NamedTuple):
    """What one image of a data set is: everything that a model needs to be built.

    Pixels are unsigned integers in `[0, levels)`, so 2 levels are a binary image, 17 the embedded
    digits and 256 an ordinary photograph. `classes` is 0 for unlabelled data; `frames` is 0 for
    still images and the number of frames for image sequences.
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
    def dims(self) -> int:
        """Number of values in one image: what nats are divided by for bits per dimension."""
        return max(self.frames, 1) * self.height * self.width * self.channels
