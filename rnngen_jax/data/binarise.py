"""Fixed binarisation: static draws and thresholds, in NumPy.

Static: pixel j of image i of a split is 1 if `u < level / (levels - 1)`, with u the j-th number of
a Philox generator with the key `(STATIC_SEED, split)`, split 0, 1, 2 for train, validation, test,
and the counter `(0, 0, 0, i)`. A Philox generator's raw words are part of its definition, so the
drawn images are the same on every machine, for every read order and under every NumPy version.

Split and i are the image's position in the source, before missing splits are held out from train:
an image has one draw, whatever `validation_fraction` is. Draw 1 used the position after that. Draw
2 differs from it only in the images held out from train, so not in the test images of a source that
has a test split, such as MNIST.
"""

import numpy as np

from rnngen_jax.data.base import SPLITS, Split

STATIC_SEED = 2008  # for the first such data set, static MNIST of 2008; must never change
DRAW = 2  # version of the static draw; part of a likelihood's protocol


def threshold(images: np.ndarray, levels: int) -> np.ndarray:
    """1 where a pixel is above half brightness, `level > (levels - 1) / 2`; uint8, any shape."""
    return (2 * images.astype(np.int32) > levels - 1).astype(np.uint8)


def static(images: np.ndarray, indices: np.ndarray, split: str, levels: int) -> np.ndarray:
    """Samples each pixel with its brightness as the probability, the same at every call.

    Args:
      images: uint8 `[N, H, W, C]`.
      indices: the images' positions in the source's split, `[N]`, which seed the draw.
      split: the source's split: "train", "validation" or "test".
      levels: grey levels of `images`.

    Returns:
      uint8 of the same shape, 0 or 1.
    """
    key = np.array([STATIC_SEED, SPLITS.index(split)], np.uint64)
    drawn = np.empty(images.shape, np.uint8)
    for out, image, index in zip(drawn, images, np.asarray(indices), strict=True):
        counter = np.array([0, 0, 0, index], np.uint64)
        words = np.random.Philox(key=key, counter=counter).random_raw(image.size)
        # The upper 53 bits as a float64 in [0, 1): level 0 is never drawn, the brightest always.
        uniform = (words >> np.uint64(11)).reshape(image.shape) * 2.0**-53
        out[...] = uniform * (levels - 1) < image
    return drawn


def binarised(name: str, split: Split, binarisation: str, levels: int) -> Split:
    """A split whose `read` binarises; unchanged for "none" and "dynamic".

    Args:
      name: the split's name, which seeds the static draw.
      split: the source's own split, before any is held out.
      binarisation: as in `DataConfig`.
      levels: grey levels of the images that `split.read` returns.
    """

    def read(indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        images, labels = split.read(indices)
        if binarisation == "static":
            return static(images, indices, name, levels), labels
        return threshold(images, levels), labels

    return split._replace(read=read) if binarisation in ("static", "threshold") else split
