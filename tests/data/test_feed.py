"""Batches are a pure function of (seed, step), the same from the device and from a stream."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rnngen_jax.data import feed as feeds
from rnngen_jax.data import load
from rnngen_jax.data.base import DataConfig
from rnngen_jax.data.feed import fetch, make_feed, order
from rnngen_jax.data.source import array_split
from rnngen_jax.errors import UserError


def split_of(num):
    images = np.arange(num * 6, dtype=np.int64).astype(np.uint8).reshape(num, 3, 2, 1)
    return array_split(images, np.arange(num, dtype=np.int32))


@pytest.mark.parametrize("seed", [0, 7, -1])
def test_every_epoch_is_its_own_permutation(seed):
    epochs = [order(seed, 50 * epoch, 50, 50) for epoch in range(4)]
    for epoch in epochs:
        assert epoch.dtype == np.int32
        np.testing.assert_array_equal(np.sort(epoch), np.arange(50))
    assert len({epoch.tobytes() for epoch in epochs}) == 4
    assert order(seed, 0, 50, 50).tolist() != order(seed + 1, 0, 50, 50).tolist()


def test_order_does_not_depend_on_how_it_is_cut():
    whole = order(3, 0, 100, 7)
    for size in (1, 3, 7, 8, 64):
        pieces = [order(3, s, min(size, 100 - s), 7) for s in range(0, 100, size)]
        np.testing.assert_array_equal(np.concatenate(pieces), whole)
    # 64-bit places: the stream does not end where int32 would.
    late = order(3, 7 * 10**9, 7, 7)
    np.testing.assert_array_equal(np.sort(late), np.arange(7))


def batches(feed, calls):
    """The batches of all steps of the calls, fetched within one jitted scan a call."""
    resident = feed.resident and jax.tree.map(jnp.asarray, feed.resident)

    @jax.jit
    def run(resident, chunk):
        return jax.lax.scan(lambda _, item: (0, fetch(resident, item)), 0, chunk)[1]

    done = [jax.device_get(run(resident, chunk)) for chunk in feed.chunks(calls)]
    return {name: np.concatenate([d[name] for d in done]) for name in done[0]}


@pytest.mark.parametrize("binarisation", ["none", "static", "threshold"])
def test_both_placements_give_the_same_batches_bit_for_bit(binarisation):
    split = load(DataConfig(binarisation=binarisation)).splits["train"]
    calls = [(40, 43), (43, 44), (44, 60)]  # straddles the end of the first epoch
    device = batches(make_feed(split, 25, 1, "device"), calls)
    stream = batches(make_feed(split, 25, 1, "stream"), calls)
    assert set(device) == set(stream) == {"image", "label", "index"}
    for name in device:
        np.testing.assert_array_equal(device[name], stream[name])
        assert device[name].dtype == stream[name].dtype
    assert device["image"].shape == (20, 25, 8, 8, 1)
    np.testing.assert_array_equal(device["index"].reshape(-1), order(1, 40 * 25, 500, 1297))
    images, labels = split.read(device["index"].reshape(-1))
    np.testing.assert_array_equal(stream["image"].reshape(images.shape), images)
    np.testing.assert_array_equal(stream["label"].reshape(-1), labels)


@pytest.mark.parametrize("placement", ["device", "stream"])
def test_batches_do_not_depend_on_calls_or_processes(placement):
    feed = make_feed(split_of(10), 4, 0, placement)
    whole = next(feed.chunks([(0, 12)]))
    assert whole["index"].shape == (12, 4)
    assert whole["index"].dtype == np.int32
    for calls in ([(0, 1), (1, 12)], [(i, i + 1) for i in range(12)], [(0, 5), (5, 9), (9, 12)]):
        pieces = list(feed.chunks(calls))
        for name in whole:
            np.testing.assert_array_equal(np.concatenate([p[name] for p in pieces]), whole[name])
    halves = [next(feed.chunks([(0, 12)], process, 2)) for process in (0, 1)]
    for name in whole:
        np.testing.assert_array_equal(
            np.concatenate([half[name] for half in halves], axis=1), whole[name]
        )
    resumed = next(feed.chunks([(7, 9)]))
    np.testing.assert_array_equal(resumed["index"], whole["index"][7:9])


@pytest.mark.parametrize("placement", ["device", "stream"])
def test_every_seed_has_the_batches_of_its_seed(placement):
    chunk = next(make_feed(split_of(10), 4, 5, placement, 3).chunks([(2, 8)]))
    for r in range(3):
        of_one = next(make_feed(split_of(10), 4, 5 + r, placement).chunks([(2, 8)]))
        assert chunk.keys() == of_one.keys()
        for name in chunk:
            np.testing.assert_array_equal(chunk[name][:, r], of_one[name])
    parts = make_feed(split_of(10), 4, 5, placement, 3).chunks
    halves = [next(parts([(2, 8)], process, 2)) for process in (0, 1)]
    for name in chunk:
        joined = np.concatenate([half[name] for half in halves], axis=2)
        np.testing.assert_array_equal(joined, chunk[name])


def test_placement_auto_goes_by_size(monkeypatch):
    assert make_feed(split_of(10), 4, 0, "auto").resident is not None
    monkeypatch.setattr(feeds, "DEVICE_BYTES", 60)
    assert make_feed(split_of(10), 4, 0, "auto").resident is None
    assert make_feed(split_of(10), 4, 0, "device").resident is not None


def test_no_calls_give_no_chunks():
    for placement in ("device", "stream"):
        assert list(make_feed(split_of(10), 4, 0, placement).chunks([])) == []


@pytest.mark.parametrize("batch_size", [0, 11])
def test_a_batch_that_does_not_fit_the_split(batch_size):
    with pytest.raises(UserError, match=rf"batch_size must be in \[1, 10\].*got {batch_size}"):
        make_feed(split_of(10), batch_size, 0, "device")


@pytest.mark.parametrize("placement", ["device", "stream"])
def test_a_batch_that_does_not_fit_the_processes(placement):
    feed = make_feed(split_of(10), 4, 0, placement)
    with pytest.raises(UserError, match="batch_size must be a multiple of the 3 processes, got 4"):
        feed.chunks([(0, 1)], 0, 3)


def test_the_stream_reads_ahead_no_further_than_its_threads():
    reads = []
    split = split_of(10)
    watched = split._replace(read=lambda i: (reads.append(len(i)), split.read(i))[1])
    chunks = make_feed(watched, 5, 0, "stream").chunks([(i, i + 1) for i in range(1000)])
    for _ in range(3):
        next(chunks)
    chunks.close()
    assert 3 < len(reads) < 30


ABANDON = """
import threading, time
import numpy as np
from rnngen_jax.data.feed import make_feed
from rnngen_jax.data.base import Split

def read(indices):
    time.sleep(0.05)
    return np.zeros((len(indices), 2, 2, 1), np.uint8), np.zeros(len(indices), np.int32)

chunks = make_feed(Split(8, read), 4, 0, "stream").chunks([(i, i + 1) for i in range(10**5)])
next(chunks)
if {close}:
    chunks.close()
    time.sleep(1)
    left = [t for t in threading.enumerate() if t is not threading.main_thread()]
    assert not [t for t in left if not t.daemon], left
print("done", flush=True)
"""


@pytest.mark.parametrize("close", [True, False], ids=["closed", "abandoned"])
def test_no_thread_keeps_the_interpreter_from_leaving(close):
    script = ABANDON.format(close=close)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")
