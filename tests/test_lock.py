"""A folder is held by one process at a time, and by no dead one."""

import os
import signal
import subprocess
import sys

import pytest

from rnngen_jax import lock
from rnngen_jax.errors import UserError

HOLDER = """
import sys, time
from rnngen_jax import lock
with lock.exclusive(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.readline()
"""


def holder(folder):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_process_is_refused_and_changes_nothing(tmp_path):
    process = holder(tmp_path / "run")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with (
        pytest.raises(UserError, match=rf"in use by process {process.pid} on .*another --workdir"),
        lock.exclusive(tmp_path / "run"),
    ):
        pass
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    process.communicate("end\n", timeout=60)
    assert not (tmp_path / "run").exists()  # it made the folder, and left nothing in it
    with lock.exclusive(tmp_path / "run"):
        (tmp_path / "run" / "kept").touch()
    assert os.listdir(tmp_path / "run") == ["kept"]


def test_a_killed_process_holds_nothing(tmp_path):
    process = holder(tmp_path)
    process.send_signal(signal.SIGKILL)
    process.wait(60)
    assert (tmp_path / lock.NAME).exists()
    with lock.exclusive(tmp_path):
        pass
    assert not (tmp_path / lock.NAME).exists()


def test_the_holder_may_go_between_opening_and_locking(tmp_path, monkeypatch):
    """Then the file that was opened is not the folder's any more, and holding it holds nothing."""
    path, flock, taken = tmp_path / lock.NAME, lock.fcntl.flock, []

    def late(handle, how):
        if not taken:
            path.unlink()  # what the last holder does as it goes
        taken.append(handle)
        return flock(handle, how)

    monkeypatch.setattr(lock.fcntl, "flock", late)
    with lock.exclusive(tmp_path):
        assert len(taken) == 2
        with pytest.raises(UserError, match="in use"), lock.exclusive(tmp_path):
            pass


def test_a_lock_file_of_any_content(tmp_path):
    for content in (b"", b"[]", b"\xff\xfe", b'{"process": "x"}'):
        (tmp_path / lock.NAME).write_bytes(content)
        assert lock._holder(tmp_path / lock.NAME) == " by another process"
        with lock.exclusive(tmp_path):
            pass


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("kept")
    with (
        pytest.raises(UserError, match="cannot be locked: Not a directory"),
        lock.exclusive(tmp_path / "file" / "run"),
    ):
        pass
    assert (tmp_path / "file").read_text() == "kept"
