"""Files on disk or in a bucket: atomic writes, appended lines, and bounded reads."""

import contextlib
import errno
import io
import os
import pathlib
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple

from rnngen_jax import paths
from rnngen_jax.errors import UserError
from rnngen_jax.paths import Path

_KINDS = {
    stat.S_IFREG: "a file",
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
UPLOAD_SECONDS = 30.0  # least time between two uploads of a growing file
_UPLOAD_SHARE = 0.02  # most of the time that goes into them
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
    if paths.is_remote(path):
        found = paths.reached(path)
        with paths.answering(found):
            kind = "folder" if found.is_dir() else "file" if found.exists() else None
        if kind is None:
            raise UserError(f"{where}: there is no such {name}; {hint}.")
        if kind != name:
            raise UserError(f"{where}: is a {kind}, not a {name}; {hint}.")
        return
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
    path = paths.of(path)
    if paths.is_remote(path):
        with _uploading(path) as temporary:
            yield temporary / path.name
            _put(path, (temporary / path.name).read_bytes())
        return
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
    folder = paths.of(folder)
    if paths.is_remote(folder):
        with _uploading(folder) as temporary:
            yield temporary
            for file in sorted(temporary.iterdir()):
                _put(folder / file.name, file.read_bytes())
        return
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

    Several processes may append at once, but for a bucket, where the file is written anew: of two
    at the same moment, one is lost. If a killed process left an unfinished last line, a line
    break is added first, so that the new line stands alone.

    Args:
      path: the file; created if missing.
      line: without its line break.

    Raises:
      OSError: the line cannot be written, or only in part.
    """
    path = paths.of(path)
    if paths.is_remote(path):
        try:
            before = read_regular(path)
        except FileNotFoundError:
            before = b""
        gap = b"" if before.endswith(b"\n") or not before else b"\n"
        return _put(path, before + gap + line.encode() + b"\n")
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
    path = paths.of(path)
    if paths.is_remote(path):
        with paths.answering(path):
            content = path.read_bytes()
        if most is not None and len(content) > most:
            raise UserError(f"{path} must have ≤ {most:,} bytes, got {len(content):,}.")
        return content
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
        raise UserError(f"{path} must be a regular file, got a pipe or a device.")
    if most is not None and status.st_size > most:
        raise UserError(f"{path} must have ≤ {most:,} bytes, got {status.st_size:,}.")
    return path.read_bytes()


@contextlib.contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """A file to be read; one in a bucket is held in memory."""
    if paths.is_remote(path):
        yield io.BytesIO(read_regular(path))
    else:
        with open(path, "rb") as file:
            yield file


def move(folder: Path, target: Path) -> None:
    """Renames a folder. In a bucket its objects are copied first, and deleted when all are there.

    Args:
      folder: a folder of files and folders.
      target: its new name, which does not exist.
    """
    if not paths.is_remote(folder):
        folder.rename(target)
        return
    with paths.answering(folder):
        for file in tree(folder):
            _put(target / os.path.relpath(file, folder), file.read_bytes())
        folder.rmtree()


def tree(folder: Path) -> list[Path]:
    """All objects below a folder in a bucket."""
    found = []
    for entry in folder.iterdir():
        found += tree(entry) if entry.is_dir() else [entry]
    return found


def upload(folder: pathlib.Path, target: Path, last: str) -> None:
    """Copies a local folder into a bucket; the file of the name `last` goes last.

    Raises:
      OSError: it cannot be written.
    """
    found = sorted(file for file in folder.rglob("*") if file.is_file())
    for file in sorted(found, key=lambda file: file.name == last):
        _put(target / os.path.relpath(file, folder), file.read_bytes())


class Growing(NamedTuple):
    """A file that is added to; made by `growing`.

    Attributes:
      local: where to append: the file itself, or for one in a bucket its copy on disk.
      sync: `sync(now)` uploads the copy if it has grown, without `now` only once in a while.
      close: uploads and removes the copy.
    """

    local: pathlib.Path
    sync: Callable[[bool], None]
    close: Callable[[], None]


def growing(path: Path) -> Growing:
    """A file to append to, wherever it is; in a bucket, which cannot append, by whole uploads.

    They are at least `UPLOAD_SECONDS` apart, and further the longer they take. What a killed
    process has not uploaded is lost.

    Args:
      path: the file; goes on from its content if it exists.

    Raises:
      OSError: it cannot be read. `sync` raises it, too, if it cannot be written.
    """
    if not paths.is_remote(path):
        return Growing(path, lambda now: None, lambda: None)
    folder = _temporary()
    local = folder / path.name
    with contextlib.suppress(FileNotFoundError):
        local.write_bytes(read_regular(path))
    sent = local.stat().st_size if local.exists() else -1
    due = 0.0

    def sync(now: bool) -> None:
        nonlocal sent, due
        if not local.exists() or local.stat().st_size == sent:
            return
        begin = time.monotonic()
        if not now and begin < due:
            return
        content = local.read_bytes()
        _put(path, content)
        sent, end = len(content), time.monotonic()
        due = end + max(UPLOAD_SECONDS, (end - begin) / _UPLOAD_SHARE)

    def close() -> None:
        try:
            sync(True)
        finally:
            _remove(folder)

    return Growing(local, sync, close)


@contextlib.contextmanager
def _uploading(path: Path) -> Iterator[pathlib.Path]:
    """A temporary local folder, for what is then uploaded to `path`."""
    folder = _temporary()
    try:
        yield folder
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror or error}; choose another place."
        ) from None
    finally:
        _remove(folder)


def _put(path: Path, content: bytes) -> None:
    """Writes one object, which appears whole; raises an `OSError` if it cannot be written."""
    try:
        with paths.answering(path):
            path.write_bytes(content)
    except FileNotFoundError:
        raise OSError(errno.ENOENT, "there is no such bucket", os.fspath(path)) from None


def _temporary() -> pathlib.Path:
    """A new local folder, which is removed even if the process is ended by a second signal."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="rnngen."))
    _unfinished.add(folder)
    return folder


def _remove(folder: pathlib.Path) -> None:
    """Removes a folder of `_temporary`."""
    shutil.rmtree(folder, ignore_errors=True)
    _unfinished.discard(folder)


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
