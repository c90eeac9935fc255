"""compress and decompress through the command line: nothing is lost, and nothing else comes out."""

import os
import re
import struct

import jax
import joined_streams
import numpy as np
import pytest
from PIL import Image
from tiny_runs import evaluated, rnngen, tree

from rnngen_jax import data
from rnngen_jax.data.base import DataConfig
from rnngen_jax.evaluation import codec, container, pictures
from rnngen_jax.runs import load

ELSEWHERE = {"arithmetic": b"else", "maker": "0.9.9 gpu H200"}
TEST = data.load(DataConfig()).splits["test"].read(np.arange(300))

REFUSED = {
    "compress --out=f.zip": "a file that ends in .rnn",
    "compress --out=folder.rnn": "a file that ends in .rnn",
    "compress --num=0": "--num must be ≥ 1, got 0",
    "compress --split=tests": "did you mean 'test'",
    "compress --label=1": "not class-conditional",
    "compress --lossy": "pixel_rnn has no codes of images",
    "compress --lossy=maybe": "--lossy must be true or false, got 'maybe'",
    "compress --input=none": "no such file or folder",
    "compress --input=wrong.png": "5x5 grey; the model's images are 8x8 grey",
    "decompress": "--input missing",
    "decompress --input=none.rnn": "no such file",
    "decompress --input=wrong.png": "not a file that `compress` wrote",
    "decompress --input=five.rnn --out=": "or a folder",
    "decompress --input=five.rnn --out=a.png": "or a folder",
    "decompress --input=five.rnn --out=full": "is not empty",
    "decompress --input=five.rnn --out=full/": "is not empty",
    "decompress --input=five.rnn --out=file": "is a file",
    "decompress --input=five.rnn --checkpoint=7": "there is no checkpoint '7'",
}


def compress(workdir, out, *flags):
    assert rnngen("compress", f"--workdir={workdir}", f"--out={out}", *flags) == 0


def decompress(workdir, file, out, *flags):
    return rnngen("decompress", f"--workdir={workdir}", f"--input={file}", f"--out={out}", *flags)


def stored(path):
    with np.load(path) as arrays:
        return dict(arrays)


@pytest.fixture(scope="session")
def packed(runs, tmp_path_factory):
    """The first five test images, compressed by the pixel RNN."""
    out = tmp_path_factory.mktemp("packed") / "five.rnn"
    compress(runs / "pixel", out, "--num=5")
    return out.read_bytes()


@pytest.fixture
def five(packed, tmp_path):
    (tmp_path / "five.rnn").write_bytes(packed)
    return tmp_path / "five.rnn"


def test_a_whole_split_there_and_back(pixel, tmp_path, capsys):
    file = tmp_path / "all.rnn"
    compress(pixel, file)
    out = capsys.readouterr().out
    said = {name: float(bits) for name, bits in re.findall(r"(\w+): .*?([\d.]+) bits per", out)}
    assert out.splitlines()[0] == f"checkpoint:     step 4 of {pixel}"
    assert "300, 19,200 values of 17 levels" in out
    assert f"{file.stat().st_size:,} bytes" in out
    assert out.splitlines()[-1] == str(file)
    assert said["file"] == pytest.approx(8 * file.stat().st_size / 19200, abs=1e-4)
    likelihood = evaluated(pixel)["metrics"]["bits_per_dim"]
    assert said["likelihood"] == pytest.approx(likelihood, abs=1e-4)
    assert likelihood < said["file"] < 1.001 * likelihood + 8 * 72 / 19200
    assert said["PNG"] > said["WebP"] > said["file"]
    capsys.readouterr()
    assert decompress(pixel, file, tmp_path / "all.npz") == 0
    assert re.fullmatch(
        rf"300 images, [\d,.]+ images/s, after [\d.]+ s of compiling\n{tmp_path}/all.npz\n",
        capsys.readouterr().out,
    )
    got = stored(tmp_path / "all.npz")
    assert sorted(got) == ["image", "levels"]
    np.testing.assert_array_equal(got["image"], TEST[0])
    assert got["image"].dtype == np.uint8
    assert got["levels"] == 17


