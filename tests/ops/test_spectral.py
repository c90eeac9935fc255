"""Power iteration against NumPy's singular values."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.test_util import check_grads

from rnngen_jax.ops.spectral import spectral_norm

RNG = np.random.default_rng(4)
KERNEL = RNG.standard_normal((3, 3, 2, 5)).astype(np.float32)
MATRIX = np.float64(KERNEL.reshape(18, 5))
U = RNG.standard_normal(5).astype(np.float32)
LEFT, VALUES, RIGHT = np.linalg.svd(MATRIX, full_matrices=False)


def by_numpy(u, steps):
    for _ in range(steps):
        v = MATRIX @ u / np.linalg.norm(MATRIX @ u)
        u = MATRIX.T @ v / np.linalg.norm(MATRIX.T @ v)
    return v @ MATRIX @ u, u


def test_every_iteration_is_the_algorithms():
    for steps in (1, 2, 3):
        sigma, u = spectral_norm(KERNEL, U, steps)
        wanted, wanted_u = by_numpy(np.float64(U), steps)
        np.testing.assert_allclose(sigma, wanted, rtol=1e-6)
        np.testing.assert_allclose(u, wanted_u, atol=1e-6)
        assert sigma.shape == ()
        assert sigma < VALUES[0] * (1 + 1e-6)
    # As in training: one iteration per step, from the previous vector.
    _, u = spectral_norm(KERNEL, U)
    np.testing.assert_allclose(spectral_norm(KERNEL, u)[0], spectral_norm(KERNEL, U, 2)[0], 1e-6)


def test_many_iterations_find_the_largest_singular_value_and_its_gradient():
    (sigma, u), slope = jax.value_and_grad(
        lambda kernel: spectral_norm(kernel, U, 60), has_aux=True
    )(jnp.asarray(KERNEL))
    np.testing.assert_allclose(sigma, VALUES[0], rtol=1e-6)
    np.testing.assert_allclose(np.abs(u @ RIGHT[0]), 1, rtol=1e-6)
    np.testing.assert_allclose(slope.reshape(18, 5), np.outer(LEFT[:, 0], RIGHT[0]), atol=1e-5)


def test_the_normalised_kernels_gradient_is_the_true_one_once_the_vectors_have_settled():
    """Treating the vectors as constants is exact here (eq. 10), as finite differences show."""
    kernel = RNG.standard_normal((4, 3))
    with jax.enable_x64(True):
        _, u = spectral_norm(jnp.asarray(kernel), jnp.ones(3), 50)
        normalised = jax.jit(lambda w: w / spectral_norm(w, u, 50)[0])
        check_grads(normalised, (kernel,), 1, modes=["rev"])
    early = jax.grad(lambda w: spectral_norm(w, U)[0])(jnp.asarray(KERNEL)).reshape(18, 5)
    v = MATRIX @ U / np.linalg.norm(MATRIX @ U)
    np.testing.assert_allclose(early, np.outer(v, by_numpy(np.float64(U), 1)[1]), atol=1e-6)


def test_no_gradient_reaches_the_vector():
    slope = jax.grad(lambda u: spectral_norm(jnp.asarray(KERNEL), u)[0])(jnp.asarray(U))
    np.testing.assert_array_equal(slope, 0)


def test_a_kernel_of_zeros_is_no_trouble():
    def normalised(kernel):
        sigma, u = spectral_norm(kernel, U, 2)
        return (kernel / sigma).sum(), u

    (value, u), slope = jax.value_and_grad(normalised, has_aux=True)(jnp.zeros((4, 5)))
    assert value == 0
    np.testing.assert_array_equal(u, U)
    assert np.isfinite(slope).all()
