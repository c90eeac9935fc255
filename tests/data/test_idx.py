"""IDX folders: small ones written here, and the real MNIST and Fashion-MNIST if present."""

import gzip
import hashlib
import os
import pathlib
import struct

import numpy as np
import pytest

from rnngen_jax.data import load
from rnngen_jax.data.base import DataConfig
from rnngen_jax.data.idx import read_idx
from rnngen_jax.errors import UserError

REAL = pathlib.Path(__file__).parents[3] / "shared" / "data"
IMAGES = "train-images-idx3-ubyte"
LABELS = "train-labels-idx1-ubyte"


def idx(array):
    """The bytes of an IDX file of unsigned bytes."""
    header = b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(np.uint8).tobytes()


def put(folder, name, content, zipped):
    if zipped:
        (folder / f"{name}.gz").write_bytes(gzip.compress(content))
    else:
        (folder / name).write_bytes(content)


@pytest.fixture(params=[False, True], ids=["plain", "gzipped"])
def folder(request, tmp_path):
    """A folder of 12 and 6 images of 3×2 whose pixels tell their number, and three classes."""
    for prefix, num in (("train", 12), ("t10k", 6)):
        pixels = np.broadcast_to(np.arange(num)[:, None, None], (num, 3, 2))
        put(tmp_path, f"{prefix}-images-idx3-ubyte", idx(pixels), request.param)
        put(tmp_path, f"{prefix}-labels-idx1-ubyte", idx(np.arange(num) % 3), request.param)
    return tmp_path


def test_idx_folder(folder):
    data = load(DataConfig(name=f"idx:{folder}", validation_fraction=1 / 6))
    assert data.spec == (3, 2, 1, 256, 3, 0)
    numbers = {}
    for name, split in data.splits.items():
        images, labels = split.read(np.arange(split.num))
        numbers[name] = images[:, 0, 0, 0].tolist()
        np.testing.assert_array_equal(labels, images[:, 2, 1, 0] % 3)
    assert numbers == {
        "train": list(range(10)),
        "validation": [10, 11],
        "test": list(range(6)),
    }


def test_missing_idx_files_and_folders(folder, tmp_path):
    put_them = (
        "; put train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and "
        "t10k-labels-idx1-ubyte there, each with or without .gz."
    )
    with pytest.raises(UserError) as caught:
        load(DataConfig(name=f"idx:{tmp_path / 'nowhere'}"))
    assert str(caught.value) == f"{tmp_path / 'nowhere'}: there is no such folder{put_them}"
    next(folder.glob("t10k-labels*")).unlink()
    with pytest.raises(UserError) as caught:
        load(DataConfig(name=f"idx:{folder}"))
    assert str(caught.value) == f"{folder}: lacks t10k-labels-idx1-ubyte{put_them}"


@pytest.mark.parametrize("zipped", [False, True])
def test_a_named_pipe_among_the_files_is_not_waited_for(folder, zipped):
    name = f"{IMAGES}.gz" if zipped else IMAGES
    for path in folder.glob(f"{IMAGES}*"):
        path.unlink()
    os.mkfifo(folder / name)
    with pytest.raises(UserError, match=rf"{name}: is a named pipe, not a file; fetch it again\."):
        load(DataConfig(name=f"idx:{folder}"))


GOOD = idx(np.zeros((12, 3, 2)))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (IMAGES, b"", "the file is empty"),
        (IMAGES, b"PNG!" + GOOD, "magic number must be 0x00000803, .* got 0x504e4721"),
        (IMAGES, idx(np.zeros(12)), "magic number must be 0x00000803, .* got 0x00000801"),
        (LABELS, GOOD, "magic number must be 0x00000801, .* got 0x00000803"),
        (IMAGES, b"\0\0\x0d\x03" + GOOD[4:], "magic number must be .* got 0x00000d03"),
        (IMAGES, GOOD[:9], "ends within its header"),
        (IMAGES, GOOD[:-1], r"claims 72 bytes, shape \(12, 3, 2\), but there are only 71"),
        (IMAGES, GOOD + b"\0", "claims 72 bytes.*but there are more"),
        (IMAGES, idx(np.zeros((0, 3, 2))), r"header must be of no length 0, got \(0, 3, 2\)"),
        (
            IMAGES,
            b"\0\0\x08\x03" + b"\xff" * 12 + b"x",
            "header must be of at most [0-9]+ bytes, got",
        ),
        (LABELS, idx(np.zeros(11)), "number of labels must be 12, one per image, got 11"),
    ],
)
def test_idx_files_that_are_wrong(folder, name, content, message):
    zipped = (folder / f"{name}.gz").exists()
    put(folder, name, content, zipped)
    with pytest.raises(UserError, match=message) as caught:
        load(DataConfig(name=f"idx:{folder}"))
    assert str(folder / name) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_broken_gzip_files(tmp_path):
    path = tmp_path / "x.gz"
    whole = gzip.compress(GOOD)
    for content in (whole[:12], whole[:-9], b"plain " + GOOD, whole[:20] + b"\xff" * 20):
        path.write_bytes(content)
        with pytest.raises(
            UserError,
            match=r"x\.gz: (the gzip file|cannot be read|the shape in the header|.*claims)",
        ):
            read_idx(path, axes=3)


def test_a_bomb_is_not_unpacked(tmp_path):
    # 256 MiB of zeros in 256 KiB: the header says 6 bytes, so no more than 7 may be unpacked.
    path = tmp_path / "x.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(idx(np.zeros((1, 3, 2))))
        for _ in range(16):
            file.write(bytes(2**24))
    with pytest.raises(UserError, match=r"claims 6 bytes.*there are more"):
        read_idx(path, axes=3)


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_the_real_files(name):
    if not (REAL / name).is_dir():
        pytest.skip(f"{name} does not lie beside the checkout")
    data = load(DataConfig(name=f"idx:{REAL / name}", validation_fraction=1 / 6))
    assert data.spec == (28, 28, 1, 256, 10, 0)
    assert [split.num for split in data.splits.values()] == [50_000, 10_000, 10_000]
    _, labels = data.splits["test"].read(np.arange(10_000))
    expected = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert np.bincount(labels).tolist() == (expected if name == "mnist" else [1000] * 10)
    if name == "mnist":
        # The commonly quoted mean and standard deviation of all 60,000 training images.
        whole = [
            data.splits[s].read(np.arange(data.splits[s].num))[0] for s in ("train", "validation")
        ]
        pixels = np.concatenate(whole) / np.float32(255)
        assert pixels.mean() == pytest.approx(0.1307, abs=1e-4)
        assert pixels.std() == pytest.approx(0.3081, abs=1e-4)


@pytest.mark.parametrize(
    ("name", "train", "test"),
    [
        ("mnist", "4bd86841a53af0d9", "404de8273cc15903"),
        ("fashion_mnist", "a42177e578b0a961", "50bd7f0f7a5b297c"),
    ],
)
def test_the_published_figures_are_of_these_static_draws(name, train, test):
    """Pinned from the code of draw 1; only the validation images of draw 2 differ."""
    if not (REAL / name).is_dir():
        pytest.skip(f"{name} does not lie beside the checkout")
    config = DataConfig(f"idx:{REAL / name}", "static", validation_fraction=1 / 6)
    splits = load(config).splits
    for split, expected in (("train", train), ("test", test)):
        images, _ = splits[split].read(np.arange(splits[split].num))
        assert hashlib.blake2b(images.tobytes(), digest_size=8).hexdigest() == expected
