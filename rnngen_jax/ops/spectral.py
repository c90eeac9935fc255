"""The largest singular value of a kernel, by power iteration, for spectral normalisation."""

from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import Array

from rnngen_jax import keys

SMALLEST = 1e-12


def spectral_norm(kernel: Array, u: Array, steps: int = 1) -> tuple[Array, Array]:
    """Power-iteration estimate of the largest singular value σ of a kernel.

    Miyato et al. 2018, algorithm 1, with W transposed, as Flax kernels have their outputs last:
    `v ← W u / ||W u||`, `u ← Wᵀ v / ||Wᵀ v||`, `σ = vᵀ W u`. Both vectors are treated as constants,
    so the gradient of σ is `v uᵀ` (their eq. 10).

    Args:
      kernel: W, `[..., F]`, reshaped to a matrix `[P, F]`, where P are all axes but the last.
      u: start of the iteration, `[F]`, not zero: at first any random vector, then that of the
        previous step.
      steps: number of iterations, ≥ 1; static.

    Returns:
      σ, a scalar ≥ 1e-12 so that it can be divided by, and the new u of length 1, `[F]`. For a
      kernel of zeros u is unchanged: from zero it could never grow again.
    """
    kernel = kernel.reshape(-1, kernel.shape[-1])
    matrix, u = jax.lax.stop_gradient((kernel, u))
    v = jnp.zeros(len(matrix), matrix.dtype)
    for _ in range(steps):
        v = _unit(_product(matrix, u), v)
        u = _unit(_product(v, matrix), u)
    sigma = _product(v, _product(kernel, u))
    return jnp.maximum(sigma, SMALLEST), u


def first_vectors(params: Any, key: Array) -> dict[str, Array]:
    """Initial vectors of each kernel's power iteration: random `[F]`, by the kernel's path.

    Args:
      params: a nested dict of arrays.
      key: a random key, folded with each kernel's path.
    """
    return {
        "/".join(path): jax.random.normal(keys.named(key, "/".join(path)), leaf.shape[-1:])
        for path, leaf in flatten_dict(params).items()
        if _is_kernel(path, leaf)
    }


def divided(params: Any, vectors: dict[str, Array]) -> tuple[Any, dict[str, Array]]:
    """Divides kernels by their largest singular values (Miyato et al. 2018, eq. 8).

    Args:
      params: as for `first_vectors`.
      vectors: from `first_vectors`, or from the previous step.

    Returns:
      The parameters, and the vectors after one more iteration.
    """
    flat, after = dict(flatten_dict(params)), {}
    for path, leaf in flat.items():
        if _is_kernel(path, leaf):
            sigma, after["/".join(path)] = spectral_norm(leaf, vectors["/".join(path)])
            flat[path] = leaf / sigma
    return unflatten_dict(flat), after


def _is_kernel(path: tuple[str, ...], leaf: Array) -> bool:
    """Whether an array is a linear map's kernel rather than an embedding table."""
    return leaf.ndim >= 2 and path[-1] != "table"


def _product(a: Array, b: Array) -> Array:
    """In full precision: cheap next to the layer's own product, and TF32 would affect σ."""
    return jnp.dot(a, b, precision=jax.lax.Precision.HIGHEST)


def _unit(x: Array, otherwise: Array) -> Array:
    """`x` scaled to length 1, or `otherwise` if x is zero."""
    length = jnp.sqrt(jnp.square(x).sum())
    return jnp.where(length > SMALLEST, x / jnp.maximum(length, SMALLEST), otherwise)
