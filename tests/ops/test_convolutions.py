"""Convolutions of maps against sums over places, with gradients in every form, and in bfloat16."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rnngen_jax.ops import convolutions
from rnngen_jax.ops.convolutions import convolution, convolver, neighbours
from rnngen_jax.ops.precision import computing_in

T, B, H, W, D, F = 3, 2, 3, 4, 5, 2


def around(maps, side):
    """Places by raster order, by a loop."""
    *lead, height, width, depth = maps.shape
    out = np.zeros((*lead, height, width, side, side, depth))
    for row, column in np.ndindex(height, width):
        for i, j in np.ndindex(side, side):
            r, c = row + i - side // 2, column + j - side // 2
            if 0 <= r < height and 0 <= c < width:
                out[..., row, column, i, j, :] = maps[..., r, c, :]
    return out.reshape(*lead, height, width, side**2 * depth)


def drawn(side):
    rng = np.random.default_rng(side)
    maps = rng.standard_normal((T, B, H, W, D))
    return maps, rng.standard_normal((side**2 * D, F)), rng.standard_normal((T, B, H, W, F))


@pytest.mark.parametrize("platform", ["cpu", "tpu"])
@pytest.mark.parametrize("side", [1, 3, 5])
def test_neighbours_are_those_around_each_place(side, platform, monkeypatch):
    monkeypatch.setattr(convolutions, "compiled_for", lambda: platform)
    maps = drawn(side)[0].astype(np.float32)
    np.testing.assert_array_equal(neighbours(maps, side), around(maps, side).astype(np.float32))


# Images whose neighbourhoods are laid out at once: all 6; 4, then 2; one by one.
LAID = {"all": 6, "some": 4, "each": 1}


@pytest.mark.parametrize("platform", ["cpu", "tpu"])
@pytest.mark.parametrize(("side", "laid"), [(3, "all"), (3, "some"), (5, "each"), (1, "all")])
def test_a_convolution_is_a_product_with_neighbours(side, laid, platform, monkeypatch):
    monkeypatch.setattr(convolutions, "compiled_for", lambda: platform)
    monkeypatch.setattr(convolutions, "_CPU_VALUES", LAID[laid] * H * W * side**2 * D)
    maps, kernel, d_out = drawn(side)
    seen = around(maps, side)
    with jax.enable_x64(True):
        out, back = jax.vjp(lambda m, k: convolution(m, k, side), maps, kernel)
        d_maps, d_kernel = jax.jit(back)(jnp.asarray(d_out))
    np.testing.assert_allclose(out, seen @ kernel, atol=1e-12)
    wanted = np.einsum("tbhwk,tbhwf->kf", seen, d_out)
    np.testing.assert_allclose(d_kernel, wanted, atol=1e-12)
    # It is linear, so its transpose has the same inner products.
    other = np.random.default_rng(9).standard_normal(maps.shape)
    found, expected = (
        (np.asarray(d_maps) * other).sum(),
        ((around(other, side) @ kernel) * d_out).sum(),
    )
    np.testing.assert_allclose(found, expected, rtol=1e-11)


def test_gates_share_a_convolution():
    maps, kernel, _ = drawn(3)
    kernels = {"a": kernel, "b": 2 * kernel[:, ::-1]}
    found = convolver(kernels, 3)(maps)
    assert list(found) == ["a", "b"]
    for gate, kernel in kernels.items():
        np.testing.assert_allclose(found[gate], around(maps, 3) @ kernel, atol=1e-4)


def test_in_bfloat16_operands_are_rounded_and_sums_are_not():
    maps, kernel, d_out = (np.float32(a) for a in drawn(3))
    with computing_in("bfloat16"):
        out, back = jax.vjp(lambda m, k: convolution(m, k, 3), maps, kernel)
        d_maps, d_kernel = back(jnp.asarray(d_out))
    assert {a.dtype for a in (out, d_maps, d_kernel)} == {jnp.dtype("float32")}
    rounded = [np.float64(np.asarray(a, jnp.bfloat16)) for a in (maps, kernel, d_out)]
    np.testing.assert_allclose(out, around(rounded[0], 3) @ rounded[1], atol=1e-5)
    wanted = np.einsum("tbhwk,tbhwf->kf", around(rounded[0], 3), rounded[2])
    np.testing.assert_allclose(d_kernel, wanted, atol=1e-5)


def test_a_kernel_of_another_width_is_refused():
    maps, kernel, _ = drawn(3)
    with pytest.raises(ValueError, match=f"width must be {D}, .* got {D - 1}"):
        convolution(maps[..., :-1], kernel, 3)
