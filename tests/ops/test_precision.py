"""Rounded products against NumPy in float64, in both passes; without rounding, JAX's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import traced
from flax import linen as nn

from rnngen_jax.modules.dense import Dense, DenseGeneral
from rnngen_jax.ops import precision
from rnngen_jax.ops.precision import computing_in, dot_general, einsum, exact, matmul, rounds

UNIT = 2.0**-24  # of float32
# Shapes, and the same product and its two gradients as subscripts.
PRODUCTS = {
    "vector": ((3, 5), (5,), "ad,d->a", "a,d->ad", "ad,a->d"),
    "matrix": ((3, 5), (5, 4), "ad,df->af", "af,df->ad", "ad,af->df"),
    "rows": ((2, 3, 5), (5, 4), "bad,df->baf", "baf,df->bad", "bad,baf->df"),
    "batch": ((2, 3, 5), (2, 5, 4), "bad,bdf->baf", "baf,bdf->bad", "bad,baf->bdf"),
}


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def bfloat16(x):
    """Rounded by NumPy, and then exact."""
    return np.asarray(x).astype(jnp.bfloat16).astype(np.float64)


def in_bfloat16(function, *given):
    with computing_in("bfloat16"):
        return jax.jit(lambda *given: function(*given))(*given)


def require_rounded(got, subscripts, a, b):
    """`got` is the exact product of rounded operands, up to float32's rounding of its sum."""
    a, b = bfloat16(a), bfloat16(b)
    assert got.dtype == jnp.float32
    terms = a.size * b.size  # no fewer than any sum has
    bound = terms * UNIT * np.einsum(subscripts, abs(a), abs(b))
    assert (abs(got - np.einsum(subscripts, a, b)) <= bound).all()


@pytest.mark.parametrize("kind", PRODUCTS)
@pytest.mark.parametrize("way", ["matmul", "einsum"])
def test_products_are_of_rounded_operands_in_both_passes(kind, way):
    left, right, forward, to_left, to_right = PRODUCTS[kind]
    a, b = normal(*left), normal(*right, seed=1)
    product = matmul if way == "matmul" else lambda a, b: einsum(forward, a, b)

    def both(a, b, g):
        y, back = jax.vjp(product, a, b)
        return y, *back(g)

    g = normal(*jax.eval_shape(product, a, b).shape, seed=2)
    y, d_a, d_b = in_bfloat16(both, a, b, g)
    require_rounded(y, forward, a, b)
    require_rounded(d_a, to_left, g, b)
    require_rounded(d_b, to_right, a, g)
    assert abs(y - product(a, b)).max() > 2**-12  # which is not rounded


@pytest.mark.parametrize(
    "numbers",
    [(((1,), (0,)), ((), ())), (((2, 0), (1, 2)), ((), ())), (((2,), (1,)), ((0,), (2,)))],
)
def test_dot_general_takes_any_dimension_numbers(numbers):
    a, b = normal(4, 3, 5), normal(3, 5, 4, seed=1)
    ours = in_bfloat16(lambda a, b: dot_general(a, b, numbers), a, b)
    wanted = jax.lax.dot_general(*(bfloat16(x).astype(np.float32) for x in (a, b)), numbers)
    np.testing.assert_allclose(ours, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layer", [Dense(4), DenseGeneral((2, 3))], ids=["Dense", "DenseGeneral"])
def test_layers_are_rounded_and_else_those_of_flax(layer):
    theirs = (nn.Dense if isinstance(layer, nn.Dense) else nn.DenseGeneral)(layer.features)
    x = normal(3, 5)
    params = layer.init(jax.random.key(0), x)
    kernel = np.asarray(params["params"]["kernel"])
    require_rounded(in_bfloat16(layer.apply, params, x), "ad,d...->a...", x, kernel)
    own, flax = (str(jax.make_jaxpr(one.apply)(params, x)) for one in (layer, theirs))
    assert own == flax


def test_without_the_scope_products_are_those_of_jax():
    a, b = normal(2, 3, 5), normal(2, 5, 4)
    numbers = (((2,), (1,)), ((0,), (0,)))
    for ours, theirs in (
        (matmul, jnp.matmul),
        (exact, jnp.matmul),
        (lambda a, b: einsum("bad,bdf->baf", a, b), lambda a, b: jnp.einsum("bad,bdf->baf", a, b)),
        (lambda a, b: dot_general(a, b, numbers), lambda a, b: jax.lax.dot_general(a, b, numbers)),
    ):
        assert str(jax.make_jaxpr(ours)(a, b)) == str(jax.make_jaxpr(theirs)(a, b))
    with computing_in("float32"):
        assert not rounds()
    with computing_in("bfloat16"):
        assert rounds()
    assert not rounds()


def test_what_asks_for_the_highest_precision_is_not_rounded():
    a, b = normal(3, 5), normal(5, 4)
    numbers = (((1,), (0,)), ((), ()))
    highest = jax.lax.Precision.HIGHEST
    with computing_in("bfloat16"):
        for product in (exact, lambda a, b: dot_general(a, b, numbers, highest)):
            assert traced.products(traced.equations(product, a, b)) == [traced.EXACT]
    np.testing.assert_allclose(in_bfloat16(exact, a, b), a @ b, rtol=1e-6)


def straight_through(subscripts, a, b):
    """`rounded` in another way: float32 products of rounded values, differentiated by JAX."""

    def rounded(x):
        return x + jax.lax.stop_gradient(jax.lax.reduce_precision(x, 8, 7) - x)

    @jax.custom_vjp
    def back(x):
        return x

    back.defvjp(lambda x: (x, None), lambda _, g: (rounded(g),))
    return back(jnp.einsum(subscripts, rounded(a), rounded(b), precision="highest"))


def test_gradients_of_gradients_are_rounded_likewise(monkeypatch):
    """As the penalties of adversarial models take them."""
    x, w, v = normal(6, 5), normal(5, 4, seed=1), normal(4, seed=2)

    def penalty(w, v):
        def score(x):
            return matmul(jnp.tanh(matmul(x, w)), v).sum()

        return jnp.square(jax.grad(score)(x)).sum()

    slope = jax.grad(penalty, argnums=(0, 1))
    ours, exactly = in_bfloat16(slope, w, v), slope(w, v)
    with computing_in("bfloat16"):
        found = traced.equations(slope, w, v)
    assert set(traced.products(found)) == {traced.ROUNDED}
    monkeypatch.setattr(precision, "rounded", straight_through)
    theirs = in_bfloat16(slope, w, v)
    for one, other, plain in zip(ours, theirs, exactly, strict=True):
        assert one.dtype == jnp.float32
        scale = np.linalg.norm(plain)
        # Only ours rounds the gradients of the second pass, on a path through two products.
        assert np.linalg.norm(one - other) <= 2 * 2**-9 * scale
        assert 2**-12 * scale < np.linalg.norm(one - plain) <= 8 * 2**-9 * scale
