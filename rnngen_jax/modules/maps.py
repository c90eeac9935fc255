"""Layers over feature maps: a convolution that keeps their size, batch norm, self-attention."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from rnngen_jax.modules.dense import Dense
from rnngen_jax.modules.pixels import Table
from rnngen_jax.ops import batch
from rnngen_jax.ops.precision import einsum, matmul
from rnngen_jax.ops.products import product


class Same(nn.Module):
    """A convolution of stride 1 with zero padding, as one product with patches.

    Attributes:
      features: F.
      kernel: the kernel's side, odd.
    """

    features: int
    kernel: int = 3

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """`[B, H, W, D]` to `[B, H, W, F]`."""
        _, height, width, features = x.shape
        side, reach = self.kernel, self.kernel // 2
        around = jnp.pad(x, ((0, 0), (reach, reach), (reach, reach), (0, 0)))
        taps = [around[:, i : i + height, j : j + width] for i in range(side) for j in range(side)]
        shape = (side * side * features, self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        patches = jnp.concatenate(taps, axis=-1)
        return product(patches, kernel) + self.param("bias", nn.initializers.zeros, shape[1:])


class BatchNorm(nn.Module):
    """Batch normalisation over all positions of all images (Ioffe and Szegedy 2015, algorithm 1).

    In training it normalises by the moments of the whole batch, over all devices, and updates the
    running moments, in the collection "batch_stats"; otherwise it uses the running moments.

    Attributes:
      classes: if > 0, scale and offset depend on an image's class (de Vries et al. 2017; Dumoulin
        et al. 2017).
      momentum: fraction of the running moments kept per step.
      epsilon: added to the variance.
    """

    classes: int = 0
    momentum: float = 0.9
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: Array, label: Array | None, train: bool) -> Array:
        """`[B, ..., F]`, and int `[B]` if there are classes, to `[B, ..., F]`."""
        shape = x.shape[-1:]
        mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
        variance = self.variable("batch_stats", "variance", jnp.ones, shape)
        if not train:
            used = mean.value, variance.value
        else:
            near = jax.lax.stop_gradient(mean.value)
            used = batch.moments(x, tuple(range(x.ndim - 1)), near)
            if self.is_mutable_collection("batch_stats") and not self.is_initializing():
                for running, now in zip((mean, variance), used, strict=True):
                    running.value += (1 - self.momentum) * (now - running.value)
        scale = self.param("scale", nn.initializers.ones, shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        if self.classes:
            middle = (x.shape[0], *(1,) * (x.ndim - 2), *shape)
            scale = scale + Table(self.classes, *shape, name="class_scale")(label).reshape(middle)
            bias = bias + Table(self.classes, *shape, name="class_bias")(label).reshape(middle)
        return (x - used[0]) * (jax.lax.rsqrt(used[1] + self.epsilon) * scale) + bias


class SelfAttention(nn.Module):
    """Attention of each position of a map to all positions (Zhang et al. 2019, eqs. 1-3).

    The result is added to the map with a learned weight γ, 0 at first.
    """

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """`[B, H, W, F]` to `[B, H, W, F]`."""
        size, features = x.shape[0], x.shape[-1]
        inner = max(features // 8, 1)
        flat = x.reshape(size, -1, features)
        query, key = (Dense(inner, use_bias=False, name=name)(flat) for name in ("query", "key"))
        value = Dense(max(features // 2, 1), use_bias=False, name="value")(flat)
        weights = jax.nn.softmax(einsum("bid,bjd->bij", query, key))
        told = Dense(features, use_bias=False, name="out")(matmul(weights, value))
        gamma = self.param("gamma", nn.initializers.zeros, ())
        return x + gamma * told.reshape(x.shape)


def normalised(x: Array, label: Array | None, train: bool, norm: str, classes: int = 0) -> Array:
    """Normalises `[B, ..., F]`; to be called within a compact module.

    Args:
      x, label, train: as in `BatchNorm`.
      norm: "none", "batch", or "conditional_batch" by class.
      classes: number of classes, for "conditional_batch".
    """
    if norm == "none":
        return x
    return BatchNorm(classes if norm == "conditional_batch" else 0)(x, label, train)


def activated(
    x: Array, label: Array | None, train: bool, norm: str, slope: float, classes: int = 0
) -> Array:
    """Normalises `[B, ..., F]` and applies LeakyReLU; to be called within a compact module.

    Args:
      x, label, train, norm, classes: as in `normalised`.
      slope: slope of LeakyReLU below 0.
    """
    return jax.nn.leaky_relu(normalised(x, label, train, norm, classes), slope)
