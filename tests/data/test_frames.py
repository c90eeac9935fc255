"""Folders of sequences: layouts, formats, and one plain line for each of those that do not fit."""

import pathlib
import shutil

import numpy as np
import pytest
from PIL import Image

from rnngen_jax.data import frames, load, prepare
from rnngen_jax.data.base import DataConfig
from rnngen_jax.errors import UserError

GREY, RGB = 1, 3


def clip(num=4, channels=GREY, seed=0, size=(5, 6)):
    shape = (num, *size) if channels == GREY else (num, *size, 3)
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def stills(path, values, name="frame_{}.png"):
    path.mkdir(parents=True)
    for number, value in enumerate(values):
        Image.fromarray(value).save(path / name.format(number))


def animation(path, values, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    first, *rest = map(Image.fromarray, values)
    if path.suffix == ".webp":
        options = {"lossless": True, "exact": True, **options}
    kind = "PNG" if path.suffix in (".png", ".apng") else None
    first.save(path, kind, save_all=True, append_images=rest, **options)


def opened(folder, **fields):
    return load(DataConfig(name=f"frames:{folder}", **fields))


def everything(data):
    """All sequences of all splits, by the bytes of each."""
    read = [split.read(np.arange(split.num))[0] for split in data.splits.values()]
    return {one.tobytes() for part in read for one in part}


@pytest.mark.parametrize("channels", [GREY, RGB])
@pytest.mark.parametrize("memory", [True, False])
def test_sequences_of_every_format_come_back(tmp_path, monkeypatch, channels, memory):
    if not memory:
        monkeypatch.setattr(frames, "MEMORY_BYTES", 10)
    values = [clip(12, channels, seed) for seed in range(6)]
    stills(tmp_path / "a", values[0])
    stills(tmp_path / "b", values[1], "{}.webp" if channels == RGB else "{:03}.png")
    for name, value in zip(("c.gif", "d.webp", "e.png", "f.apng"), values[2:], strict=True):
        animation(tmp_path / name, value)
    if channels == RGB:  # lossy as saved
        values[1] = np.stack([np.asarray(Image.open(tmp_path / f"b/{n}.webp")) for n in range(12)])
    (tmp_path / ".hidden").mkdir()
    data = opened(tmp_path)
    assert data.spec == (5, 6, channels, 256, 0, 12)
    assert [split.num for split in data.splits.values()] == [4, 1, 1]
    assert everything(data) == {value.tobytes() for value in values}
    split = data.splits["train"]
    assert split.key == "frames"
    one, labels = split.read(np.array([2]))
    assert one.dtype == np.uint8
    np.testing.assert_array_equal(one[0], split.read(np.arange(4))[0][2])
    np.testing.assert_array_equal(labels, [0])
    for name, value in zip(("a", "c.gif", "f.apng"), np.array(values)[[0, 2, 5]], strict=True):
        np.testing.assert_array_equal(
            frames.read_clip(tmp_path / name), value.reshape(12, 5, 6, channels)
        )


def test_frames_follow_their_numbers_not_their_names(tmp_path):
    values = clip(12)
    for each in range(3):
        stills(tmp_path / str(each), values, "clip7_{}.png")  # 10 comes before 2 as text
    np.testing.assert_array_equal(opened(tmp_path).splits["test"].read([0])[0][0, ..., 0], values)


def test_folders_of_splits(tmp_path):
    values = {name: clip(seed=seed) for seed, name in enumerate(("train", "validation", "test"))}
    for name, value in values.items():
        stills(tmp_path / name / "one", value)
    data = opened(tmp_path)
    for name, value in values.items():
        assert data.splits[name].num == 1
        np.testing.assert_array_equal(data.splits[name].read([0])[0][0, ..., 0], value)


def test_a_grey_animation_among_coloured_ones_is_rgb(tmp_path):
    grey, colour = clip(4, GREY), clip(4, RGB)
    for place in range(3):
        animation(tmp_path / f"{place}.gif", grey if place == 1 else colour)
    data = opened(tmp_path)
    assert data.spec.channels == 3
    assert everything(data) == {colour.tobytes(), np.stack([grey] * 3, -1).tobytes()}


def test_binarisation_of_sequences(tmp_path):
    value = clip()
    for each in range(3):
        stills(tmp_path / str(each), value)
    data = opened(tmp_path, binarisation="threshold")
    assert data.spec.levels == 2
    np.testing.assert_array_equal(data.splits["test"].read([0])[0][0, ..., 0], value > 127)
    drawn = opened(tmp_path, binarisation="static").splits["train"].read([0])[0]
    assert set(np.unique(drawn)) == {0, 1}


def test_prepared_sequences_come_back(tmp_path):
    for each in range(5):
        animation(tmp_path / "clips" / f"{each}.gif", clip(4, RGB, seed=each))
    config = DataConfig(name=f"frames:{tmp_path / 'clips'}")
    made = prepare.prepare(config, "prepared", tmp_path)
    for binarisation in ("none", "static"):
        one = load(DataConfig(name=config.name, binarisation=binarisation))
        other = load(DataConfig(name=f"tfds:{made}", binarisation=binarisation))
        assert other.spec == one.spec
        assert other.splits["test"].key == "frames"
        if binarisation == "none":
            for name, split in one.splits.items():
                every = np.arange(split.num)
                for a, b in zip(split.read(every), other.splits[name].read(every), strict=True):
                    np.testing.assert_array_equal(a, b, strict=True)


def test_sequences_that_have_no_end_are_not_prepared(tmp_path):
    with pytest.raises(UserError, match=r"moving:digits: is made as it is read, .* nothing to p"):
        prepare.prepare(DataConfig(name="moving:digits"), "moved", tmp_path)
    assert not list(tmp_path.iterdir())


def damaged(path, start=0.5):
    content = bytearray(path.read_bytes())
    middle = int(len(content) * start)
    content[middle : middle + 6] = bytes(b ^ 0xFF for b in content[middle : middle + 6])
    path.write_bytes(content)


def shortened(path, by):
    path.write_bytes(path.read_bytes()[:-by])


def cut_at_a_frame(path):
    """A GIF without its last frame and its end, which Pillow reads as one of fewer frames."""
    content = path.read_bytes()
    path.write_bytes(content[: content.rindex(b"!\xf9\x04")])


def many(path, num=4_000):
    animation(path, np.broadcast_to(np.arange(num)[:, None, None] % 251, (num, 2, 2)).astype("u1"))


def transparent(path):
    first, *rest = (Image.fromarray(value).convert("RGBA") for value in clip(4, RGB))
    rest[1].putalpha(9)
    first.save(path, save_all=True, append_images=rest, lossless=True)


def deep(path):
    """A PNG that says 16 bits per channel."""
    Image.fromarray(clip()[0].astype(np.uint16)).save(path)


UNFIT = [
    ("a/2.png", lambda path: shortened(path, 40), r"a/2.png: is truncated, damaged or not a PNG"),
    ("a/2.png", damaged, r"a/2.png: is truncated, damaged or not a PNG"),
    ("b.png", damaged, r"b.png: is truncated, damaged or not a GIF, WEBP, PNG animation"),
    ("b.png", lambda path: shortened(path, 12), r"b.png: is truncated, damaged"),
    ("c.webp", damaged, r"c.webp: frame [1-4] of 4 is damaged"),
    ("c.webp", lambda path: shortened(path, 1), r"c.webp: is truncated, damaged"),
    ("d.gif", cut_at_a_frame, r"d.gif: is truncated, damaged"),
    ("d.gif", lambda path: shortened(path, 1), r"d.gif: is truncated, damaged"),
    ("d.gif", lambda path: path.write_text("GIF89a"), r"d.gif: is truncated, damaged"),
    ("d.gif", lambda path: animation(path, clip(1)), r"d.gif: is a single image; a seq.* ≥ 2"),
    ("b.png", lambda path: animation(path, clip(1)), r"b.png: is a single image; a sequence must"),
    ("e", lambda path: stills(path, clip(1)), r"e: is a single image; a sequence must have ≥ 2"),
    ("d.gif", many, r"d.gif: a sequence must have ≤ 1000 frames, got 4000; cut it into"),
    ("d.gif", lambda path: many(path, 5), r"must be 4 frames of 6x5, as .* got 5 frames of 2x2"),
    ("e", lambda path: stills(path, clip(5)), r"e must be 4 frames of 6x5, as .* got 5 frames of"),
    ("e", lambda path: stills(path, clip(4, size=(6, 5))), r"got 4 frames of 5x6. All must have"),
    ("e", lambda path: stills(path, clip(4, RGB)), r"a is grey but .*e is RGB; all must be grey"),
    ("a/2.png", lambda path: Image.fromarray(clip(1, RGB)[0]).save(path), r"a/2.png must be 6x5 g"),
    ("a/2.png", pathlib.Path.unlink, r"a: a frame is missing between 1.png and 3.png; give it"),
    ("a/02.png", lambda path: shutil.copy(path.parent / "2.png", path), r"has the number of 02?.p"),
    ("a/two.png", lambda path: shutil.copy(path.parent / "2.png", path), r"two.png: has no number"),
    ("a/x/2.png", lambda path: stills(path.parent, clip()), r"x: is a folder within a sequence"),
    ("e", pathlib.Path.mkdir, r"e: the folder is empty"),
    ("e.txt", pathlib.Path.touch, r"e.txt: does not end in .gif, .webp, .png or .apng"),
    ("c.webp", transparent, r"c.webp: frame 3 of 4 is transparent in places; save it on a"),
    ("b.png", deep, r"b.png must be of 8 bits per channel, got 16"),
]


@pytest.mark.parametrize(("name", "change", "message"), UNFIT)
def test_one_plain_line_for_what_does_not_fit(tmp_path, name, change, message):
    stills(tmp_path / "a", clip(), "{}.png")
    for other in ("b.png", "c.webp", "d.gif"):
        animation(tmp_path / other, clip())
    opened(tmp_path)
    change(tmp_path / name)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=message) as caught:
        opened(tmp_path)
    assert len(str(caught.value).splitlines()) == 1
    assert {path: path.read_bytes() for path in before} == before


