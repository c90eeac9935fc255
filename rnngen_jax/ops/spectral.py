"""The largest singular value of a kernel, by power iteration, for spectral normalisation."""

from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import Array

from rnngen_jax import keys

SMALLEST = 1e-12


def spectral_norm(kernel: Array, u: Array, steps: int = 1) -> tuple[Array, Array]:
    """The largest singular value σ of a kernel, as far as power iteration has come.

    Miyato et al. 2018, algorithm 1, with their W the transpose of the matrix here, since Flax's
    kernels have their outputs last: `v ← W u / ||W u||`, `u ← Wᵀ v / ||Wᵀ v||`, `σ = vᵀ W u`. Both
    vectors count as constants, so that the gradient of σ is `v uᵀ` (their eq. 10).

    Args:
      kernel: W, `[..., F]`, taken as a matrix `[P, F]` whose P are all axes but the last.
      u: where the iteration starts, `[F]`, not zero: at first any random vector, then the last
        step's.
      steps: how many iterations, 1 or more; static.

    Returns:
      σ, a scalar, no smaller than 1e-12 so that one may divide by it, and the new u of length 1
      `[F]`. At a kernel of zeros u stays as it was: a zero would never grow again.
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
    """Where the power iteration of each kernel starts: random vectors `[F]`, by its path.

    Args:
      params: a nested dict of arrays.
      key: each kernel draws from one of its own.
    """
    return {
        "/".join(path): jax.random.normal(keys.named(key, "/".join(path)), leaf.shape[-1:])
        for path, leaf in flatten_dict(params).items()
        if _is_kernel(path, leaf)
    }


def divided(params: Any, vectors: dict[str, Array]) -> tuple[Any, dict[str, Array]]:
    """Kernels over their largest singular values (Miyato et al. 2018, eq. 8).

    Args:
      params: as for `first_vectors`.
      vectors: from there, or from the step before.

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
    """Whether an array is a linear map's kernel, and not a table of vectors."""
    return leaf.ndim >= 2 and path[-1] != "table"


def _product(a: Array, b: Array) -> Array:
    """In full precision: it costs little beside the layer's own product, and TF32 shows in σ."""
    return jnp.dot(a, b, precision=jax.lax.Precision.HIGHEST)


def _unit(x: Array, otherwise: Array) -> Array:
    """`x` scaled to length 1, and `otherwise` where it has none."""
    length = jnp.sqrt(jnp.square(x).sum())
    return jnp.where(length > SMALLEST, x / jnp.maximum(length, SMALLEST), otherwise)
