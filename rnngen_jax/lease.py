"""The lock of a folder in a bucket: an object that its holder renews, as a bucket has no locks.

The object is created only if it is not there, which the bucket decides. It says who holds it and
has a number that rises with every renewal. One whose number stands still for `PATIENCE_SECONDS` is
taken to be left by a process that was killed, and is taken over; if its process was on this machine
and is gone, at once. So a process that was cut off or asleep for longer than that may find the
folder taken when it comes back. It then says so, and two runs may have written there.
"""

import contextlib
import json
import os
import pathlib
import secrets
import threading
import time
from collections.abc import Iterator
from platform import node
from typing import Any

from rnngen_jax import paths
from rnngen_jax.errors import UserError
from rnngen_jax.paths import Path

RENEWAL_SECONDS = 10.0
PATIENCE_SECONDS = 60.0
_LOOK_SECONDS = 2.0


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Holds the lock inside the `with` block.

    Args:
      path: the object, `gs://BUCKET/RUN/.lock`.

    Raises:
      UserError: another process, named in the message, holds it.
      OSError: the bucket cannot be read or written.
    """
    mine = {
        "process": os.getpid(),
        "host": node(),
        "machine": _machine(),
        "holder": secrets.token_hex(8),
        "renewals": 0,
    }
    with paths.answering(path):
        while not paths.create(path, json.dumps(mine).encode()):
            _await(path)
    ended = threading.Event()
    renewing = threading.Thread(target=_renew, args=(path, mine, ended), daemon=True)
    renewing.start()
    try:
        yield
    finally:
        ended.set()
        renewing.join()
        with contextlib.suppress(OSError), paths.answering(path):
            if _is(_content(path), mine):
                path.unlink()


def _await(path: Path) -> None:
    """Waits until the lock is free or given up by its holder, and removes it then.

    Raises:
      UserError: its holder has renewed it.
    """
    first = _content(path)
    if first is None:
        return
    if not _is_gone(first):
        print(f"{path.parent}: waiting{_holder(first)} to release or renew its lock.", flush=True)
        end = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < end:
            time.sleep(min(_LOOK_SECONDS, PATIENCE_SECONDS / 10))
            now = _content(path)
            if now is None:
                return
            if now != first:
                raise UserError(
                    f"{path.parent} is in use{_holder(now, 'by')}; wait for it to end, or give "
                    "another --workdir."
                )
    path.unlink(missing_ok=True)


def _renew(path: Path, mine: dict[str, Any], ended: threading.Event) -> None:
    """Renews the lock until it has ended, or is another's."""
    while not ended.wait(RENEWAL_SECONDS):
        with contextlib.suppress(OSError), paths.answering(path):  # the next may succeed
            found = _content(path)
            if found is not None and not _is(found, mine):
                print(
                    f"warning: {path.parent} was taken over{_holder(found, 'by')}, as this process "
                    "did not renew its lock in time; end one of them.",
                    flush=True,
                )
                return
            mine["renewals"] += 1
            path.write_bytes(json.dumps(mine).encode())


def _content(path: Path) -> dict[str, Any] | None:
    """What the lock says; `None` if there is none."""
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {}


def _is(found: dict[str, Any] | None, mine: dict[str, Any]) -> bool:
    return found is not None and found.get("holder") == mine["holder"]


def _is_gone(found: dict[str, Any]) -> bool:
    """Whether the holder was a process of this machine that has ended."""
    process = found.get("process")
    if not _machine() or found.get("machine") != _machine() or not isinstance(process, int):
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass
    return False


def _machine() -> str:
    """Names what process numbers belong to: this boot of the kernel and this container, or ""."""
    try:
        boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _holder(found: dict[str, Any], word: str = "for") -> str:
    """Describes the holder, as far as the lock tells."""
    if "process" not in found:
        return f" {word} another process"
    return f" {word} process {found['process']} on {str(found.get('host'))[:80]}"
