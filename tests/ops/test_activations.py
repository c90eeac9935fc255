"""Activations by name, against their definitions in NumPy float64."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from rnngen_jax.errors import UserError
from rnngen_jax.ops.activations import ACTIVATIONS, activation_named, sigmoid

X = np.linspace(-30, 30, 201)
NORMAL = np.array([0.5 * (1 + math.erf(x / math.sqrt(2))) for x in X])
DEFINITIONS = {
    "elu": np.where(X > 0, X, np.expm1(np.minimum(X, 0))),
    "gelu": X * NORMAL,
    "identity": X,
    "relu": np.maximum(X, 0),
    "sigmoid": 1 / (1 + np.exp(-X)),
    "sin": np.sin(X),
    "softplus": np.logaddexp(X, 0),
    "softsign": X / (1 + np.abs(X)),
    "tanh": np.tanh(X),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_is_what_its_name_says(name):
    # JAX's gelu is the tanh approximation, whose error is at most 5e-4.
    atol = 1e-3 if name == "gelu" else 3e-6
    np.testing.assert_allclose(activation_named(name)(jnp.asarray(X)), DEFINITIONS[name], atol=atol)


def test_the_gates_sigmoid_is_the_logistic_function():
    np.testing.assert_allclose(sigmoid(jnp.asarray(X)), DEFINITIONS["sigmoid"], atol=2e-7)


def test_an_unknown_activation_is_refused_with_its_nearest():
    with pytest.raises(UserError, match="got 'tanhh'; did you mean 'tanh'"):
        activation_named("tanhh")
