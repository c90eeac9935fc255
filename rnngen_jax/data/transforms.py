"""Batch transforms inside the jitted step: augmentation, then dynamic binarisation.

All noise comes from the key and the examples' indices, so it does not depend on how a batch is
sharded. An example that occurs twice in a batch gets the same noise twice.
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from jax import Array

from rnngen_jax import keys
from rnngen_jax.config import require
from rnngen_jax.data.base import DataConfig, Dataset

Batch = Mapping[str, Array]  # items [B, ...] as "image" or "frames", "label" and "index" int32 [B]
Transform = Callable[[Batch, Array], Batch]


def training_transform(config: DataConfig, dataset: Dataset) -> Transform:
    """The training transform: shift, flip, and dynamic binarisation, in this order.

    Static and threshold binarisation happen when images are read, so augmentation moves binary
    images. Dynamic binarisation samples from the images after augmentation.

    Args:
      config: `shift` and `flip`.
      dataset: the data set of the batches.

    Returns:
      `f(batch, key) -> batch`, pure; only the items change.

    Raises:
      UserError: a shift as large as the image's shorter side.
    """
    smallest = min(dataset.spec.height, dataset.spec.width)
    require(
        config.shift < smallest,
        "config.data.shift",
        config.shift,
        f"in [0, {smallest - 1}], as {dataset.name} is {smallest} pixels wide or high",
    )
    evaluate, name = evaluation_transform(dataset), dataset.spec.key

    def transform(batch: Batch, key: Array) -> Batch:
        image = batch[name]
        if config.shift:
            image = shifted(image, _keys(batch, key, "shift"), config.shift)
        if config.flip:
            image = flipped(image, _keys(batch, key, "flip"))
        return evaluate({**batch, name: image}, key)

    return transform


def evaluation_transform(dataset: Dataset) -> Transform:
    """The evaluation transform: dynamic binarisation, if the data set has it.

    Returns:
      `f(batch, key) -> batch`, pure; only the items change.
    """
    name = dataset.spec.key

    def transform(batch: Batch, key: Array) -> Batch:
        if dataset.binarisation != "dynamic":
            return batch
        each = _keys(batch, key, "binarise")
        return {**batch, name: drawn(batch[name], each, dataset.raw_levels)}

    return transform


def shifted(images: Array, each: Array, most: int) -> Array:
    """Translates each image by up to `most` pixels along each axis, padded with zeros.

    Args:
      images: `[B, ..., H, W, C]`; the frames of one example move together.
      each: one key per example, `[B]`.
      most: the largest shift; all shifts in [-`most`, `most`] are equally likely.

    Returns:
      Images of the same shape and dtype.
    """

    def one(image: Array, key: Array) -> Array:
        border = [(0, 0)] * (image.ndim - 3) + [(most, most), (most, most), (0, 0)]
        start = jax.random.randint(key, (2,), 0, 2 * most + 1)
        rows = jax.lax.dynamic_slice_in_dim(jnp.pad(image, border), start[0], image.shape[-3], -3)
        return jax.lax.dynamic_slice_in_dim(rows, start[1], image.shape[-2], -2)

    return jax.vmap(one)(images, each)


def flipped(images: Array, each: Array) -> Array:
    """Mirrors each image left-right with probability one half.

    Args:
      images: `[B, ..., H, W, C]`; the frames of one example are mirrored together.
      each: one key per example, `[B]`.
    """
    heads = jax.vmap(jax.random.bernoulli)(each)
    heads = heads.reshape(heads.shape + (1,) * (images.ndim - 1))
    return jnp.where(heads, jnp.flip(images, -2), images)


def drawn(images: Array, each: Array, levels: int) -> Array:
    """Binary images, each pixel 1 with probability `level / (levels - 1)`.

    Args:
      images: uint8 `[B, ...]`, grey levels in `[0, levels)`.
      each: one key per example, `[B]`.
      levels: grey levels of `images`.

    Returns:
      uint8 of the same shape, 0 or 1.
    """
    brightness = images.astype(jnp.float32) / (levels - 1)
    return jax.vmap(jax.random.bernoulli)(each, brightness).astype(jnp.uint8)


def _keys(batch: Batch, key: Array, purpose: str) -> Array:
    return keys.per_example(keys.named(key, purpose), batch["index"])
