"""One checkpoint as it lies on disk: its meta and its arrays, no digest of which goes unchecked.

What a checkpoint consists of is said in `checkpoints.py`. Nothing here changes a file.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from rnngen_jax.errors import UserError
from rnngen_jax.training.digests import describe, digest, named

Meta = dict[str, Any]


class DamagedError(Exception):
    """A checkpoint that cannot be read, or whose content is not what was written."""


def meta(path: pathlib.Path) -> Meta:
    """The meta of the checkpoint in the folder `path`, whose name is its step.

    Raises:
      DamagedError: it cannot be read, or it is not what was written.
    """
    found = _restored(path, ocp.args.Composite(meta=ocp.args.JsonRestore())).get("meta")
    if not isinstance(found, dict) or "digest" not in found:
        raise DamagedError("its meta is incomplete")
    if found["digest"] != digest({k: v for k, v in found.items() if k != "digest"}):
        raise DamagedError("the digest of its meta differs")
    if str(found["step"]) != path.name:
        raise DamagedError(f"its folder was renamed, it is of step {found['step']}")
    return found


def tree(path: pathlib.Path, meta: Meta, abstract: Any) -> Any:
    """The arrays in the tree `abstract`, whose shapes and dtypes they have, as NumPy arrays.

    Orbax would cast to another dtype without a word.

    Raises:
      UserError: the checkpoint has other arrays.
      DamagedError: as `arrays`.
    """
    leaves = named(abstract)
    for name, leaf in leaves.items():
        stored = meta["arrays"].get(name)
        given = {"dtype": np.dtype(leaf.dtype).name, "shape": list(leaf.shape)}
        if stored is None or {key: stored[key] for key in given} != given:
            was = "missing" if stored is None else f"{stored['dtype']}{stored['shape']}"
            raise UserError(
                f"{path} does not fit: {name} is {was} there and {given['dtype']}{given['shape']} "
                "here; use the model and settings it was trained with."
            )
    found = arrays(path, meta, leaves)
    return jax.tree.unflatten(jax.tree.structure(abstract), [found[name] for name in leaves])


def arrays(path: pathlib.Path, meta: Meta, template: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The arrays that `template` names, with its shapes and dtypes.

    Raises:
      DamagedError: one cannot be read, or is not what was written.
    """
    found = {}
    for name, leaf in template.items():
        # Orbax has not taken those without elements.
        array = np.zeros(leaf.shape, leaf.dtype) if leaf.size == 0 else _array(path, name)
        if describe(array) != meta["arrays"][name]:
            raise DamagedError(f"the digest of {name} differs")
        found[name] = array
    return found


def first_line(error: Exception) -> str:
    """The first line of an error's message, which may be long."""
    lines = str(error).splitlines()
    return lines[0][:200].rstrip(".") if lines else type(error).__name__


def _array(path: pathlib.Path, name: str) -> np.ndarray:
    """One array. Where one cannot be read, others under way would print errors of their own."""
    args = ocp.args.PyTreeRestore(
        item={name: 0},
        restore_args={name: ocp.RestoreArgs(restore_type=np.ndarray)},
        partial_restore=True,
    )
    found = _restored(path, ocp.args.Composite(state=args))
    array = (found.get("state") or {}).get(name)
    # Orbax hands the placeholder back for an array that is not there.
    if not isinstance(array, np.ndarray):
        raise DamagedError(f"{name} is missing")
    return array


def _restored(path: pathlib.Path, args: ocp.args.Composite) -> Any:
    """Reads items of a checkpoint.

    Orbax, TensorStore and their codecs raise errors of many kinds for files that are not whole;
    all of them mean the same here.
    """
    if not any(path.iterdir()):
        raise DamagedError("its folder is empty")
    with ocp.Checkpointer(ocp.CompositeCheckpointHandler("state", "meta")) as checkpointer:
        try:
            return checkpointer.restore(path, args=args)
        except Exception as error:
            raise DamagedError(f"it cannot be read: {first_line(error)}") from None
