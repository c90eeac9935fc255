"""Files on disk: written whole or not at all, appended to line by line, read within bounds."""

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
_unfinished: set[pathlib.Path] = set()  # files and folders that have yet to get their names


def discard_unfinished() -> None:
    """Removes what is being written, for a process that ends without leaving its `with` blocks."""
    for path in tuple(_unfinished):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def require_file(path: str | os.PathLike[str], hint: str, where: str | None = None) -> None:
    """Raises a `UserError` unless `path` is a regular file; opening anything else may never return.

    Args:
      path: links are followed.
      hint: what to do, such as "give an npz file".
      where: what the message calls it, such as "--input=x.npz"; `path` by default.
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
    """Gives a temporary name beside `path` to write to; the file takes its place when complete.

    An error inside the `with` block leaves `path` as it was and removes the temporary file.

    Args:
      path: the file to write or to replace; missing parent folders are made.

    Yields:
      The temporary name, with the ending of `path`.

    Raises:
      UserError: the folder cannot be made or written to, or `path` is a folder.
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
        # mkstemp makes files that only their owner can read; outputs get the usual rights.
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
    """Gives a temporary folder beside `folder`; its files move into `folder` when all are written.

    Each file replaces one of the same name; other files in `folder` stay.

    Args:
      folder: the folder to fill; made, with its parents, if missing.

    Yields:
      The temporary folder.

    Raises:
      UserError: the folder cannot be made or written to.
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
        for file in files:  # look first, so that a folder of that name leaves all as it was
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
    """Appends a line in one piece, made if missing, and waits until it is on disk.

    Several processes may append at once. A last line that the end of a process has torn is closed
    first, so that the new one is not a part of it.

    Args:
      path: the file.
      line: without its line break.

    Raises:
      OSError: it cannot be written, or not to its end.
    """
    with naming(path), open(path, "a+b", buffering=0) as file:
        data = line.encode() + b"\n"
        if file.seek(0, os.SEEK_END) and _last_byte(file) != b"\n":
            data = b"\n" + data
        while data:  # a disk that is filling up takes a part, and refuses the rest
            data = data[file.write(data) :]
        os.fsync(file.fileno())


def read_regular(path: str | os.PathLike[str], most: int | None = None) -> bytes:
    """The content of a regular file; a pipe or a device might never end.

    Args:
      path: the file.
      most: bytes that it may have.

    Raises:
      UserError: it is no regular file, or larger.
      OSError: it is missing, a folder, or cannot be read.
    """
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
        raise UserError(f"{path} is a pipe or a device; a regular file has to be there.")
    if most is not None and status.st_size > most:
        raise UserError(f"{path} has {status.st_size:,} bytes; allowed: up to {most:,}.")
    return pathlib.Path(path).read_bytes()


@contextlib.contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Names the file in what the operating system refuses inside, as a write does not."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, os.fspath(path)) from None


def _last_byte(file: io.FileIO) -> bytes:
    """The last byte of a file that has one."""
    file.seek(-1, os.SEEK_END)
    return file.read(1)


def _umask() -> int:
    """The process's umask, which can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