def test_labels_come_back_with_a_conditional_model(row, tmp_path, capsys):
    compress(row, tmp_path / "a.rnn", "--num=7", "--split=test")
    assert decompress(row, tmp_path / "a.rnn", tmp_path / "a.npz") == 0
    got = stored(tmp_path / "a.npz")
    np.testing.assert_array_equal(got["image"], TEST[0][:7])
    np.testing.assert_array_equal(got["label"], TEST[1][:7])
    # As an npz they can be compressed again, and as a folder they need a label.
    compress(row, tmp_path / "b.rnn", f"--input={tmp_path}/a.npz")
    assert (tmp_path / "b.rnn").read_bytes() == (tmp_path / "a.rnn").read_bytes()
    assert decompress(row, tmp_path / "a.rnn", tmp_path / "folder") == 0
    flags = (f"--workdir={row}", f"--input={tmp_path}/folder", f"--out={tmp_path}/c.rnn")
    assert rnngen("compress", *flags) == 2
    assert "give --label, 0 to 9" in capsys.readouterr().err
    assert rnngen("compress", *flags, "--label=3") == 0
    assert decompress(row, tmp_path / "c.rnn", tmp_path / "c.npz") == 0
    got = stored(tmp_path / "c.npz")
    np.testing.assert_array_equal(got["image"], TEST[0][:7])
    np.testing.assert_array_equal(got["label"], [3] * 7)


def test_pictures_come_back_under_their_names(pixel, tmp_path):
    pixels = pictures.to_pixels(TEST[0], 17)[..., 0]
    names = ["b.png", "a.b.webp", "Ä, c.PNG"]
    (tmp_path / "in").mkdir()
    for name, image in zip(names, pixels, strict=False):
        Image.fromarray(image).save(tmp_path / "in" / name, lossless=True)
    compress(pixel, tmp_path / "f.rnn", f"--input={tmp_path}/in")
    assert decompress(pixel, tmp_path / "f.rnn", f"{tmp_path}/new/folder/") == 0
    found = {p.name: np.asarray(Image.open(p)) for p in (tmp_path / "new/folder").iterdir()}
    assert sorted(found) == ["a.b.png", "b.png", "Ä, c.png"]
    for name, image in zip(["b.png", "a.b.png", "Ä, c.png"], pixels, strict=False):
        np.testing.assert_array_equal(found[name], image)
    assert decompress(pixel, tmp_path / "f.rnn", tmp_path / "f.npz") == 0
    assert len(stored(tmp_path / "f.npz")["image"]) == 3
    compress(pixel, tmp_path / "one.rnn", f"--input={tmp_path}/in/b.png")
    (tmp_path / "empty").mkdir()
    assert decompress(pixel, tmp_path / "one.rnn", tmp_path / "empty") == 0
    assert os.listdir(tmp_path / "empty") == ["b.png"]


def test_images_without_names_are_numbered(pixel, five, tmp_path):
    assert decompress(pixel, five, tmp_path / "out") == 0
    assert sorted(os.listdir(tmp_path / "out")) == [f"0000{i}.png" for i in range(5)]
    # Names that are these very numbers need not be stored.
    compress(pixel, tmp_path / "again.rnn", f"--input={tmp_path}/out")
    assert (tmp_path / "again.rnn").read_bytes() == five.read_bytes()


