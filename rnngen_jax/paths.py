"""Paths on disk or in a bucket: the one place that tells them apart.

A local path is a `pathlib.Path`. `gs://BUCKET/NAME` is an `etils.epath.Path`, which Orbax and TFDS
take, with the same methods over Google Cloud Storage through gcsfs. There, an object is written
whole or not at all; nothing is appended or renamed, and folders are parts of objects' names.
"""

import contextlib
import errno
import functools
import importlib.util
import os
import pathlib
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rnngen_jax.errors import UserError

if TYPE_CHECKING:
    from etils import epath

    Path = pathlib.Path | epath.Path
else:
    Path = pathlib.Path  # epath takes time to import, and local paths do without

_URL = re.compile(r"(gs:|[A-Za-z][A-Za-z0-9+.-]+://)")
_IN_BUCKET = re.compile(r"gs://[^/]+(/.*)?")
_LOGIN = "gcloud auth application-default login"


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a URL, such as gs://BUCKET/NAME."""
    return _URL.match(os.fspath(path)) is not None


def of(path: str | os.PathLike[str]) -> Path:
    """The path's object; nothing is opened.

    Raises:
      UserError: a URL of another kind than gs://BUCKET/NAME, or the package gcsfs is missing.
    """
    text = os.fspath(path)
    if not is_remote(text):
        return pathlib.Path(text)
    if not _IN_BUCKET.fullmatch(text):
        raise UserError(f"{text}: a path must be local or gs://BUCKET/NAME.")
    _require_client()
    from etils import epath

    return epath.Path(text.rstrip("/"))


def reached(path: str | os.PathLike[str]) -> Path:
    """As `of`, once the path's bucket, if it is in one, has answered.

    Raises:
      UserError: the bucket does not exist, refuses access or cannot be reached.
    """
    found = of(path)
    if is_remote(found):
        bucket, _, name = os.fspath(found).removeprefix("gs://").partition("/")
        _reach(bucket, name)
    return found


@functools.cache  # once per process is enough; an error is not kept
def _reach(bucket: str, name: str) -> None:
    """Lists at most one object below a name."""
    client = _client()
    try:
        client.call("GET", "b/{}/o", bucket, prefix=name, maxResults=1, json_out=True)
    except FileNotFoundError:
        raise UserError(
            f"gs://{bucket}: there is no such bucket; create it, or check its name."
        ) from None
    except Exception as error:  # of gcsfs, aiohttp, requests or google.auth
        raise UserError(
            f"gs://{bucket} cannot be reached: {reason(error)}. Check the network and your "
            f"credentials ({_LOGIN}, or GOOGLE_APPLICATION_CREDENTIALS)."
        ) from None


def exists(path: Path) -> bool:
    """Whether there is anything of that name, be it a link that leads nowhere."""
    return path.exists() if is_remote(path) else os.path.lexists(path)


def size(path: Path) -> int:
    """Size of a file in bytes."""
    found = path.stat()
    return found.length if is_remote(path) else found.st_size


def absolute(path: Path) -> Path:
    """The absolute path, which Orbax needs; a URL is absolute."""
    return path if is_remote(path) else path.absolute()


def resolved(path: str | os.PathLike[str]) -> str:
    """The normalised path, the same for all its spellings; nothing is opened for a URL."""
    if is_remote(path):
        return "gs://" + os.path.normpath(os.fspath(path).removeprefix("gs://"))
    return os.path.realpath(path)


def create(path: Path, content: bytes) -> bool:
    """Creates an object in a bucket; false, and nothing is changed, if there is one already."""
    try:
        # epath cannot say "only if it does not exist".
        _client().pipe_file(os.fspath(path), content, mode="create")
    except FileExistsError:
        return False
    return True


@contextlib.contextmanager
def answering(path: Path) -> Iterator[None]:
    """Makes any error of a bucket an `OSError` that names the path.

    Clients raise errors of many types. A missing object stays a `FileNotFoundError`.
    """
    try:
        yield
    except (FileNotFoundError, FileExistsError, UserError):
        raise
    except Exception as error:
        if not is_remote(path):
            raise
        raise OSError(errno.EIO, reason(error), os.fspath(path)) from error


def reason(error: BaseException) -> str:
    """Why a bucket refused, in one line."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    # "Forbidden: URL" comes before the reason.
    line = lines[-1] if lines else type(error).__name__
    return line[:200].strip().rstrip(".")


@functools.cache
def _require_client() -> None:
    """Raises a `UserError` unless gcsfs is installed."""
    if importlib.util.find_spec("gcsfs") is None:
        raise UserError("gs:// paths need the package gcsfs: pip install 'rnngen_jax[gcs]'.")
    import fsspec.config

    # TensorStore, and other processes, write objects that gcsfs's memory of listings lacks.
    fsspec.config.conf.setdefault("gcs", {}).setdefault("use_listings_cache", False)


@functools.cache
def _client() -> Any:
    """gcsfs's file system, the instance that epath has, too."""
    import fsspec

    return fsspec.filesystem("gcs", finalize_on_close=True)
