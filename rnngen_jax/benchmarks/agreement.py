"""Comparison of contenders' outputs and gradients, which have to agree before any is timed."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from rnngen_jax.benchmarks.contenders import Contender
from rnngen_jax.errors import RunError

# Relative to an array's largest entry. In float32, sums over a long sequence differ by about 1e-6
# due to their order alone; a wrong gate order or bias differs by more than 1e-1.
TOLERANCE = 1e-4


def difference(given: Any, wanted: Any) -> tuple[float, str]:
    """The largest difference between two trees of arrays, and its location.

    Returns:
      The difference relative to the largest entry of the wanted array, infinite if structures or
      shapes differ or an entry is not finite; and the path of the array.
    """
    if jax.tree.structure(given) != jax.tree.structure(wanted):
        return float("inf"), "structure"
    found = [(0.0, "")]
    pairs = zip(jax.tree.leaves_with_path(given), jax.tree.leaves(wanted), strict=True)
    for (path, a), b in pairs:
        where = jax.tree_util.keystr(path)
        if a.shape != b.shape or not (np.isfinite(a).all() and np.isfinite(b).all()):
            return float("inf"), where
        scale = max(float(np.abs(b).max()), float(np.finfo(np.float32).tiny))
        found.append((float(np.abs(a - b).max()) / scale, where))
    return max(found, key=lambda pair: pair[0])


def require_close(what: str, given: Any, wanted: Any, tolerance: float = TOLERANCE) -> None:
    """Raises a `RunError` that gives the difference unless two trees of arrays agree."""
    size, where = difference(given, wanted)
    if not size <= tolerance:
        raise RunError(
            f"{what}{where} differ from ours by {size:.2g} of the largest entry; "
            f"allowed: {tolerance:g}. Nothing was timed."
        )


def check(case: str, contenders: Sequence[Contender]) -> None:
    """Compares every contender with the first one, which is ours.

    Args:
      case: the cell and its shape, for the error message.
      contenders: at least one.

    Raises:
      RunError: outputs or gradients differ by more than `TOLERANCE`.
    """
    first, *others = contenders
    ys, gradients = first.outputs(first.forward()), first.gradients(first.gradient())
    for one in others:
        require_close(f"{case}: outputs of {one.name}", one.outputs(one.forward()), ys)
        found = one.gradients(one.gradient())
        require_close(f"{case}: gradients of {one.name} for ", found, gradients)
