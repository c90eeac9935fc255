"""`codes:RUN`: the grids of codes that a trained tokenizer, such as a VQ-VAE, gives its own images.

A grid `(H, W, depth)` has as many levels as there are codes. Splits and labels are those of the
tokenizer's data. The codes are written once (`runs.coded`), in `RUN/codes/DIGEST`, where DIGEST is
that of the tokenizer's parameters: one npy file of codes, and one of labels, per split. The name
`codes:RUN@DIGEST`, which `train` records, says which codes are meant even after the tokenizer has
trained on. Files are mapped into memory, but for those in a bucket, which are read whole. Their
SHA-256 is kept beside them and compared when they are opened: a file that has changed is refused.
"""

import hashlib
import io
import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from rnngen_jax import paths
from rnngen_jax.config import require
from rnngen_jax.data.base import SPLITS, DataConfig
from rnngen_jax.data.source import (
    MAX_BYTES,
    MOST_LEVELS,
    Source,
    from_arrays,
    need_argument,
    path_of,
    resolved,
)
from rnngen_jax.errors import UserError
from rnngen_jax.files import filling, opened, read_regular, require_file
from rnngen_jax.paths import Path
from rnngen_jax.shapes import IMAGE, ImageSpec, dtype_of

FOLDER = "codes"  # within the tokenizer's run
FORMAT = 2  # format 1 had no digests of its files

_FACTS = "version.json"  # the last name in order, so the last file to appear
_MOST_FACTS = 2**16  # bytes
_PINNED = re.compile(r"(?P<run>.*)@(?P<digest>[0-9a-f]{16})", re.DOTALL)
_REPEAT = "repeat the `rnngen train` on these codes, which writes them again"


class Origin(NamedTuple):
    """Where codes come from.

    Attributes:
      run: the folder of the tokenizer's run.
      digest: the digest of its parameters, 16 hexadecimal digits; empty for those that it has now.
    """

    run: str
    digest: str

    @property
    def name(self) -> str:
        """The value of `config.data.name`."""
        return f"codes:{self.run}@{self.digest}" if self.digest else f"codes:{self.run}"

    @property
    def folder(self) -> Path:
        """Where the codes are written, once the digest is known."""
        return path_of(self.run) / FOLDER / self.digest


def origin(name: str) -> Origin | None:
    """Where the codes of `config.data.name` come from; `None` for other data."""
    kind, _, argument = name.partition(":")
    return _origin(argument) if kind == "codes" else None


def canonical(argument: str) -> str:
    """Codes of a known digest are the same wherever their tokenizer's folder lies."""
    found = _origin(argument)
    return f"@{found.digest}" if found.digest else resolved(found.run)


def continued(argument: str, begun: str) -> str:
    """`begun`, if it names codes of a known digest by the same run, and `argument` those of now."""
    now, then = _origin(argument), _origin(begun)
    same = not now.digest and then.digest and resolved(now.run) == resolved(then.run)
    return begun if same else argument


def check(config: DataConfig) -> None:
    """Raises a `UserError` for settings of pictures, which would not leave codes what they are."""
    need_argument(config.name.partition(":")[2], "codes", "RUN")
    for field, unset in (("binarisation", "none"), ("shift", 0), ("flip", False)):
        given = getattr(config, field)
        require(given == unset, f"config.data.{field}", given, f"{unset!r} for codes")


def load_source(argument: str, config: DataConfig) -> Source:
    """Codes that have been written.

    Raises:
      UserError: no digest, codes that are missing, damaged, out of range or of another version, or
        settings of pictures.
    """
    check(config)
    found = _origin(argument)
    if not found.digest:
        raise UserError(
            f"config.data.name={config.name!r} must end in @DIGEST, as in the config.json of a run "
            "that `rnngen train` has made on these codes."
        )
    folder = found.folder
    levels, classes, digests = _facts(folder)
    arrays = {}
    for split in SPLITS:
        images, labels = (folder / f"{split}_{part}.npy" for part in (IMAGE, "label"))
        arrays[split] = _array(images, digests), _array(labels, digests) if classes else None
        given, allowed = arrays[split][0].dtype, dtype_of(levels)
        where = f"{folder}: {split}: the codes' dtype"
        require(given == allowed, where, given.name, allowed.name)
    return from_arrays(arrays, levels, str(folder), classes or None, coded=True)


