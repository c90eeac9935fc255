"""The precision of products: float32, or operands rounded to bfloat16 with sums in float32.

In bfloat16 only the two operands of a matrix product are rounded, in the forward and in the
backward pass alike; what is summed, and all that is not a product, stays float32. So parameters,
carries, gradients, statistics and likelihoods keep their precision, and a product costs what one
of bfloat16 does. Narrow products, which are elementwise (`ops.products`), are not rounded.
"""

import contextlib
import functools
import string
from contextlib import AbstractContextManager
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.lax import Precision

DTYPES = ("float32", "bfloat16")

# JAX's name for bfloat16 operands with float32 sums.
_ROUNDED = "BF16_BF16_F32"


def computing_in(dtype: str) -> AbstractContextManager[None]:
    """The scope in which traced products are computed in `dtype`, one of `DTYPES`.

    It is JAX's own scope of matrix precision, which its caches of traces know. A derivative is in
    the scope if it is taken there. "float32" leaves the precision as it is.
    """
    if dtype == "float32":
        return contextlib.nullcontext()
    return jax.default_matmul_precision(_ROUNDED)


def unrounded() -> AbstractContextManager[None]:
    """The scope, inside one of `computing_in`, in which products are those of float32 again."""
    return jax.default_matmul_precision("default") if rounds() else contextlib.nullcontext()


def rounds() -> bool:
    """Whether operands are rounded to bfloat16 where this is called, while tracing."""
    return jax.config.jax_default_matmul_precision == _ROUNDED


def matmul(a: Array, b: Array) -> Array:
    """`a @ b`: `[..., D] [D]`, `[..., D] [D, F]`, or both with the same leading axes."""
    if not rounds():
        return a @ b
    axes = string.ascii_lowercase[: a.ndim]
    shared = axes[: b.ndim - 2] if b.ndim > 2 else ""
    after = "z" if b.ndim > 1 else ""
    return rounded(f"{axes},{shared}{axes[-1]}{after}->{axes[:-1]}{after}", a, b)


def exact(a: Array, b: Array) -> Array:
    """`a @ b`, which is never rounded: for probabilities and what they weigh."""
    return jnp.matmul(a, b, precision=Precision.HIGHEST if rounds() else None)


def einsum(subscripts: str, a: Array, b: Array) -> Array:
    """`jnp.einsum` of two arrays; each index is in two of the three lists, or in all."""
    return rounded(subscripts, a, b) if rounds() else jnp.einsum(subscripts, a, b)


def dot_general(
    lhs: Array,
    rhs: Array,
    dimension_numbers: jax.lax.DotDimensionNumbers,
    precision: Precision | None = None,
) -> Array:
    """`jax.lax.dot_general`, for layers of Flax; one with a precision of its own keeps that."""
    if precision is not None or not rounds():
        return jax.lax.dot_general(lhs, rhs, dimension_numbers, precision)
    (lhs_summed, rhs_summed), (lhs_shared, rhs_shared) = dimension_numbers
    letters = iter(string.ascii_lowercase)
    left = [next(letters) for _ in range(lhs.ndim)]
    right = [next(letters) for _ in range(rhs.ndim)]
    for i, j in (
        *zip(lhs_summed, rhs_summed, strict=True),
        *zip(lhs_shared, rhs_shared, strict=True),
    ):
        right[j] = left[i]
    out = [left[i] for i in lhs_shared]
    out += [name for i, name in enumerate(left) if i not in {*lhs_summed, *lhs_shared}]
    out += [name for j, name in enumerate(right) if j not in {*rhs_summed, *rhs_shared}]
    return rounded(f"{''.join(left)},{''.join(right)}->{''.join(out)}", lhs, rhs)


def rounded(subscripts: str, a: Array, b: Array) -> Array:
    """`einsum` with both operands rounded to bfloat16: exact products, and sums in float32.

    Its gradients are products of the same kind, so the incoming gradient is rounded, too, and
    gradients of gradients are like gradients. JAX's own transpose would multiply a float32 gradient
    by a bfloat16 operand, and round sums over a batch to bfloat16. There is no forward mode.
    """
    return _rounded(subscripts, a.dtype, a, b)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _rounded(subscripts: str, dtype: Any, a: Array, b: Array) -> Array:
    """`rounded`; `dtype` is that of a, which is rounded already where it was kept so."""
    del dtype
    return jnp.einsum(
        subscripts,
        a.astype(jnp.bfloat16),
        b.astype(jnp.bfloat16),
        precision=Precision.DEFAULT,
        preferred_element_type=jnp.float32,
    )


def _forward(subscripts: str, dtype: Any, a: Array, b: Array) -> tuple[Array, tuple[Array, Array]]:
    # Activations come first and are kept as rounded, in half of the memory; kernels come second and
    # exist in any case.
    return _rounded(subscripts, dtype, a, b), (a.astype(jnp.bfloat16), b)


def _backward(
    subscripts: str, dtype: Any, kept: tuple[Array, Array], g: Array
) -> tuple[Array, Array]:
    (a, b), (operands, out) = kept, subscripts.split("->")
    left, right = operands.split(",")
    d_a = rounded(f"{out},{right}->{left}", g, b)
    return d_a.astype(dtype), rounded(f"{left},{out}->{right}", a, g)


_rounded.defvjp(_forward, _backward)
