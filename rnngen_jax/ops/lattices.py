"""Codes on fixed grids: finite scalar quantisation, signs, and their entropies.

Nothing of them is learned but what is around them, so they have no codebook that could collapse.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from rnngen_jax.ops import batch
from rnngen_jax.ops.codebooks import exactly

SHRUNK = 1e-3  # so that the outermost level is reached by a finite input


def fsq(z: Array, levels: Sequence[int]) -> Array:
    """Finite scalar quantisation (Mentzer et al. 2023, section 3.1 and appendix A.1).

    Each value is bounded by a tanh and rounded to one of its levels; the gradient is that of the
    bounded value. With h = (L - 1)(1 - 10⁻³)/2, o = ½ for even L and 0 for odd, s = atanh(o / h):
    b = h tanh(z + s) - o, q = round(b) / ⌊L/2⌋.

    Args:
      z: `[..., D]`.
      levels: L of each of the D values, ≥ 3: with 2, o would be above h.

    Returns:
      `[..., D]`, within [-1, 1].
    """
    bounded = fsq_bounded(z, levels)
    return exactly(jnp.round(bounded), bounded) / _widths(levels)


def fsq_bounded(z: Array, levels: Sequence[int]) -> Array:
    """The values b that `fsq` rounds, `[..., D]`; L of them are -⌊L/2⌋, ..., L - 1 - ⌊L/2⌋."""
    counts = np.asarray(levels)
    half = (counts - 1) * (1 - SHRUNK) / 2
    offset = np.where(counts % 2, 0.0, 0.5)
    shift = np.arctanh(offset / half)
    half, offset, shift = (x.astype(np.float32) for x in (half, offset, shift))
    return jnp.tanh(z + shift) * half - offset


def fsq_indices(q: Array, levels: Sequence[int]) -> Array:
    """The index of grid values, int32 `[...]`: the levels are digits, the first counting ones."""
    # Rounded before it becomes an integer: a quotient may be just below one.
    digits = jnp.round(q * _widths(levels)).astype(jnp.int32) + np.asarray(levels, np.int32) // 2
    return (digits * bases(levels)).sum(-1)


def fsq_values(indices: Array, levels: Sequence[int]) -> Array:
    """The grid values of indices, `[..., D]`: the inverse of `fsq_indices`."""
    return grid_values(digits_of(indices, levels), levels)


def grid_values(digits: Array, levels: Sequence[int]) -> Array:
    """The grid values of digits `[..., D]`."""
    return (digits - np.asarray(levels, np.int32) // 2).astype(jnp.float32) / _widths(levels)


def digits_of(indices: Array, levels: Sequence[int]) -> Array:
    """The digits of indices, int32 `[..., D]`, in [0, L_d); the first counts ones."""
    return indices[..., None] // bases(levels) % np.asarray(levels, np.int32)


def bases(levels: Sequence[int]) -> np.ndarray:
    """What each digit counts, int32 `[D]`: 1, L_0, L_0 L_1, ..."""
    return np.cumprod([1, *levels[:-1]]).astype(np.int32)


def _widths(levels: Sequence[int]) -> np.ndarray:
    """⌊L/2⌋ of each value, by which the grid is brought to [-1, 1]."""
    return (np.asarray(levels) // 2).astype(np.float32)


def signs(z: Array) -> Array:
    """1 where z > 0 and -1 elsewhere: never 0, which would be no code."""
    return jnp.where(z > 0, 1.0, -1.0)


def sign_indices(q: Array) -> Array:
    """The index of signs `[..., D]`, int32 `[...]`; the first bit counts ones."""
    return ((q > 0) * bases((2,) * q.shape[-1])).sum(-1).astype(jnp.int32)


def sign_values(indices: Array, bits: int) -> Array:
    """The signs of indices, `[..., D]`: the inverse of `sign_indices`."""
    return signs(indices[..., None] // bases((2,) * bits) % 2 - 0.5)


def sign_entropies(
    z: Array, size: float, sharpness: float, group: int, weight: Array | None = None
) -> tuple[Array, Array]:
    """Entropies of a soft choice of signs, in nats: of a vector's on average, and of the average.

    The choice is p(c|z) = softmax(2 τ⁻¹ z·c) over all c in {-s, s}^D (Yu et al. 2023, eq. 5). It
    factorises into bits with p(+) = σ(4 τ⁻¹ s z_d), and so does its entropy. Their average does
    not; as in BSQ (Zhao et al. 2024, section 3.3) it is taken to do so between groups of bits.

    Args:
      z: `[..., D]`, of a device's shard.
      size: s.
      sharpness: τ⁻¹.
      group: bits in a group, which divides D; the average of 2^group probabilities is kept.
      weight: `[...]`, 0 for vectors that do not count; `None` if all do.

    Returns:
      E[H(p)] over the shard, and H(E[p]) over the whole batch.
    """
    bits = z.shape[-1]
    logits = 4 * sharpness * size * z.reshape(-1, bits // group, group)
    flat = jnp.ones(logits.shape[0]) if weight is None else weight.reshape(-1)
    p_one, p_zero = jax.nn.sigmoid(logits), jax.nn.sigmoid(-logits)
    each = -p_one * jax.nn.log_sigmoid(logits) - p_zero * jax.nn.log_sigmoid(-logits)
    joint = jnp.ones((*logits.shape[:2], 1))
    for bit in range(group):
        pair = jnp.stack([p_zero[..., bit], p_one[..., bit]], axis=-1)
        joint = (pair[..., :, None] * joint[..., None, :]).reshape(*logits.shape[:2], -1)
    if weight is None:
        average = batch.mean_over_batch(joint)
        whole = flat.shape[0]
    else:
        average, whole = batch.mean_over_devices(((joint * flat[:, None, None]).sum(0), flat.sum()))
        average, whole = (average / jnp.maximum(whole, 1), jnp.maximum(whole, 1))
    of_average = -(average * jnp.log(jnp.maximum(average, 1e-20))).sum()
    return (each.sum((1, 2)) * flat).sum() / whole, of_average


def bits_of(codes: int) -> int:
    """log₂ of a power of two."""
    return round(math.log2(codes))