def is_written(where: Origin) -> bool:
    """Whether the codes are there, all of them."""
    return paths.exists(where.folder / _FACTS)


def write(
    where: Origin,
    arrays: Mapping[str, tuple[np.ndarray, np.ndarray | None]],
    spec: ImageSpec,
) -> None:
    """Writes the codes of all splits.

    Args:
      where: the tokenizer, with its digest.
      arrays: by split, codes `[N, H, W, depth]` in the spec's dtype, and labels int32 `[N]`, `None`
        without classes.
      spec: the grids.

    Raises:
      UserError: the tokenizer's folder cannot be written to.
    """
    facts: dict[str, Any] = {"format": FORMAT, "levels": spec.levels, "classes": spec.classes}
    with filling(where.folder) as temporary:
        for split, (codes, labels) in arrays.items():
            np.save(temporary / f"{split}_{IMAGE}.npy", codes, allow_pickle=False)
            if labels is not None:
                np.save(temporary / f"{split}_label.npy", labels, allow_pickle=False)
        written = sorted(temporary.iterdir())
        facts["sha256"] = {path.name: _digest(path) for path in written}
        (temporary / _FACTS).write_text(json.dumps(facts) + "\n")


def _origin(argument: str) -> Origin:
    pinned = _PINNED.fullmatch(argument)
    return Origin(pinned["run"], pinned["digest"]) if pinned else Origin(argument, "")


def _facts(folder: Path) -> tuple[int, int, Mapping[str, str]]:
    """The numbers of levels and of classes, and the digest of each file by name."""
    path = folder / _FACTS
    require_file(path, _REPEAT)
    try:
        facts = json.loads(read_regular(path, _MOST_FACTS).decode())
    except (OSError, ValueError, RecursionError):
        raise UserError(f"{path}: is not valid JSON; {_renewed(folder)}.") from None
    facts = facts if isinstance(facts, dict) else {}
    if facts.get("format") != FORMAT:
        raise UserError(
            f"{path}: the codes are of format {facts.get('format')!r}, not {FORMAT}, so of another "
            f"version; {_renewed(folder)}."
        )
    ranges = {"levels": (2, MOST_LEVELS), "classes": (0, 2**31 - 1)}
    for name, (low, high) in ranges.items():
        right = type(facts.get(name)) is int and low <= facts[name] <= high
        require(right, f"{path}: {name!r}", facts.get(name), f"an integer in [{low}, {high}]")
    digests = facts.get("sha256")
    require(isinstance(digests, dict), f"{path}: 'sha256'", digests, "a digest for each file")
    return facts["levels"], facts["classes"], digests


def _digest(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _array(path: Path, digests: Mapping[str, str]) -> np.ndarray:
    """An npy file with the digest of its name, mapped into memory; never a pickle."""
    require_file(path, _renewed(path.parent))
    try:
        if paths.is_remote(path):
            array = np.load(io.BytesIO(read_regular(path, MAX_BYTES)), allow_pickle=False)
        else:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(
            f"{path}: cannot be read as an array ({reason}); {_renewed(path.parent)}."
        ) from None
    if not isinstance(array, np.ndarray):  # an npz of that name
        raise UserError(f"{path}: is not an npy file; {_renewed(path.parent)}.")
    if _digest(path) != digests.get(path.name):
        raise UserError(
            f"{path}: has changed since it was written (its SHA-256 is another); "
            f"{_renewed(path.parent)}."
        )
    return array


def _renewed(folder: Path) -> str:
    return f"remove {folder} and {_REPEAT}"
