"""Products with kernels, `x @ W` for row vectors, in the fastest form for their sizes."""

import functools
import operator
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from rnngen_jax.ops.devices import compiled_for
from rnngen_jax.ops.precision import matmul

# Inputs of at most this many features are narrow: one or three colour channels, say.
NARROW = 4

# Bytes of recurrent weights up to which, on a CPU, one wide product for all gates beats one product
# per gate: beyond a core's L2 cache, narrower kernels are faster.
_CPU_WIDE = 2**21

# Features up to which the input products of all gates are faster as one: narrower products leave
# most of a core idle.
THIN = 64

_SUBLANES = 8  # of a TPU's registers


def is_narrow(xs: Array) -> bool:
    """Whether a product with `xs [..., D]` is faster as a sum of D elementwise terms."""
    return xs.shape[-1] <= NARROW


def product(xs: Array, kernel: Array) -> Array:
    """`x W`, `[..., D] [D, F] -> [..., F]`; for narrow inputs a sum that fuses with later ops.

    With one input channel a matrix product is all overhead, and prevents fusion.

    Raises:
      ValueError: the kernel is for inputs of another width.
    """
    require_width(xs, kernel.shape[0])
    if not is_narrow(xs):
        # In two dimensions the kernel's gradient needs no transposed copy of a long array.
        rows = matmul(xs.reshape(-1, xs.shape[-1]), kernel)
        return rows.reshape(*xs.shape[:-1], kernel.shape[-1])
    terms = [xs[..., d, None] * kernel[d] for d in range(xs.shape[-1])]
    return functools.reduce(operator.add, terms)


def plus_bias(x: Array, bias: Array) -> Array:
    """`x + b`, `[..., F] [F] -> [..., F]`; on a TPU with `sum_rows` for the gradient of b."""
    return _plus_bias(x, bias) if compiled_for() == "tpu" else x + bias


@jax.custom_vjp
def _plus_bias(x: Array, bias: Array) -> Array:
    return x + bias


_plus_bias.defvjp(lambda x, bias: (x + bias, None), lambda _, d: (d, sum_rows(d)))


def sum_rows(x: Array) -> Array:
    """The sum over all axes but the last, `[..., F]` to `[F]`, as a product with ones.

    By its compiler's estimate, a TPU adds up registers one by one, at more than 30 cycles each,
    where a product takes one or two. Ones are the same in bfloat16, so half of the terms of a
    float32 product, those of `Precision.HIGH`, keep all but the last digits.
    """
    rows = x.reshape(-1, x.shape[-1])
    # Behind the barrier they could be anything, so that the product is not made a sum again.
    ones = jax.lax.optimization_barrier(jnp.ones((len(rows), _SUBLANES), x.dtype))
    return jnp.einsum("rf,rk->fk", rows, ones, precision=jax.lax.Precision.HIGH)[:, 0]


def require_width(xs: Array, width: int) -> None:
    """Raises a `ValueError` unless inputs `[..., D]` have the width `width`."""
    if xs.shape[-1] != width:
        raise ValueError(
            f"the inputs' width must be {width}, as for the parameters, got {xs.shape[-1]}"
        )


def multiplier(kernels: dict[str, Array]) -> Callable[[Array], dict[str, Array]]:
    """`multiply(h [..., F]) -> {gate: h U}`, usually as one product with all kernels concatenated.

    Within a loop the compiler concatenates them once, before the first step.
    """
    size = sum(kernel.size * kernel.dtype.itemsize for kernel in kernels.values())
    if compiled_for() == "cpu" and size > _CPU_WIDE:
        return lambda h: {gate: matmul(h, kernel) for gate, kernel in kernels.items()}
    wide = jnp.concatenate(list(kernels.values()), axis=-1)
    return lambda h: dict(
        zip(kernels, jnp.split(matmul(h, wide), len(kernels), axis=-1), strict=True)
    )
