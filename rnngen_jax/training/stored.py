"""Reads one checkpoint from disk, its meta and its arrays, and checks the digests of all it reads.

`checkpoints.py` describes the format. Nothing here changes a file.
"""

import contextlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from rnngen_jax import files, paths
from rnngen_jax.errors import UserError, refusal
from rnngen_jax.paths import Path
from rnngen_jax.training.digests import describe, digest, named

Meta = dict[str, Any]

# Format of the meta and of the arrays' names. Format 1 said "replicas" for seeds, and had no field
# for itself.
FORMAT = 2

# Raised by Orbax, TensorStore and their codecs for damaged files: invalid or unexpected JSON,
# invalid UTF-8, a chunk that does not decode, a missing file.
_OF_DAMAGE = (ValueError, LookupError, TypeError, AttributeError, RecursionError)
_MISSING = (FileNotFoundError, IsADirectoryError, NotADirectoryError)


class DamagedError(Exception):
    """A checkpoint whose files can be read but differ from what was written."""


class UnreadableError(OSError):
    """A checkpoint that the operating system refuses to read, and that may be intact."""


def meta(path: Path) -> Meta:
    """The meta of the checkpoint in the folder `path`, whose name is its step.

    Raises:
      DamagedError: it differs from what was written.
      UnreadableError: it cannot be read.
      UserError: its format is not `FORMAT`.
    """
    with _reading(path):
        found = _restored(path, ocp.args.Composite(meta=ocp.args.JsonRestore())).get("meta")
        if not isinstance(found, dict) or "digest" not in found:
            raise DamagedError("its meta is incomplete")
        if found["digest"] != digest({k: v for k, v in found.items() if k != "digest"}):
            raise DamagedError("the digest of its meta differs")
        _require_format(found, path)
        _require_fields(found)
        if str(found["step"]) != path.name:
            raise DamagedError(f"its folder was renamed: it is of step {found['step']}")
        return found


def is_committed(path: Path) -> bool:
    """Whether the checkpoint in a folder of a bucket was written to its end."""
    return ocp.utils.is_checkpoint_finalized(path)


def tree(path: Path, meta: Meta, abstract: Any) -> Any:
    """The arrays of a checkpoint as a tree like `abstract`, of the same shapes and dtypes.

    Dtypes are checked here, as Orbax would cast silently.

    Returns:
      A tree of NumPy arrays.

    Raises:
      UserError: the checkpoint has other arrays.
      DamagedError, UnreadableError: as `arrays`.
    """
    leaves = named(abstract)
    for name, leaf in leaves.items():
        stored = meta["arrays"].get(name)
        given = {"dtype": np.dtype(leaf.dtype).name, "shape": list(leaf.shape)}
        if stored is None or {key: stored[key] for key in given} != given:
            was = "missing" if stored is None else f"{stored['dtype']}{stored['shape']}"
            raise UserError(
                f"{name} in {path} must be {given['dtype']}{given['shape']}, got {was}. "
                "Use the model and settings that it was trained with."
            )
    found = arrays(path, meta, leaves)
    return jax.tree.unflatten(jax.tree.structure(abstract), [found[name] for name in leaves])


