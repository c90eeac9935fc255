"""Folders of images: layouts, and what is refused."""

import os
import re
import socket

import numpy as np
import pytest
from PIL import Image

from rnngen_jax.data import folder as folder_source
from rnngen_jax.data import load
from rnngen_jax.data.base import DataConfig
from rnngen_jax.data.feed import make_feed
from rnngen_jax.errors import UserError


def picture(path, value=0, size=(4, 3), mode="L", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    fill = value if len(mode) == 1 or ";" in mode else (value,) * len(mode)
    Image.new(mode, size, fill).save(path, **options)


def opened(folder):
    return load(DataConfig(name=f"folder:{folder}"))


def numbers(split):
    return split.read(np.arange(split.num))[0][:, 0, 0, 0].tolist()


def test_a_plain_folder(tmp_path):
    for i in range(20):
        picture(tmp_path / f"{i:02}.png", i)
    (tmp_path / ".hidden").write_text("passed over")
    data = opened(tmp_path)
    assert data.spec == (3, 4, 1, 256, 0, 0)
    read = [numbers(split) for split in data.splits.values()]
    assert [len(r) for r in read] == [16, 2, 2]
    assert sorted(np.concatenate(read).tolist()) == list(range(20))
    assert read == [numbers(split) for split in opened(tmp_path).splits.values()]


def test_a_folder_of_classes(tmp_path):
    for i in range(30):
        picture(
            tmp_path / ("cat", "dog", "eel")[i // 10] / f"{i}.webp", i, mode="RGB", lossless=True
        )
    data = opened(tmp_path)
    assert data.spec == (3, 4, 3, 256, 3, 0)
    images, labels = data.splits["train"].read(np.arange(24))
    np.testing.assert_array_equal(labels, images[:, 0, 0, 0] // 10)
    _, last = data.splits["test"].read(np.arange(3))
    assert len(set(last)) > 1, "cut after shuffling, so that no split is of one class"


def test_a_folder_of_splits_and_classes(tmp_path):
    for split, num in (("train", 8), ("validation", 4), ("test", 2)):
        for i in range(num):
            picture(tmp_path / split / "ab"[i % 2] / f"{i}.png", i)
    data = opened(tmp_path)
    assert {name: split.num for name, split in data.splits.items()} == {
        "train": 8,
        "validation": 4,
        "test": 2,
    }
    images, labels = data.splits["validation"].read(np.arange(4))
    np.testing.assert_array_equal(labels, images[:, 0, 0, 0] % 2)


def test_a_large_folder_is_decoded_as_it_is_read(tmp_path, monkeypatch):
    for i in range(30):
        picture(tmp_path / "ab"[i % 2] / f"{i}.png", i)
    whole = opened(tmp_path)
    monkeypatch.setattr(folder_source, "MEMORY_BYTES", 10)
    lazy = opened(tmp_path)
    assert lazy.spec == whole.spec
    for name, split in whole.splits.items():
        some = np.array([1, 0, 1])
        for one, other in zip(split.read(some), lazy.splits[name].read(some), strict=True):
            np.testing.assert_array_equal(one, other)
            assert one.dtype == other.dtype
    for path in (tmp_path / "a").iterdir():
        path.write_bytes(path.read_bytes()[:45])
    with pytest.raises(UserError, match=r"a/\d+\.png: is truncated"):
        lazy.splits["train"].read(np.arange(lazy.splits["train"].num))
    feed = make_feed(lazy.splits["train"]._replace(read=mended(lazy)), 4, 0, "stream")
    with pytest.raises(UserError, match=r"a/\d+\.png: is truncated"):
        list(feed.chunks([(0, 6)]))


def mended(data):
    """The first image is intact, so that the others fail in the feed's threads."""
    good = (np.zeros((1, 3, 4, 1), np.uint8), np.zeros(1, np.int32))
    return lambda indices: good if len(indices) == 1 else data.splits["train"].read(indices)


def test_missing_and_empty_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    missing = f"config.data.name='folder:nowhere' ({tmp_path}/nowhere): there is no such folder"
    with pytest.raises(UserError, match=re.escape(missing)):
        opened("nowhere")
    (tmp_path / "a").mkdir()
    with pytest.raises(UserError, match="a: the folder is empty"):
        opened(tmp_path)
    with pytest.raises(UserError, match="a: the folder is empty"):
        opened(tmp_path / "a")


def sixteen_bit_rgb(path):
    """A 16-bit RGB PNG, which Pillow itself cannot write but opens as if it were 8-bit."""
    import struct
    import zlib

    def chunk(kind, content):
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    rows = (b"\0" + bytes(4 * 6)) * 3
    header = struct.pack(">IIBBBBB", 4, 3, 16, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def truncated(path):
    picture(path)
    path.write_bytes(path.read_bytes()[:-20])  # within the checksums: the pixels are all there


def hollow(path):
    """A PNG with a valid start and end that lacks a byte of its pixels."""
    noise = np.random.default_rng(0).integers(0, 256, (3, 4), np.uint8)
    Image.fromarray(noise).save(path)
    content = path.read_bytes()
    path.write_bytes(content[:-25] + content[-24:])


def truncated_jpeg(path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
    Image.fromarray(noise).resize((4, 3)).save(path, "JPEG")
    path.write_bytes(path.read_bytes()[:-30])


def animated(path):
    frames = [Image.new("L", (4, 3), i) for i in (0, 99)]
    frames[0].save(path, save_all=True, append_images=frames[1:])


def bomb(path):
    Image.new("L", (5000, 5000)).save(path)


def link_to_a_pipe(path):
    os.mkfifo(path.parent / "pipe.png")
    path.symlink_to("pipe.png")


def bound_socket(path):
    # Under a short name, as the length of socket names is limited.
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind(path.name)


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("z.png", truncated, "z.png: is truncated, damaged or not a PNG"),
        ("z.png", hollow, "z.png: is truncated, damaged or not a PNG"),
        ("z.jpg", truncated_jpeg, "z.jpg: is truncated, damaged or not a PNG"),
        ("z.png", lambda p: p.write_bytes(b""), "z.png: is truncated, damaged"),
        ("z.png", lambda p: p.write_bytes(b"GIF89a" + bytes(99)), "z.png: is truncated, damaged"),
        (
            "z.png",
            lambda p: Image.new("L", (4, 3)).save(p, "GIF"),
            "damaged or not a PNG, JPEG, WEBP",
        ),
        ("z.png", lambda p: picture(p, mode="I;16"), "z.png must be 8-bit .*, got 16 bits"),
        ("z.png", sixteen_bit_rgb, "z.png must be 8-bit .*, got 16 bits"),
        (
            "z.jpg",
            lambda p: picture(p, mode="CMYK"),
            "z.jpg must be 8-bit .*, got mode CMYK. .*convert",
        ),
        ("z.png", lambda p: picture(p, mode="P"), "z.png must be 8-bit .*, got mode P."),
        ("z.png", lambda p: picture(p, mode="RGBA"), "z.png must be 8-bit .*, got mode RGBA."),
        ("z.png", lambda p: picture(p, mode="LA"), "z.png must be 8-bit .*, got mode LA."),
        ("z.png", lambda p: picture(p, mode="1"), "z.png must be 8-bit .*, got mode 1."),
        ("z.png", lambda p: picture(p, transparency=3), "z.png: has a transparent colour"),
        ("z.png", animated, "z.png: the number of frames must be 1, got 2"),
        ("z.png", bomb, "z.png: the number of pixels must be ≤ 16777216, got 25000000"),
        (
            "z.png",
            lambda p: picture(p, size=(4, 4)),
            r"z.png must be 4x3 grey, as .*00.png is, got 4x4 gr",
        ),
        (
            "z.png",
            lambda p: picture(p, mode="RGB"),
            "4x3 grey, .* got 4x3 RGB. All .*: crop or resize",
        ),
        ("notes.txt", lambda p: p.write_text("x"), "notes.txt: does not end in .png, .*or .webp;"),
        ("z.gif", lambda p: picture(p, mode="P"), "z.gif: does not end in .*; convert it if it is"),
        ("z.png", lambda p: p.symlink_to(p.name), "z.png: is a link that leads nowhere"),
        ("z.png", lambda p: p.symlink_to("gone.png"), "z.png: is a link that leads nowhere"),
        ("class/z.png", picture, "00.png: is beside folders of classes"),
        ("train/z.png", picture, "00.png: is beside folders of splits"),
    ],
)
def test_files_that_are_refused(tmp_path, name, make, message):
    for i in range(10):
        picture(tmp_path / f"{i:02}.png", i)
    make(tmp_path / name)
    with pytest.raises(UserError, match=message) as caught:
        opened(tmp_path)
    assert len(str(caught.value).splitlines()) <= 2


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (["validation/a.png", "test/b.png"], "holds test and validation but no folder 'train'"),
        (["train/a.png", "test/x/b.png"], "x/b.png: the class must be one of train's, which has"),
        (
            ["train/x/a.png", "test/y/b.png"],
            "y/b.png: the class must be one of train's, x, got 'y'",
        ),
        (["x/y/a.png"], "x/y: is a folder within a class"),
        (["x/a.png", "x/z/a.png"], "x/z: is a folder within a class"),
        (["train/x/a.png", "train/b.png"], "train/b.png: is beside folders of classes"),
        (["train/a.png", "other/a.png"], "other: is beside folders of splits"),
        (
            ["Train/a.png", "Test/a.png"],
            "Test: the folder of a split must be one of .*; rename it to test",
        ),
    ],
)
def test_folders_that_fit_no_layout(tmp_path, paths, message):
    for path in paths:
        picture(tmp_path / path)
    with pytest.raises(UserError, match=message):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda path: path.symlink_to(path.name), "a link that leads nowhere"),
        (lambda path: path.symlink_to("gone.png"), "a link that leads nowhere"),
        (os.mkfifo, "a named pipe, not a file"),
        (link_to_a_pipe, "a named pipe, not a file"),
        (bound_socket, "a socket, not a file"),
    ],
    ids=["loop", "nowhere", "pipe", "link to a pipe", "socket"],
)
@pytest.mark.parametrize("name", ["z.png", "z"])
def test_what_is_neither_file_nor_folder(tmp_path, monkeypatch, make, what, name):
    monkeypatch.chdir(tmp_path)
    for i in range(10):
        picture(tmp_path / f"{i:02}.png", i)
    make(tmp_path / name)
    with pytest.raises(UserError, match=rf"(z|z\.png|pipe\.png): is {what}.*; remove it\."):
        opened(tmp_path)


def test_a_file_that_becomes_a_pipe_is_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_source, "MEMORY_BYTES", 10)
    for i in range(10):
        picture(tmp_path / f"{i:02}.png", i)
    train = opened(tmp_path).splits["train"]
    for path in tmp_path.glob("*.png"):
        path.unlink()
        os.mkfifo(path)
    with pytest.raises(UserError, match="is a named pipe, not a file"):
        train.read(np.arange(1))


def test_links_that_leave_the_folder(tmp_path):
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    for i in range(10):
        picture(inside / f"{i}.png", i)
    (inside / "fine.png").symlink_to(inside / "0.png")
    assert opened(inside).splits["train"].num == 9
    picture(outside / "a.png")
    (inside / "z.png").symlink_to(outside / "a.png")
    with pytest.raises(UserError, match=r"z\.png: is a link that leaves"):
        opened(inside)
    (inside / "z.png").unlink()
    (inside / "z").symlink_to(outside)
    with pytest.raises(UserError, match=r"z: is a link that leaves"):
        opened(inside)
