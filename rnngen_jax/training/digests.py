"""A checkpoint's own description: its arrays' names and digests, its libraries, its identity."""

import hashlib
import importlib.metadata
import json
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from rnngen_jax.errors import UserError
from rnngen_jax.paths import Path

_LIBRARIES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def named(tree: Any) -> dict[str, Any]:
    """The leaves of a tree by their path, such as "opt_state.model.0.mu.kernel"."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    by_path = {jax.tree_util.keystr(path, simple=True, separator="."): x for path, x in leaves}
    if len(by_path) != len(leaves):
        raise AssertionError("two arrays of the state have the same name")
    return by_path


def describe(array: np.ndarray) -> dict[str, Any]:
    """Dtype, shape and digest of an array."""
    return {
        "dtype": array.dtype.name,
        "shape": list(array.shape),
        "sha256": hashlib.sha256(array.tobytes()).hexdigest(),
    }


def digest(values: Mapping[str, Any]) -> str:
    """SHA-256 of JSON values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def versions() -> dict[str, str]:
    """Versions of the libraries that a checkpoint was written with."""
    return {name: importlib.metadata.version(name) for name in _LIBRARIES}


def check_identity(
    meta: Mapping[str, Any],
    identity: Mapping[str, Any],
    path: Path,
    defaults: Mapping[str, Any] | None = None,
) -> None:
    """Raises a `UserError` unless the checkpoint belongs to `identity`.

    Args:
      meta: the checkpoint's.
      identity: what it must belong to.
      path: of the checkpoint, for the message.
      defaults: values, nested as `identity`, of fields that the checkpoint may lack since it was
        written before they existed.
    """
    stored, given = _flat(meta["identity"]), _flat(json.loads(json.dumps(identity)))
    added = _flat(json.loads(json.dumps(defaults or {})))
    stored = {name: added[name] for name in added if name in given} | stored
    for name in sorted(stored.keys() | given.keys()):
        was, now = stored.get(name, "missing"), given.get(name, "missing")
        if was != now:
            raise UserError(
                f"{path} belongs to another model: {name} is {was!r} there and {now!r} here; "
                "use the config that it was trained with, or give another --workdir."
            )


def _flat(tree: Any, path: str = "") -> dict[str, Any]:
    """The leaves of nested dicts by dotted path."""
    if not isinstance(tree, dict):
        return {path: tree}
    flat = {}
    for name, value in tree.items():
        flat |= _flat(value, f"{path}.{name}" if path else name)
    return flat
