"""Parameters for tests, made in NumPy: each operation of JAX's outside of a program is one more."""

import math

import jax
import numpy as np


def wave(shape):
    """Numbers in [-1, 1] that repeat nowhere, float32."""
    return np.sin(np.arange(math.prod(shape))).reshape(shape).astype(np.float32)


def moved(params, by=0.3):
    """Parameters that are not as flat as the first ones are."""
    return jax.tree.map(lambda x: (np.asarray(x) + by * wave(x.shape)).astype(x.dtype), params)
