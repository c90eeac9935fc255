"""Helpers shared by peers."""

import importlib.util

import numpy as np


def not_installed(package: str) -> str | None:
    """A message if the package is not installed, otherwise `None`."""
    if importlib.util.find_spec(package) is not None:
        return None
    return f"{package} is not installed (pip install rnngen_jax[bench])"


def batch_major(array: np.ndarray) -> np.ndarray:
    """`[T, B, ...]` to `[B, T, ...]` or back, as a contiguous array."""
    return np.ascontiguousarray(np.swapaxes(np.asarray(array), 0, 1))
