"""The lock of a folder in a bucket: one holder, told from one that was killed."""

import json
import os
import threading

import pytest

from rnngen_jax import lease, lock, paths
from rnngen_jax.errors import UserError


@pytest.fixture(autouse=True)
def _soon(monkeypatch):
    monkeypatch.setattr(lease, "RENEWAL_SECONDS", 0.05)
    monkeypatch.setattr(lease, "PATIENCE_SECONDS", 1.0)


def test_one_at_a_time(store):
    with lock.exclusive(f"{store.url}/run"):
        with (
            pytest.raises(UserError, match=rf"run is in use by process {os.getpid()} on .*; wait"),
            lock.exclusive(f"{store.url}/run"),
        ):
            pytest.fail("held twice")
        with lock.exclusive(f"{store.url}/other"):
            pass
        assert store.names(store.bucket) == ["run/.lock"]
    assert store.names(store.bucket) == []
    with lock.exclusive(f"{store.url}/run"):
        pass


@pytest.mark.parametrize("machine", ["another", None])
def test_one_that_was_killed_is_taken_over(store, machine, capsys):
    """At once if its process is known to have ended, otherwise after waiting for a renewal."""
    left = {"process": 2**22 + 1, "host": "h", "machine": machine or lease._machine()}
    store.put(store.bucket, "run/.lock", json.dumps(left).encode())
    with lock.exclusive(f"{store.url}/run"):
        held = json.loads(store.buckets[store.bucket]["run/.lock"][0])
        assert held["process"] == os.getpid()
    assert ("waiting for process 4194305 on h" in capsys.readouterr().out) == bool(machine)
    assert store.names(store.bucket) == []


def test_of_many_that_come_at_once_one_gets_it(store):
    got, refused, together = [], [], threading.Barrier(6)

    def come():
        together.wait()
        try:
            with lock.exclusive(f"{store.url}/run"):
                got.append(1)
                finished.wait(30)
        except UserError:
            refused.append(1)
            if len(refused) == 5:
                finished.set()

    finished = threading.Event()
    threads = [threading.Thread(target=come) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(got), len(refused)) == (1, 5)


def test_one_that_was_taken_over_leaves_the_lock_alone(store, capsys):
    with lock.exclusive(f"{store.url}/run"):
        store.put(store.bucket, "run/.lock", b'{"process": 7, "host": "far", "holder": "x"}')
        for thread in threading.enumerate():
            if thread.name.startswith("Thread") and "_renew" in thread.name:
                thread.join(5)
    assert "was taken over by process 7 on far" in capsys.readouterr().out
    assert store.names(store.bucket) == ["run/.lock"]


def test_creating_only_what_is_not_there(store):
    path = paths.of(f"{store.url}/a")
    assert paths.create(path, b"1")
    assert not paths.create(path, b"2")
    assert path.read_bytes() == b"1"
