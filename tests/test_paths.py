"""Paths and files in a bucket: objects that are whole or absent; local paths are pathlib's."""

import asyncio
import importlib.util
import pathlib
import socket
import types

import pytest

from rnngen_jax import files, paths
from rnngen_jax.errors import UserError
from rnngen_jax.training import sinks


def content(store, name):
    return store.buckets[store.bucket][name][0]


@pytest.mark.parametrize("path", ["a/b", "/a", ".", "a:b/c", "gsx/a", "c:/x"])
def test_a_local_path_is_pathlib_s(path):
    assert type(paths.of(path)) is type(pathlib.Path(path))
    assert paths.of(path) == pathlib.Path(path)
    assert not paths.is_remote(path)


def test_a_url_is_never_a_local_path(store):
    found = paths.of("gs://bucket/a/b/")
    assert (str(found), found.name, str(found / "c")) == (
        "gs://bucket/a/b",
        "b",
        "gs://bucket/a/b/c",
    )
    assert paths.of(found) == found
    for url in ("gs:/bucket/a", "gs:", "gs:///a", "s3://b/a", "https://host/a"):
        with pytest.raises(UserError, match=r"a path must be local or gs://BUCKET/NAME\.$"):
            paths.of(url)
    assert paths.resolved("gs://bucket//a/./b/../c/") == "gs://bucket/a/c"


def test_without_the_package(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "gcsfs" else find(name)
    )
    paths._require_client.cache_clear()
    try:
        with pytest.raises(UserError, match=r"^gs:// paths need the package gcsfs: pip install"):
            paths.of("gs://bucket/run")
    finally:
        paths._require_client.cache_clear()


def test_a_machine_without_a_way_to_the_bucket(store, monkeypatch):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")

    async def at_once(_):
        """Instead of half a minute between the attempts."""

    quick = types.SimpleNamespace(**{**vars(asyncio), "sleep": at_once})
    monkeypatch.setattr("gcsfs.retry.asyncio", quick)
    with pytest.raises(UserError, match=r"^gs://far cannot be reached: .*onnect.* Check the netw"):
        paths.reached("gs://far/run")


def test_a_file_is_written_whole_or_not_at_all(store):
    url = f"{store.url}/a/x.txt"
    with files.replacing(url) as temporary:
        temporary.write_text("one")
        assert temporary.suffix == ".txt"
        assert store.names(store.bucket) == []
    assert content(store, "a/x.txt") == b"one"

    def fail():
        with files.replacing(url) as temporary:
            temporary.write_text("two")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert content(store, "a/x.txt") == b"one"
    assert not temporary.parent.exists()
    with (
        pytest.raises(UserError, match="cannot write gs://gone/x: there is no such bucket"),
        files.replacing("gs://gone/x") as temporary,
    ):
        temporary.write_text("two")
    with files.filling(f"{store.url}/many") as folder:
        for name in "ab":
            (folder / name).write_text(name)
        assert store.names(store.bucket) == ["a/x.txt"]
    assert store.names(store.bucket) == ["a/x.txt", "many/a", "many/b"]


def test_lines_are_appended_by_writing_anew(store):
    path = paths.of(f"{store.url}/lines")
    files.append_line(path, "one")
    files.append_line(path, "two")
    assert files.read_regular(path) == b"one\ntwo\n"
    path.write_bytes(b"one\nunfin")
    files.append_line(path, "three")
    assert files.read_regular(path) == b"one\nunfin\nthree\n"
    with pytest.raises(UserError, match=r"must have ≤ 3 bytes, got 16"):
        files.read_regular(path, 3)
    with pytest.raises(FileNotFoundError):
        files.read_regular(paths.of(f"{store.url}/none"))


def test_kinds(store):
    paths.of(f"{store.url}/folder/file").write_bytes(b"")
    files.require_file(f"{store.url}/folder/file", "x")
    files.require_folder(f"{store.url}/folder", "x")
    with pytest.raises(UserError, match="is a folder, not a file; x"):
        files.require_file(f"{store.url}/folder", "x")
    with pytest.raises(UserError, match="is a file, not a folder; x"):
        files.require_folder(f"{store.url}/folder/file", "x")
    with pytest.raises(UserError, match="there is no such file; x"):
        files.require_file(f"{store.url}/no", "x")


def test_a_growing_file_is_uploaded_once_in_a_while(store, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(files.time, "monotonic", lambda: now[0])
    path = paths.of(f"{store.url}/grows")
    path.write_bytes(b"0\n")
    file = files.growing(path)
    assert file.local.read_bytes() == b"0\n"

    def add(line):
        files.append_line(file.local, line)
        file.sync(False)
        return content(store, "grows")

    assert add("1") == b"0\n1\n"
    now[0] += files.UPLOAD_SECONDS / 2
    assert add("2") == b"0\n1\n", "too soon"
    now[0] += files.UPLOAD_SECONDS / 2
    assert add("3") == b"0\n1\n2\n3\n"
    add("4")
    file.sync(True)
    assert content(store, "grows") == b"0\n1\n2\n3\n4\n"
    generation = store.buckets[store.bucket]["grows"][1]
    file.sync(True)
    assert store.buckets[store.bucket]["grows"][1] == generation, "nothing new"
    add("5")
    file.close()
    assert content(store, "grows").endswith(b"5\n")
    assert not file.local.parent.exists()


def test_uploads_that_take_long_are_further_apart(store, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(files.time, "monotonic", lambda: now[0])
    put = store.put

    def slow(*given):
        now[0] += 10
        return put(*given)

    monkeypatch.setattr(store, "put", slow)
    file = files.growing(paths.of(f"{store.url}/grows"))
    for _ in range(2):
        files.append_line(file.local, "x")
        file.sync(False)
        now[0] += 400  # 500 s belong to 10 s of uploading
    assert content(store, "grows") == b"x\n"
    now[0] += 100
    file.sync(False)
    assert content(store, "grows") == b"x\nx\n"


def test_a_folder_is_moved(store):
    for name in ("a/b/1", "a/2", "ab"):
        paths.of(f"{store.url}/{name}").write_bytes(name.encode())
    files.move(paths.of(f"{store.url}/a"), paths.of(f"{store.url}/c"))
    assert store.names(store.bucket) == ["ab", "c/2", "c/b/1"]
    assert content(store, "c/b/1") == b"a/b/1"


def test_metrics_go_on_in_a_bucket(store):
    path = f"{store.url}/run/metrics.jsonl"
    sink = sinks.jsonl(path)
    for step in (1, 2, 3):
        sink.write(step, "train", {"loss": 1.0})
    sink.close()
    sinks.truncate_after(path, 2)
    assert [line["step"] for line in sinks.read(path)] == [1, 2]
    assert (
        sinks.shortfall(path, 3)
        == f"{path} ends at step 2: the lines from there to step 3 are gone"
    )
    sink = sinks.jsonl(path)
    sink.write(4, "train", {"loss": 1.0})
    sink.flush()
    assert [line["step"] for line in sinks.read(path)] == [1, 2, 4]
    with pytest.raises(UserError, match=r"there is no gs://.*/none"):
        sinks.read(f"{store.url}/none")
