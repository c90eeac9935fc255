"""Batches of one compiled shape, the last one filled up."""

import numpy as np


def filled(rows: np.ndarray, size: int) -> np.ndarray:
    """`rows` `[N, ...]` with the first one repeated up to `[size, ...]`."""
    return np.concatenate([rows, np.repeat(rows[:1], size - len(rows), axis=0)])
