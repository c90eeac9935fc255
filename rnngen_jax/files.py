"""Files on disk: atomic writes, appended lines, and bounded reads."""

import contextlib
import io
import os
import pathlib
import shutil
import stat
import tempfile
from collections.abc import Iterator

from rnngen_jax.errors import UserError

_KINDS = {
    stat.S_IFREG: "a file",
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_unfinished: set[pathlib.Path] = set()  # temporary files and folders being written


def discard_unfinished() -> None:
    """Removes unfinished files, for a process that ends without leaving its `with` blocks."""
    for path in tuple(_unfinished):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def require_file(path: str | os.PathLike[str], hint: str, where: str | None = None) -> None:
    """Raises a `UserError` unless `path` is a regular file; opening anything else may block.

    Args:
      path: links are followed.
      hint: what to do, such as "give an npz file".
      where: its name in the message, such as "--input=x.npz"; `path` by default.
    """
    _require(path, stat.S_IFREG, "file", hint, where)


def require_folder(path: str | os.PathLike[str], hint: str, where: str | None = None) -> None:
    """Raises a `UserError` unless `path` is a folder; arguments as for `require_file`."""
    _require(path, stat.S_IFDIR, "folder", hint, where)


def _require(
    path: str | os.PathLike[str], wanted: int, name: str, hint: str, where: str | None
) -> None:
    where = where or str(path)
    try:
        kind = stat.S_IFMT(os.stat(path).st_mode)
    except OSError as error:
        if os.path.islink(path):
            raise UserError(f"{where}: is a link that leads nowhere; {hint}.") from None
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            raise UserError(f"{where}: there is no such {name}; {hint}.") from None
        raise UserError(f"{where}: cannot be read: {error.strerror}.") from None
    if kind != wanted:
        raise UserError(f"{where}: is {_KINDS[kind]}, not a {name}; {hint}.")


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
    """Writes a file atomically: yields a temporary path that replaces `path` once complete.

    An error inside the `with` block leaves `path` as it was and removes the temporary file.

    Args:
      path: the file to write or replace; missing parent folders are created.

    Yields:
      The temporary path, with the extension of `path`.

    Raises:
      UserError: the folder cannot be created or written to, or `path` is a folder.
    """
    path = pathlib.Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(
            prefix=f".{path.stem}.", suffix=f".tmp{path.suffix}", dir=path.parent
        )
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; choose another place.") from None
    os.close(handle)
    temporary = pathlib.Path(name)
    _unfinished.add(temporary)
    try:
        yield temporary
        # mkstemp makes files that only their owner can read; outputs get the usual permissions.
        temporary.chmod(0o666 & ~_umask())
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    except OSError as error:  # such as a full disk, while the block writes
        raise UserError(
            f"cannot write {path}: {error.strerror or error}; choose another place."
        ) from None
    finally:
        temporary.unlink(missing_ok=True)
        _unfinished.discard(temporary)


@contextlib.contextmanager
def filling(folder: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
    """Yields a temporary folder, whose files move into `folder` once all are written.

    Each file replaces one of the same name; other files in `folder` stay.

    Args:
      folder: the folder to fill; created, with its parents, if missing.

    Yields:
      The temporary folder.

    Raises:
      UserError: the folder cannot be created or written to.
    """
    folder = pathlib.Path(folder)
    new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        temporary = pathlib.Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder))
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}.") from None
    _unfinished.add(temporary)
    try:
        yield temporary
        files = sorted(temporary.iterdir())
        for file in files:  # before any file moves, so that an error changes nothing
            if (folder / file.name).is_dir():
                raise UserError(f"cannot write {folder / file.name}: it is a folder; move it away.")
        for file in files:
            file.replace(folder / file.name)
    except OSError as error:  # such as a full disk, while the block writes
        raise UserError(f"cannot write to {folder}: {error.strerror or error}.") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        _unfinished.discard(temporary)
        if new and not any(folder.iterdir()):
            folder.rmdir()


def append_line(path: str | os.PathLike[str], line: str) -> None:
    """Appends a line to a file in one write, and waits until it is on disk.

    Several processes may append at once. If a killed process left an unfinished last line, a line
    break is added first, so that the new line stands alone.

    Args:
      path: the file; created if missing.
      line: without its line break.

    Raises:
      OSError: the line cannot be written, or only in part.
    """
    with naming(path), open(path, "a+b", buffering=0) as file:
        data = line.encode() + b"\n"
        if file.seek(0, os.SEEK_END) and _last_byte(file) != b"\n":
            data = b"\n" + data
        while data:  # a full disk may accept only a part
            data = data[file.write(data) :]
        os.fsync(file.fileno())


def read_regular(path: str | os.PathLike[str], most: int | None = None) -> bytes:
    """Reads a regular file; a pipe or a device might never end.

    Args:
      path: the file.
      most: largest size in bytes, or `None` for any.

    Raises:
      UserError: not a regular file, or larger than `most`.
      OSError: it is missing, a folder, or cannot be read.
    """
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
        raise UserError(f"{path} must be a regular file, got a pipe or a device.")
    if most is not None and status.st_size > most:
        raise UserError(f"{path} must have ≤ {most:,} bytes, got {status.st_size:,}.")
    return pathlib.Path(path).read_bytes()


@contextlib.contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Adds the file's name to any `OSError` raised inside, since a write's has none."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, os.fspath(path)) from None


def _last_byte(file: io.FileIO) -> bytes:
    """The last byte of a non-empty file."""
    file.seek(-1, os.SEEK_END)
    return file.read(1)


def _umask() -> int:
    """The process's umask, which can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