def test_two_pictures_that_would_get_one_name_are_refused(pixel, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    for name in ("a.png", "a.webp"):
        Image.new("L", (8, 8)).save(tmp_path / "in" / name, lossless=True)
    flags = (f"--workdir={pixel}", f"--input={tmp_path}/in", f"--out={tmp_path}/f.rnn")
    assert rnngen("compress", *flags) == 2
    assert "two images have the same name; rename it" in capsys.readouterr().err
    assert not (tmp_path / "f.rnn").exists()


@pytest.mark.parametrize("kind", ["png", "npz"])
def test_images_between_the_levels_are_refused(pixel, tmp_path, capsys, kind):
    """`complete` rounds them; here that would lose something."""
    pixels = pictures.to_pixels(TEST[0][:2], 17)[..., 0].copy()
    pixels[1, 4, 4] ^= 1
    if kind == "png":
        (tmp_path / "in").mkdir()
        for number, image in enumerate(pixels):
            Image.fromarray(image).save(tmp_path / "in" / f"{number}.png")
        name = tmp_path / "in"
    else:
        name = tmp_path / "in.npz"
        np.savez(name, image=pixels)
    flags = (f"--workdir={pixel}", f"--input={name}", f"--out={tmp_path}/f.rnn")
    assert rnngen("compress", *flags) == 2
    err = capsys.readouterr().err
    assert f"the value {pixels[1, 4, 4]}, which is not one of the model's 17 levels" in err
    assert ("1.png" in err) == (kind == "png")
    assert not (tmp_path / "f.rnn").exists()
    assert rnngen("compress", *flags, "--num=1") == 0  # the first is sound
    assert rnngen("complete", flags[0], flags[1], f"--out={tmp_path}/c.png") == 0


@pytest.mark.parametrize("words", REFUSED)
def test_what_does_not_fit_is_refused(pixel, five, monkeypatch, capsys, words):
    monkeypatch.chdir(five.parent)
    Image.new("L", (5, 5)).save("wrong.png")
    for folder in ("full", "folder.rnn"):
        os.mkdir(folder)
    for file in ("file", "full/file"):
        with open(file, "w") as opened:
            opened.write("mine")
    before = tree(five.parent)
    assert rnngen(*words.split(), f"--workdir={pixel}") == 2
    printed = capsys.readouterr()
    assert REFUSED[words] in printed.err
    assert len(printed.err.strip().splitlines()) <= 2
    assert tree(five.parent) == before


def refused(workdir, content, capsys, code=2):
    """What `decompress` says of a file with this content; it must write nothing."""
    folder = workdir.parent
    body = content if isinstance(content, bytes) else container.pack(content)
    (folder / "odd.rnn").write_bytes(body)
    before = tree(folder)
    capsys.readouterr()
    assert decompress(workdir, folder / "odd.rnn", f"{folder}/odd/") == code
    err = capsys.readouterr().err
    assert len(err.strip().splitlines()) <= 2
    assert tree(folder) == before
    assert not (folder / "odd").exists()
    return err


def test_a_file_of_another_model_is_refused(pixel, row, packed, config, capsys):
    content = container.unpack(packed, "")
    err = refused(row, packed, capsys)
    assert content.model.hex() in err
    assert load(row).digest.hex() in err
    assert "step 4" in err
    # Another checkpoint of the same run is another model, too.
    more = ("--config.training.steps=6", f"--workdir={pixel}")
    assert rnngen("train", f"--config={config}", *more) == 0
    file = pixel.parent / "odd.rnn"
    assert decompress(pixel, file, pixel / "4.npz", "--checkpoint=4") == 0
    assert decompress(pixel, file, pixel / "6.npz", "--checkpoint=6") == 2
    assert "step 6" in capsys.readouterr().err
    assert not (pixel / "6.npz").exists()


@pytest.mark.parametrize(
    ("fields", "expected", "code"),
    [
        ({"shape": (8, 9, 1)}, "(8, 9, 1) with 17 levels; those of the model", 2),
        ({"levels": 16}, "(8, 8, 1) with 16 levels; those of the model", 2),
        ({"model": b"notmodel"}, "6e6f746d6f64656c", 2),
        ({"grids": (container.Grid((4, 4, 1), 8),)}, "holds codes of images, and the model in", 2),
        ({"batch_size": 16}, "this model would not write such a file", 2),
        ({"labelled": True}, "this model would not write such a file", 2),
        ({"pixels": (b"notpixel",)}, "come out than went in. It was forged, or damaged", 2),
        ({"streams": (bytes(400),)}, "come out than went in. It was forged, or damaged", 2),
        (
            {"streams": (bytes(8),)},
            "its stream of 8 bytes ends before its images. It was forged",
            2,
        ),
        ({"num": 6}, "It was forged, or damaged", 2),
        ({"streams": (bytes(8),), "maker": "0.9.9 gpu H200"}, "It was forged, or damaged", 2),
        (
            {"streams": (bytes(8),), "arithmetic": b"else"},
            "or made on another kind of processor",
            2,
        ),
        ({"pixels": (bytes(8),), **ELSEWHERE}, "made with JAX 0.9.9 gpu H200, and this is", 1),
        ({"streams": (bytes(8),), **ELSEWHERE}, "made with JAX 0.9.9 gpu H200, and this is", 1),
        ({"names": ("a", "b", "c", "../d", "e")}, "not a plain file name", 2),
    ],
)
def test_a_file_that_lies_gives_nothing(pixel, packed, capsys, fields, expected, code):
    """Floating point is blamed where others gave other probabilities, and nowhere else."""
    content = container.unpack(packed, "")
    err = refused(pixel, content._replace(**fields), capsys, code)
    assert expected in err
    assert ("floating point" in err) == (code == 1)
    assert ("another kind of processor" in err) == ("arithmetic" in fields and code == 2)


def test_what_decodes_is_given_back_wherever_it_was_made(pixel, packed, tmp_path):
    content = container.unpack(packed, "")._replace(**ELSEWHERE)
    (tmp_path / "f.rnn").write_bytes(container.pack(content))
    assert decompress(pixel, tmp_path / "f.rnn", tmp_path / "f.npz") == 0
    np.testing.assert_array_equal(stored(tmp_path / "f.npz")["image"], TEST[0][:5])


def test_a_file_does_not_depend_on_the_devices(row, tmp_path, monkeypatch):
    """Eight batches: on eight devices, and on one, from and to the same file."""
    monkeypatch.setattr(codec, "LARGEST_BATCH", 4)
    for name, devices in (("a", jax.local_devices()), ("b", jax.local_devices()[:1])):
        monkeypatch.setattr(jax, "local_devices", lambda devices=devices: devices)
        compress(row, tmp_path / f"{name}.rnn", "--num=30")
        assert decompress(row, tmp_path / "a.rnn", tmp_path / f"{name}.npz") == 0
        got = stored(tmp_path / f"{name}.npz")
        np.testing.assert_array_equal(got["image"], TEST[0][:30])
        np.testing.assert_array_equal(got["label"], TEST[1][:30])
    assert (tmp_path / "a.rnn").read_bytes() == (tmp_path / "b.rnn").read_bytes()
    assert len(container.read(tmp_path / "a.rnn").streams) == 8


def as_version_1(content, whole):
    """The bytes of a file of format version 1, with its one digest of everything."""
    head = struct.pack(
        "<4sBBHHBBIB8s8sI",
        b"\x89RNN",
        1,
        content.labelled,
        *content.shape,
        content.levels - 1,
        content.num,
        content.batch_size.bit_length() - 1,
        content.model,
        whole,
        len(content.streams[0]) // 4,
    )
    maker = content.maker.encode()
    body = head + bytes([len(maker)]) + maker + content.streams[0]
    return body + container.digest([body])


@pytest.mark.parametrize("version", [1, 2, 4])
def test_many_batches_come_back_from_files_of_all_versions(row, packed, tmp_path, capsys, version):
    opened = load(row)
    images, labels = TEST[0][:11], TEST[1][:11]
    pixels, given = codec.digests(images, labels, 4), (opened.model, opened.params, {}, 4)
    if version == 4:
        streams = codec.coder(*given).encode(images, labels)
    else:
        streams = (joined_streams.encode(*given, images, labels),)
    content = container.unpack(packed, "")._replace(num=11, batch_size=4, labelled=True)
    content = content._replace(model=opened.digest, pixels=pixels, streams=streams)
    assert len(content.pixels) == 3
    body = container.pack(content)
    assert body[4] == max(version, 2)
    wrong = container.pack(content._replace(pixels=(*content.pixels[:2], b"notpixel")))
    if version == 1:
        body = as_version_1(content, codec.digest(images, labels))
        wrong = as_version_1(content, b"notpixel")
    (tmp_path / "f.rnn").write_bytes(body)
    assert decompress(row, tmp_path / "f.rnn", tmp_path / "f.npz") == 0
    got = stored(tmp_path / "f.npz")
    np.testing.assert_array_equal(got["image"], images)
    np.testing.assert_array_equal(got["label"], labels)
    assert "other values come out than went in. It was forged" in refused(row, wrong, capsys)
    if version == 1:  # which does not say what the probabilities were
        elsewhere = as_version_1(content._replace(maker="0.9.9 gpu H200"), b"notpixel")
        assert "made with JAX 0.9.9 gpu H200" in refused(row, elsewhere, capsys, 1)


@pytest.mark.parametrize("version", [1, 2])
def test_a_small_file_that_claims_millions_of_images_is_little_work(
    pixel, packed, capsys, monkeypatch, version
):
    """A right checksum, the right model, zeros for a stream: of both versions, of both sizes."""
    content = container.unpack(packed, "")._replace(batch_size=1024, streams=(bytes(200),))
    tables, counted = codec._table, []
    monkeypatch.setattr(codec, "_table", lambda *a: counted.append(1) or tables(*a))

    def crafted(num):
        claims = content._replace(num=num, pixels=(bytes(8),) * -(-num // 1024))
        return as_version_1(claims, bytes(8)) if version == 1 else container.pack(claims)

    room = crafted(30 * 1024)
    err = refused(pixel, room, capsys)
    assert "its stream of 200 bytes ends before its images. It was forged, or damaged" in err
    assert "floating point" not in err
    assert len(counted) <= 2  # steps, of 30 * 64
    if version == 1:
        forged = crafted(26_000_000)
        assert len(forged) < 300
        too_many = f"claims 26000000 images, too many for {len(forged) - 8} bytes"
        assert too_many in refused(pixel, forged, capsys)
    assert len(counted) <= 2


def test_a_damaged_file_gives_nothing(pixel, packed, capsys):
    assert "checksum differs" in refused(pixel, packed[:-9], capsys)
    assert "checksum differs" in refused(pixel, packed + b"\0", capsys)
    for at in (5, 40, len(packed) // 2, len(packed) - 1):
        flipped = packed[:at] + bytes([packed[at] ^ 16]) + packed[at + 1 :]
        assert "checksum differs" in refused(pixel, flipped, capsys)
