"""Parameters for tests, made in NumPy: each operation of JAX's outside of a program is one more."""

import jax
import numpy as np


def moved(params, by=0.3):
    """Parameters that are not as flat as the first ones are."""

    def wave(x):
        x = np.asarray(x)
        return (x + by * np.sin(np.arange(x.size)).reshape(x.shape)).astype(x.dtype)

    return jax.tree.map(wave, params)
