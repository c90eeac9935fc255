"""Data in a bucket are those of a folder, by random access, for every host its own part."""

import jax
import numpy as np
import pytest

from rnngen_jax import continuing, experiment
from rnngen_jax.data import load
from rnngen_jax.data import prepare as preparing
from rnngen_jax.data.base import DataConfig
from rnngen_jax.data.feed import make_feed
from rnngen_jax.data.prepare import prepare
from rnngen_jax.errors import UserError

HOSTS = 8


def assert_same(one, other):
    assert one.spec == other.spec
    for name, split in one.splits.items():
        every = np.arange(split.num)
        assert split.num == other.splits[name].num
        for a, b in zip(split.read(every), other.splits[name].read(every), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.fixture
def digits(store):
    """The digits as ArrayRecord files in the bucket."""
    made = prepare(DataConfig(), "my_digits", f"{store.url}/data")
    assert str(made) == f"{store.url}/data/my_digits"
    return str(made)


def test_prepared_data_are_read_from_a_bucket(store, digits, monkeypatch):
    names = store.names(store.bucket)
    assert all(name.startswith("data/my_digits/1.0.0/") for name in names)
    for argument in (digits, f"{digits}/1.0.0"):
        assert_same(load(DataConfig()), load(DataConfig(name=f"tfds:{argument}")))
    monkeypatch.setenv("TFDS_DATA_DIR", f"{store.url}/data")
    assert_same(load(DataConfig()), load(DataConfig(name="tfds:my_digits")))
    with pytest.raises(UserError, match=r"my_digits: exists already"):
        prepare(DataConfig(), "my_digits", f"{store.url}/data")


def test_images_are_read_one_by_one_not_as_whole_files(store, digits):
    split = load(DataConfig(name=f"tfds:{digits}")).splits["train"]
    del store.requests[:]
    split.read(np.array([3, 700]))
    media = [path for _, path in store.requests if "alt=media" in path]
    assert media
    assert all("array_record" in path for path in media)


def test_a_data_set_that_is_uploaded_only_in_part_is_none(store, digits):
    del store.buckets[store.bucket]["data/my_digits/1.0.0/dataset_info.json"]
    with pytest.raises(UserError, match="holds no prepared data set"):
        load(DataConfig(name=f"tfds:{digits}"))


def test_the_description_is_uploaded_last(store, monkeypatch):
    """Until it is there, the data set counts as none."""
    order, put = [], store.put

    def noted(bucket, name, *rest):
        order.append(name)
        return put(bucket, name, *rest)

    monkeypatch.setattr(store, "put", noted)
    prepare(DataConfig(), "my_digits", f"{store.url}/data")
    assert order[-1].endswith("/dataset_info.json")
    assert len(order) == len(set(order)) > 4
    assert preparing.VERSION in order[-1]


def test_an_npz_and_what_only_a_folder_can_be(store, tmp_path):
    images = np.arange(20 * 12, dtype=np.uint8).reshape(20, 4, 3)
    np.savez(tmp_path / "x.npz", image=images)
    store.put(store.bucket, "x.npz", (tmp_path / "x.npz").read_bytes())
    assert_same(
        load(DataConfig(name=f"npz:{tmp_path}/x.npz")),
        load(DataConfig(name=f"npz:{store.url}/x.npz")),
    )
    with pytest.raises(UserError, match="single images are read from a local folder only"):
        load(DataConfig(name=f"folder:{store.url}/images"))
    with pytest.raises(UserError, match="gs://no-such: there is no such bucket"):
        load(DataConfig(name="npz:gs://no-such/x.npz"))


def test_the_same_data_by_another_spelling_do_not_stop_a_run(store, monkeypatch):
    def of(name):
        config = experiment.default("pixel_rnn")
        config.data.name = name
        return experiment.check(config)

    one = of("tfds:gs://bucket/data/digits")
    assert continuing.difference(one, of("tfds:gs://bucket//data/./digits/")) == []
    assert continuing.difference(one, of("tfds:gs://bucket/data/other")) != []


def test_in_an_epoch_no_image_is_of_two_hosts():
    split = load(DataConfig()).splits["train"]
    chunks = make_feed(split, 16, 5, "stream").chunks
    calls = [(0, 40), (40, 81)]  # 81 batches of 16 are all but one of the 1,297 images
    taken = [
        {int(n) for chunk in chunks(calls, host, HOSTS) for n in chunk["index"].reshape(-1)}
        for host in range(HOSTS)
    ]
    assert [len(mine) for mine in taken] == [81 * 2] * HOSTS
    assert len(set.union(*taken)) == 81 * 16


def parts(split, placement, calls, seeds=1):
    """What each host gets, and one host alone."""
    feed = make_feed(split, 16, 5, placement, seeds)
    hosts = [list(feed.chunks(calls, host, HOSTS)) for host in range(HOSTS)]
    return feed, hosts, list(feed.chunks(calls))


@pytest.mark.parametrize("seeds", [1, 2])
@pytest.mark.parametrize("placement", ["device", "stream"])
@pytest.mark.parametrize("source", ["bucket", "memory"])
def test_eight_hosts_share_the_batches_of_one(request, placement, source, seeds):
    """Their parts, in the order of the hosts, are the batches; no image is read by two of them."""
    name = "digits"
    if source == "bucket":
        name = f"tfds:{request.getfixturevalue('digits')}"
    split = load(DataConfig(name=name)).splits["train"]
    reads = []

    def read(index):
        reads.append(len(index))
        return split.read(index)

    watched = split._replace(read=read)
    calls = [(78, 81), (81, 85)]  # 1,297 images: the second epoch begins within them
    feed, hosts, alone = parts(watched, placement, calls, seeds)
    for call, whole in enumerate(alone):
        mine = [host[call] for host in hosts]
        for key, values in whole.items():
            axis = 1 if seeds == 1 else 2
            joined = np.concatenate([part[key] for part in mine], axis=axis)
            np.testing.assert_array_equal(joined, values)
            assert all(part[key].shape[axis] == 16 // HOSTS for part in mine)
    images, labels = load(DataConfig()).splits["train"].read(alone[0]["index"].reshape(-1))
    if placement == "stream":
        assert feed.resident is None
        streamed = sum(count for count in reads if count > 1)
        assert streamed == 2 * 7 * 16 * seeds, "each image once by its host, and once by the one"
        got = alone[0]["image"].reshape(images.shape)
        np.testing.assert_array_equal(alone[0]["label"].reshape(-1), labels)
    else:
        got = jax.device_get(feed.resident["image"])[alone[0]["index"].reshape(-1)]
    np.testing.assert_array_equal(got, images)
