"""What peers share."""

import importlib.util

import numpy as np


def not_installed(package: str) -> str | None:
    """Says so where a package is not installed."""
    if importlib.util.find_spec(package) is not None:
        return None
    return f"{package} is not installed (pip install rnngen_jax[bench])"


def batch_major(array: np.ndarray) -> np.ndarray:
    """`[T, B, ...]` to `[B, T, ...]` or back, as an array in that order in memory."""
    return np.ascontiguousarray(np.swapaxes(np.asarray(array), 0, 1))