def test_a_sequence_that_changes_while_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(frames, "MEMORY_BYTES", 10)
    for each in range(3):
        animation(tmp_path / f"{each}.gif", clip())
    split = opened(tmp_path).splits["train"]
    for each in range(3):
        animation(tmp_path / f"{each}.gif", clip(5))
    with pytest.raises(UserError, match="gif: has changed since the folder was opened"):
        split.read(np.array([0]))


def test_a_sequence_too_large_to_decode(tmp_path, monkeypatch):
    monkeypatch.setattr(frames, "MAX_VALUES", 200)
    stills(tmp_path / "a", clip(20))
    with pytest.raises(UserError, match=r"a: .* must have ≤ 200 values in all its frames, got 600"):
        opened(tmp_path)
    monkeypatch.setattr(frames, "MAX_PIXELS", 20)
    animation(tmp_path / "a.gif", clip())
    with pytest.raises(UserError, match=r"a.gif: the number of pixels must be ≤ 20, got 30"):
        frames.read_clip(tmp_path / "a.gif")


def test_folders_that_are_not_there(tmp_path):
    for name, message in (
        ("frames", "lacks its FOLDER; give 'frames:FOLDER'"),
        (f"frames:{tmp_path / 'x'}", "x.*no such folder.*set it to frames:FOLDER"),
        (f"frames:{tmp_path}", "the folder is empty; put .gif, .webp, .png, .apng files there"),
    ):
        with pytest.raises(UserError, match=message):
            load(DataConfig(name=name))
