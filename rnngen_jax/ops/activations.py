"""Elementwise functions by name, and the logistic function of the gates."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from jax import Array

from rnngen_jax.config import require_choice

ACTIVATIONS: Mapping[str, Callable[[Array], Array]] = {
    "elu": jax.nn.elu,
    "gelu": jax.nn.gelu,
    "identity": lambda x: x,
    "relu": jax.nn.relu,
    "sigmoid": jax.nn.sigmoid,
    "sin": jnp.sin,
    "softplus": jax.nn.softplus,
    "softsign": jax.nn.soft_sign,
    "tanh": jnp.tanh,
}


def activation_named(name: str) -> Callable[[Array], Array]:
    """The elementwise function `name`.

    Raises:
      UserError: it is not one of `ACTIVATIONS`.
    """
    require_choice("activation", name, ACTIVATIONS)
    return ACTIVATIONS[name]


def sigmoid(x: Array) -> Array:
    """σ(x), written with tanh, which is faster than the exponential on a CPU."""
    return 0.5 + 0.5 * jnp.tanh(0.5 * x)
