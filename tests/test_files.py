import concurrent.futures
import errno
import io
import os

import pytest

from rnngen_jax.errors import UserError
from rnngen_jax.files import (
    append_line,
    filling,
    naming,
    read_regular,
    replacing,
    require_file,
    require_folder,
)


def test_replacing_writes_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "a.txt"
    with replacing(path) as temporary:
        temporary.write_text("one")
        assert not path.exists()
        assert temporary.parent == path.parent
        assert temporary.suffix == ".txt"
    assert path.read_text() == "one"
    with pytest.raises(ZeroDivisionError), replacing(path) as temporary:
        temporary.write_text(f"{1 / 0}")
    assert path.read_text() == "one"
    assert os.listdir(path.parent) == ["a.txt"]


def test_replacing_gives_the_usual_rights(tmp_path):
    (tmp_path / "plain").write_text("")
    with replacing(tmp_path / "a") as temporary:
        temporary.write_text("")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_replacing_refuses_what_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "file" / "a.txt", tmp_path / "folder"):
        with pytest.raises(UserError, match="cannot write"), replacing(path) as temporary:
            temporary.write_text("x")
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


def test_filling_moves_files_at_the_end(tmp_path):
    folder = tmp_path / "new"
    with filling(folder) as temporary:
        (temporary / "a").write_text("one")
        assert not (folder / "a").exists()
    (folder / "b").write_text("other")
    with pytest.raises(ZeroDivisionError), filling(folder) as temporary:
        (temporary / "a").write_text(f"{1 / 0}")
    assert sorted(os.listdir(folder)) == ["a", "b"]
    assert (folder / "a").read_text() == "one"
    with pytest.raises(ZeroDivisionError), filling(tmp_path / "never"):
        raise ZeroDivisionError
    assert not (tmp_path / "never").exists()


def test_filling_leaves_all_as_it_was_where_a_folder_is_in_the_way(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "a").write_text("old")

    def fill():
        with filling(tmp_path) as temporary:
            (temporary / "a").write_text("new")
            (temporary / "b").write_text("new")

    with pytest.raises(UserError, match="b: it is a folder"):
        fill()
    assert (tmp_path / "a").read_text() == "old"
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


def test_a_disk_that_is_full_is_one_line(tmp_path):
    full = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(UserError, match="No space left"), replacing(tmp_path / "a"):
        raise full
    with pytest.raises(UserError, match="No space left"), filling(tmp_path):
        raise full
    assert os.listdir(tmp_path) == []


def test_what_is_no_file_is_named_and_never_opened(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "gone").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe")
    require_file(tmp_path / "file", "give one")
    require_file(str(tmp_path / "link"), "give one")
    require_folder(tmp_path, "give one")
    for path, said in {
        tmp_path: "is a folder, not a file",
        tmp_path / "pipe": "is a named pipe, not a file",
        tmp_path / "none": "there is no such file",
        tmp_path / "file" / "none": "there is no such file",
        tmp_path / "loop": "is a link that leads nowhere",
        tmp_path / "gone": "is a link that leads nowhere",
        tmp_path / ("a" * 300): "cannot be read: File name too long",
    }.items():
        with pytest.raises(UserError) as caught:
            require_file(path, "give one")
        hint = "" if "cannot" in said else "; give one"
        assert str(caught.value) == f"{path}: {said}{hint}."
    with pytest.raises(UserError, match=r"^--input=x: is a device, not a file; give one\.$"):
        require_file("/dev/null", "give one", "--input=x")
    with pytest.raises(UserError, match=r"file: is a file, not a folder; give one\.$"):
        require_folder(tmp_path / "file", "give one")
    with pytest.raises(UserError, match=r"none: there is no such folder; give one\.$"):
        require_folder(tmp_path / "none", "give one")


def test_a_line_is_appended_after_a_torn_one(tmp_path):
    path = tmp_path / "lines"
    append_line(path, "one")
    append_line(path, "two")
    assert path.read_bytes() == b"one\ntwo\n"
    path.write_bytes(b"one\ntw")  # a process ended here
    append_line(path, "three")
    assert path.read_bytes() == b"one\ntw\nthree\n"


def test_lines_that_are_appended_at_once_are_all_whole(tmp_path):
    path = tmp_path / "lines"
    lines = [str(number) * 5000 for number in range(10)]
    with concurrent.futures.ThreadPoolExecutor(10) as pool:
        list(pool.map(lambda line: append_line(path, line), lines))
    assert sorted(filter(None, path.read_text().splitlines())) == lines


def test_a_line_that_is_written_in_parts_is_written_to_its_end(tmp_path, monkeypatch):
    whole = b"a line\n"
    monkeypatch.setattr("builtins.open", lambda *args, **kwargs: Slow(tmp_path / "lines", "a+b"))
    append_line(tmp_path / "lines", "a line")
    monkeypatch.undo()
    assert (tmp_path / "lines").read_bytes() == whole


class Slow(io.FileIO):
    """A file that takes three bytes at once."""

    def write(self, data):
        return super().write(data[:3])


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is full")
def test_what_cannot_be_appended_to_is_named():
    with pytest.raises(OSError, match="No space left") as error:
        append_line("/dev/full", "a line")
    assert (error.value.errno, error.value.filename) == (errno.ENOSPC, "/dev/full")


def test_naming_keeps_what_has_a_name():
    with pytest.raises(FileNotFoundError) as error, naming("a"), open("none/b"):
        pass
    assert error.value.filename == "none/b"


def test_only_a_regular_file_is_read(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert read_regular(path) == read_regular(path, 5) == b"12345"
    with pytest.raises(UserError, match="must have ≤ 4 bytes, got 5"):
        read_regular(path, 4)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="must be a regular file, got a pipe or a device"):
        read_regular(tmp_path / "pipe")
    with pytest.raises(IsADirectoryError):
        read_regular(tmp_path)