def arrays(path: Path, meta: Meta, template: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The arrays that `template` names, with its shapes and dtypes.

    Raises:
      DamagedError: an array differs from what was written.
      UnreadableError: an array cannot be read.
    """
    found = {}
    with _reading(path):
        filled = [name for name, leaf in template.items() if leaf.size]
        # One at a time, as parallel reads would each print their errors; but together from a
        # bucket, where each read takes many requests.
        whole = paths.is_remote(path)
        read = _arrays(path, filled) if whole and filled else {}
        for name, leaf in template.items():
            # Arrays without elements are not stored, as Orbax does not take them.
            if leaf.size == 0:
                array = np.zeros(leaf.shape, leaf.dtype)
            else:
                array = read[name] if whole else _arrays(path, [name])[name]
            if describe(array) != meta["arrays"][name]:
                raise DamagedError(f"the digest of {name} differs")
            found[name] = array
    return found


def reason(error: Exception) -> str:
    """Why Orbax failed: the operating system's reason, or the first line of the message."""
    refused = _refused(error)
    if refused is not None and refused.strerror:
        return refused.strerror
    lines = str(error).splitlines()
    return lines[0][:200].rstrip(".") if lines else type(error).__name__


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Distinguishes a damaged checkpoint from one that the operating system refuses to read.

    Only the former may be moved aside. Other errors, such as a lack of memory, pass through.
    """
    try:
        yield
    except (DamagedError, OSError, *_OF_DAMAGE) as error:
        refused = _refused(error)
        if refused is not None and not isinstance(refused, _MISSING):
            raise _unreadable(path, refusal(refused)) from None
        _require_readable(path)
        if isinstance(error, DamagedError):
            raise
        raise DamagedError(f"it cannot be read: {reason(error)}") from None


def _refused(error: Exception) -> OSError | None:
    """The operating system's error, if any; TensorStore gives its code only in the message."""
    if isinstance(error, OSError):
        return error
    found = re.search(r"os_error_code='(\d+)'", str(error))
    return None if found is None else OSError(int(found[1]), os.strerror(int(found[1])))


def _require_readable(path: Path) -> None:
    """Raises an `UnreadableError` unless all files of a checkpoint can be read to their end.

    Orbax reports a file without read permission as missing, and TensorStore one with an
    input/output error as truncated.
    """

    if paths.is_remote(path):
        try:
            with paths.answering(path):
                for file in files.tree(path):
                    file.read_bytes()
        except OSError as error:
            raise _unreadable(path, refusal(error)) from None
        return

    def refuse(error: OSError) -> None:
        raise error

    try:
        for folder, _, names in os.walk(path, onerror=refuse):
            for name in names:
                with open(os.path.join(folder, name), "rb") as file:
                    while file.read(2**20):
                        pass
    except OSError as error:
        raise _unreadable(path, refusal(error)) from None


def _unreadable(path: Path, why: str) -> UnreadableError:
    """The error for a checkpoint that the operating system refuses to read."""
    return UnreadableError(
        f"checkpoint {path} cannot be read ({why}); it may be intact, and is left as it is"
    )


def _require_format(meta: Meta, path: Path) -> None:
    """Raises a `UserError` unless a checkpoint has the format that this version writes."""
    given = meta.get("format", 1)
    if given != FORMAT:
        older = given in range(1, FORMAT)
        todo = "train anew, or use the version that wrote it" if older else "update rnngen_jax"
        raise UserError(
            f"checkpoint {path} has format {given!r}, and this version reads {FORMAT}; {todo}."
        )


def _require_fields(meta: Meta) -> None:
    """Raises a `DamagedError` unless a meta has the fields that are read, of the right types."""

    def is_count(value: Any) -> bool:
        return isinstance(value, int) and value >= 0

    def is_best(value: Any) -> bool:
        if value is None:
            return True
        if not isinstance(value, dict) or not is_count(value.get("step")):
            return False
        return isinstance(value.get("score"), int | float)

    def is_described(value: Any) -> bool:
        if not isinstance(value, dict) or not isinstance(value.get("shape"), list):
            return False
        return all(map(is_count, value["shape"])) and _is_dtype(value.get("dtype"))

    checks = {
        "step": is_count,
        "identity": lambda value: isinstance(value, dict),
        "arrays": lambda value: isinstance(value, dict) and all(map(is_described, value.values())),
        "best": is_best,
    }
    for name, fits in checks.items():
        if name not in meta:
            raise DamagedError(f"its meta lacks {name!r}")
        if not fits(meta[name]):
            raise DamagedError(f"its meta's {name!r} is invalid")


def _is_dtype(name: Any) -> bool:
    """Whether NumPy knows a dtype of this name."""
    try:
        return isinstance(name, str) and np.dtype(name) is not None
    except TypeError:
        return False


def _arrays(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Arrays by name."""
    args = ocp.args.PyTreeRestore(
        item=dict.fromkeys(names, 0),
        restore_args={name: ocp.RestoreArgs(restore_type=np.ndarray) for name in names},
        partial_restore=True,
    )
    found = _restored(path, ocp.args.Composite(state=args)).get("state") or {}
    for name in names:
        # For a missing array, Orbax returns the placeholder.
        if not isinstance(found.get(name), np.ndarray):
            raise DamagedError(f"{name} is missing")
    return found


def _restored(path: Path, args: ocp.args.Composite) -> Any:
    """Reads items of a checkpoint."""
    if not any(path.iterdir()):
        raise DamagedError("its folder is empty")
    with ocp.Checkpointer(ocp.CompositeCheckpointHandler("state", "meta")) as checkpointer:
        return checkpointer.restore(path, args=args)
