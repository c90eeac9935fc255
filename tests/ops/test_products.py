"""Every form of product equals the plain product, and refuses inputs of the wrong width."""

import functools
import operator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rnngen_jax.ops import products
from rnngen_jax.ops.normalisation import layer_norm
from rnngen_jax.ops.products import NARROW, is_narrow, multiplier, product


@pytest.mark.parametrize("width", [1, NARROW, NARROW + 1])
def test_a_product_is_that_of_matrices_in_value_and_gradient(width):
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        xs, kernel = rng.standard_normal((3, 2, width)), rng.standard_normal((width, 5))
        got, back = jax.vjp(product, jnp.asarray(xs), jnp.asarray(kernel))
        wanted, plain = jax.vjp(jnp.matmul, jnp.asarray(xs), jnp.asarray(kernel))
        g = rng.standard_normal(wanted.shape)
        for ours, theirs in zip((got, *back(g)), (wanted, *plain(g)), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)


def test_a_narrow_product_is_no_product_of_matrices():
    def products_of(width):
        program = jax.make_jaxpr(product)(jnp.ones((3, width)), jnp.ones((width, 5)))
        return str(program).count("dot_general")

    assert [products_of(NARROW), products_of(NARROW + 1)] == [0, 1]
    assert [is_narrow(jnp.ones((3, d))) for d in (NARROW, NARROW + 1)] == [True, False]


@pytest.mark.parametrize("wide", [0, 2**21])
def test_a_multiplier_gives_each_gate_its_product(wide, monkeypatch):
    monkeypatch.setattr(products, "_CPU_WIDE", wide)
    rng = np.random.default_rng(0)
    kernels = {gate: rng.standard_normal((4, 4)).astype(np.float32) for gate in "ifo"}
    h = rng.standard_normal((3, 4)).astype(np.float32)
    program = str(jax.make_jaxpr(lambda h: multiplier(kernels)(h))(h))
    assert program.count("dot_general") == (1 if wide else 3)
    for gate, got in multiplier(kernels)(h).items():
        np.testing.assert_allclose(got, h @ kernels[gate], rtol=1e-5, atol=1e-5)


def test_a_kernel_for_another_width_is_refused():
    for width in (1, 3, 6):
        with pytest.raises(ValueError, match=rf"^the inputs' width must be 5, .* got {width}$"):
            product(jnp.ones((2, width)), jnp.ones((5, 4)))


def test_layer_norm_is_its_equation():
    rng = np.random.default_rng(0)
    x, scale, bias = rng.standard_normal((2, 3, 6)), rng.standard_normal(6), rng.standard_normal(6)
    centred = x - x.mean(-1, keepdims=True)
    wanted = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * scale + bias
    got = layer_norm(*(jnp.asarray(a, jnp.float32) for a in (x, scale, bias)))
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)


def test_on_a_tpu_a_biass_gradient_is_a_product_with_ones(monkeypatch):
    """With the sum's value; elsewhere the program is that of an addition."""
    rng = np.random.default_rng(0)
    x, weights = rng.standard_normal((2, 3, 4, 5, 7))
    bias = rng.standard_normal(7)

    def loss(add):
        return lambda x, bias: (jnp.sin(add(x, bias)) * weights).sum()

    def program(add):
        return str(jax.make_jaxpr(jax.grad(loss(add), 1))(x, bias))

    with jax.enable_x64(True):
        plain = jax.value_and_grad(loss(operator.add), (0, 1))(x, bias)
        assert program(products.plus_bias) == program(operator.add)
        monkeypatch.setattr(products, "compiled_for", lambda: "tpu")
        assert "dot_general" in program(products.plus_bias)
        found = jax.value_and_grad(loss(products.plus_bias), (0, 1))(x, bias)
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-12), found, plain)
