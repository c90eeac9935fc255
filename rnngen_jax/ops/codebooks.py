"""Codebooks: nearest codes, gradients past the choice of a code, moving averages and k-means.

    c = argmin_k ‖z - e_k‖²,  q = e_c     (van den Oord et al. 2017, eq. 1)

Products are in float32 at the highest precision: the default of an accelerator, bfloat16 or TF32,
changes which code is nearest. K is the number of codes here.
"""

import jax
import jax.numpy as jnp
from jax import Array

from rnngen_jax.ops import batch

EXACT = jax.lax.Precision.HIGHEST
EPSILON = 1e-5  # smooths the counts of a moving average
TINY = 1e-12  # keeps norms from zero


def product(x: Array, kernel: Array) -> Array:
    """`x W` in float32 at the highest precision, `[..., D] [D, F] -> [..., F]`."""
    return jnp.matmul(x.astype(jnp.float32), kernel.astype(jnp.float32), precision=EXACT)


def unit(x: Array) -> Array:
    """`x / ‖x‖` along the last axis; its gradient at 0 is finite."""
    return x * jax.lax.rsqrt(jnp.square(x).sum(-1, keepdims=True) + TINY)


def nearest(z: Array, codes: Array) -> Array:
    """The index of the nearest code, the first of several: `[..., D]`, `[K, D]` to int32 `[...]`.

    ‖z‖² is the same for all codes, so the largest z·e - ½‖e‖² belongs to the nearest.
    """
    return jnp.argmax(closeness(z, codes), axis=-1).astype(jnp.int32)


def closeness(z: Array, codes: Array) -> Array:
    """z·e - ½‖e‖² for all codes, `[..., K]`: half of what ‖z‖² is above the squared distance."""
    return product(z, codes.T) - 0.5 * jnp.square(codes).sum(-1)


def look_up(codes: Array, indices: Array) -> Array:
    """The codes of indices `[...]`, `[..., D]`; an index of -1 stands for nothing, and gives 0."""
    return jnp.where(indices[..., None] < 0, 0.0, codes[jnp.maximum(indices, 0)])


def exactly(value: Array, surrogate: Array) -> Array:
    """`value` to the bit, with the gradient of `surrogate`.

    The usual z + sg(q - z) is q only up to rounding, so that a decoder is trained on other values
    than those that it gets from a code's index.
    """
    return jax.lax.stop_gradient(value) + (surrogate - jax.lax.stop_gradient(surrogate))


def straight_through(z: Array, q: Array) -> Array:
    """q, with the gradient with respect to z being the identity (van den Oord et al. 2017)."""
    return exactly(q, z)


def rotated(z: Array, q: Array) -> Array:
    """q, with the gradient of the rotation and scaling that takes z to it (Fifty et al. 2024).

    With unit vectors ẑ, q̂ and w = (ẑ + q̂) / ‖ẑ + q̂‖, all constant,

        out = ‖q‖/‖z‖ [z - 2 w (wᵀz) + 2 q̂ (ẑᵀz)]     (eq. 4)

    The rotation is not defined at ẑ = -q̂, where this is the reflection of z and stays finite.
    """
    fixed, q = jax.lax.stop_gradient((z, q))
    z_unit, q_unit = unit(fixed), unit(q)
    w = unit(z_unit + q_unit)

    def along(direction: Array) -> Array:
        return (direction * z).sum(-1, keepdims=True)

    scale = jnp.sqrt(jnp.square(q).sum(-1, keepdims=True) + TINY)
    scale = scale * jax.lax.rsqrt(jnp.square(fixed).sum(-1, keepdims=True) + TINY)
    return exactly(q, scale * (z - 2 * w * along(w) + 2 * q_unit * along(z_unit)))


ESTIMATORS = {"straight_through": straight_through, "rotation": rotated}


def tally(z: Array, indices: Array, weight: Array, num: int) -> tuple[Array, Array]:
    """How often each code is chosen, and the sum of the vectors that chose it; of one shard.

    As a product with one-hot rows, which is deterministic on every device.

    Args:
      z: `[N, D]`.
      indices: int `[N]`.
      weight: `[N]`, 0 for vectors that do not count.
      num: number of codes K.

    Returns:
      `[K]` and `[K, D]`.
    """
    chosen = jax.nn.one_hot(indices, num) * weight[:, None]
    return chosen.sum(0), product(chosen.T, z)


def moved(average: Array, value: Array, decay: float) -> Array:
    """One step of an exponential moving average."""
    return decay * average + (1 - decay) * value


def centroids(count: Array, total: Array) -> Array:
    """The codes of moving averages: e = m / Ñ (van den Oord et al. 2017, appendix A.1).

    Ñ = (N + ε) / (ΣN + K ε) ΣN keeps codes of few vectors from growing.

    Args:
      count: N, `[K]`.
      total: m, `[K, D]`.
    """
    whole = count.sum()
    smoothed = (count + EPSILON) / (whole + count.shape[0] * EPSILON) * whole
    return total / smoothed[:, None]


def drawn_places(key: Array, num: int, shard: int) -> Array:
    """Places in the whole batch, int `[num]`: distinct ones if there are as many.

    Args:
      key: the same on every device.
      num: how many.
      shard: rows of one device, N.
    """
    rows = batch.parts() * shard
    order = jax.random.permutation(key, rows)
    return order[jnp.arange(num) % rows]


def k_means(
    z: Array, weight: Array, key: Array, num: int, iterations: int = 10
) -> tuple[Array, Array]:
    """Lloyd's algorithm from vectors of the batch; one all-reduce for each iteration.

    A cluster without vectors stays where it is.

    Args:
      z: `[N, D]`, the device's shard of the batch.
      weight: `[N]`, 0 for vectors that do not count.
      key: the same on every device.
      num: number of clusters K.
      iterations: Lloyd iterations.

    Returns:
      Centroids `[K, D]` and how many vectors each has, `[K]`, the same on every device.
    """
    counted = jnp.concatenate([z * weight[:, None], weight[:, None]], axis=-1)
    whole = counted.sum(0)
    rows, whole = batch.sum_over_devices(
        (batch.own_rows(counted, drawn_places(key, num, z.shape[0])), whole)
    )
    mean = whole[:-1] / jnp.maximum(whole[-1], 1)
    start = jnp.where(rows[:, -1:] > 0, rows[:, :-1], mean)

    def iterate(_: int, found: tuple[Array, Array]) -> tuple[Array, Array]:
        centres, _ = found
        count, total = batch.sum_over_devices(tally(z, nearest(z, centres), weight, num))
        some = count[:, None] > 0
        return jnp.where(some, total / jnp.maximum(count, 1)[:, None], centres), count

    return jax.lax.fori_loop(0, iterations, iterate, (start, jnp.zeros(num)))


def coherence(codes: Array) -> Array:
    """The mean squared cosine between different codes, Σ cos² / K² - 1/K; 0 if orthogonal.

    The orthogonal regulariser of Shin et al. (2021).
    """
    directions = unit(codes)
    cosines = product(directions, directions.T)
    num = codes.shape[0]
    return jnp.square(cosines).sum() / num**2 - 1 / num
