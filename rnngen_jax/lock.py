"""A folder's lock: held by one process at a time, and released when that process ends."""

import contextlib
import fcntl
import json
import os
import pathlib
from collections.abc import Iterator
from platform import node

from rnngen_jax import lease, paths
from rnngen_jax.errors import UserError

NAME = ".lock"


@contextlib.contextmanager
def exclusive(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Locks a folder for this process inside the `with` block.

    It is the operating system's lock on the file `.lock`, so that it ends with its process, however
    that ends. The file says who holds it, and is removed with the block; a file that a killed
    process left is taken over. In a bucket it is an object that is renewed; see `lease`.

    Args:
      folder: created, with its parents, if missing; removed again if it is empty at the end.

    Raises:
      UserError: another process, named in the message, holds the folder; or it cannot be created or
        is on a file system without locks. Nothing is changed then.
      OSError: the bucket cannot be read or written.
    """
    folder = paths.of(folder)
    if paths.is_remote(folder):
        with lease.held(folder / NAME):
            yield
        return
    missing = _missing(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = _acquired(folder / NAME)
    except BlockingIOError:
        raise UserError(
            f"{folder} is in use{_holder(folder / NAME)}; wait for it to end, or give another "
            "--workdir."
        ) from None
    except OSError as error:
        _remove(missing)
        raise UserError(f"--workdir={folder} cannot be locked: {error.strerror}.") from None
    try:
        yield
    finally:
        (folder / NAME).unlink(missing_ok=True)  # while still locked, so that it is ours
        os.close(handle)
        _remove(missing)


def _acquired(path: pathlib.Path) -> int:
    """Locks the file; returns its descriptor, or raises `BlockingIOError` if it is locked."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _names(path, handle):
                os.ftruncate(handle, 0)
                os.write(handle, json.dumps({"process": os.getpid(), "host": node()}).encode())
                return handle
        except OSError:
            os.close(handle)
            raise
        os.close(handle)


def _names(path: pathlib.Path, handle: int) -> bool:
    """Whether `path` still names the open file, which its last holder may have removed."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _holder(path: pathlib.Path) -> str:
    """Describes the process that holds the lock, as far as the file tells."""
    try:
        found = json.loads(path.read_bytes()[:1000])
        return f" by process {int(found['process'])} on {str(found['host'])[:80]}"
    except (OSError, ValueError, KeyError, TypeError):
        return " by another process"


def _missing(folder: pathlib.Path) -> list[pathlib.Path]:
    """The folders that do not exist yet, innermost first."""
    return [path for path in (folder, *folder.parents) if not path.exists()]


def _remove(folders: list[pathlib.Path]) -> None:
    """Removes the folders that are empty."""
    for path in folders:
        with contextlib.suppress(OSError):
            path.rmdir()
