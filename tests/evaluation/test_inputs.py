import os
import zipfile

import jax
import numpy as np
import pytest
from PIL import Image

from rnngen_jax.data.base import Dataset
from rnngen_jax.data.source import array_split
from rnngen_jax.data.transforms import evaluation_transform
from rnngen_jax.errors import UserError
from rnngen_jax.evaluation import inputs, likelihood, pictures
from rnngen_jax.models.base import Model
from rnngen_jax.ops import masks
from rnngen_jax.shapes import ImageSpec

SPEC = ImageSpec(4, 6, 1, levels=17, classes=3)
KEY = jax.random.key(0)


def images(num, levels=17, shape=SPEC.shape):
    return np.random.default_rng(0).integers(0, levels, (num, *shape), dtype=np.uint8)


def test_samples_in_a_folder_come_back_as_they_were(tmp_path):
    drawn = images(12)
    pictures.write_singles(tmp_path, drawn, 17)
    got, labels = inputs.read_images(str(tmp_path), SPEC, 5)
    np.testing.assert_array_equal(got, drawn[:5])
    assert labels is None
    got, _ = inputs.read_images(str(tmp_path / "00003.png"), SPEC, 5)
    np.testing.assert_array_equal(got, drawn[3:4])


def test_a_folder_of_folders_is_named_as_such(tmp_path):
    pictures.write_singles(tmp_path / "cat", images(2), 17)
    with pytest.raises(UserError, match=r"holds the folder 'cat'; .* such as .*/cat\."):
        inputs.read_images(str(tmp_path), SPEC, None)


def test_samples_in_an_npz_come_back_as_they_were(tmp_path):
    drawn, classes = images(12), np.arange(12, dtype=np.int32) % 3
    path = str(tmp_path / "a.npz")
    pictures.write_npz(path, {"image": drawn, "label": classes, "levels": np.int32(17)})
    got, labels = inputs.read_images(path, SPEC, 5)
    np.testing.assert_array_equal(got, drawn[:5])
    np.testing.assert_array_equal(labels, classes[:5])
    pictures.write_npz(path, {"image": pictures.to_pixels(drawn, 17)[..., 0]})
    got, labels = inputs.read_images(path, SPEC, 20)
    np.testing.assert_array_equal(got, drawn)
    assert labels is None


def test_images_between_the_levels_are_rounded_unless_they_must_be_exact(tmp_path):
    drawn = images(4)
    pixels = pictures.to_pixels(drawn, 17)[..., 0].copy()
    pixels[2, 3, 1] ^= 1
    (tmp_path / "singles").mkdir()
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / "singles" / f"{number}.png")
    np.savez(tmp_path / "a.npz", image=pixels)
    for name in ("singles", "a.npz"):
        path = str(tmp_path / name)
        np.testing.assert_array_equal(inputs.read_images(path, SPEC, None)[0], drawn)
        np.testing.assert_array_equal(inputs.read_images(path, SPEC, 2, exact=True)[0], drawn[:2])
        with pytest.raises(UserError, match="not one of the model's 17 levels"):
            inputs.read_images(path, SPEC, 3, exact=True)


def test_a_splits_images_are_those_that_the_ruler_scores():
    """Under dynamic binarisation, too, which draws them again from the same keys."""
    grey = images(9)
    split = array_split(grey, np.arange(9, dtype=np.int32) % 3)
    binary = SPEC._replace(levels=2)
    dataset = Dataset("toys", binary, {"test": split}, "dynamic", 17)
    got, labels = inputs.read_split(dataset, "test", 5)
    np.testing.assert_array_equal(labels, [0, 1, 2, 0, 1])
    assert set(np.unique(got)) == {0, 1}
    np.testing.assert_array_equal(inputs.read_split(dataset, "test", None)[0][:5], got)

    weights = np.arange(24.0).reshape(SPEC.shape)

    def log_prob(params, extra, batch, key):
        return (batch["image"] * weights).sum((1, 2, 3))

    model = Model("toy", binary, False, None, {}, log_prob=log_prob)
    score = likelihood.scorer(model, evaluation_transform(dataset))
    batch = {"image": grey, "label": labels, "index": np.arange(9)}
    scored = -np.asarray(score({}, {}, batch, jax.random.key(likelihood.SEED)))
    np.testing.assert_allclose(scored[:5], (got * weights).sum((1, 2, 3)))


def test_grey_pictures_saved_as_rgb_are_grey(tmp_path):
    drawn = images(1)
    Image.fromarray(pictures.to_pixels(drawn, 17)[0]).save(tmp_path / "a.png")
    np.testing.assert_array_equal(inputs.read_images(str(tmp_path / "a.png"), SPEC, 1)[0], drawn)


@pytest.mark.parametrize(
    ("arrays", "expected"),
    [
        ({"picture": images(2)}, "no array 'image'"),
        ({"image": images(2).astype(np.float32)}, "'image' must be uint8, got 'float32'"),
        ({"image": images(2, shape=(3, 3, 1))}, "the model's images are 6x4 grey"),
        ({"image": images(0)}, "with N ≥ 1, got"),
        ({"image": images(2), "levels": np.int32(9)}, "must be 17, the model's, or 256, got 9"),
        (
            {"image": images(2) + np.uint8(9), "levels": np.int32(17)},
            r"level must be in \[0, 16\], got \(9, 25\)",
        ),
        (
            {"image": images(2), "label": np.array([0, 3])},
            r"label must be in \[0, 2\], got \(0, 3\)",
        ),
        (
            {"image": images(2), "label": np.array([0])},
            r"must be 2 integers, got 'int64 of shape \(1,\)'",
        ),
        ({"image": np.array([object()])}, "plain arrays"),
    ],
)
def test_an_npz_that_does_not_fit(tmp_path, arrays, expected):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(UserError, match=expected):
        inputs.read_images(str(tmp_path / "a.npz"), SPEC, 5)


def test_images_that_do_not_fit(tmp_path):
    (tmp_path / "empty").mkdir()
    Image.new("L", (6, 5)).save(tmp_path / "tall.png")
    Image.new("RGB", (6, 4), (1, 2, 3)).save(tmp_path / "colour.png")
    Image.new("CMYK", (6, 4)).save(tmp_path / "cmyk.jpg")
    Image.new("L", (6, 4)).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:50])
    (tmp_path / "cut.npz").write_bytes(b"PK\3\4")
    for name, expected in {
        "none.png": "no such file",
        "empty": "is empty",
        "tall.png": "6x5 grey; the model's images are 6x4 grey",
        "colour.png": "6x4 RGB",
        "cmyk.jpg": "CMYK",
        "cut.png": "cut.png",
        "cut.npz": "not an npz file",
    }.items():
        with pytest.raises(UserError, match=expected):
            inputs.read_images(str(tmp_path / name), SPEC, 5)


def test_what_is_no_file_is_not_waited_for(tmp_path):
    (tmp_path / "folder" / "within").mkdir(parents=True)
    (tmp_path / "pipes").mkdir()
    for name in ("pipe.png", "pipe.npz", "pipe", "pipes/a.png"):
        os.mkfifo(tmp_path / name)
    (tmp_path / "self.png").symlink_to("self.png")
    for name, expected in {
        "pipe.png": "--input=.*pipe.png: is a named pipe, not a file; give an image file",
        "pipe.npz": "--input=.*pipe.npz: is a named pipe",
        "pipe": "--input=.*pipe: is a named pipe",
        "pipes": r"pipes/a\.png: is a named pipe, not a file; replace or remove it",
        "folder": "--input=.*folder holds the folder .within.; give an image, an npz or a folder",
        "self.png": "--input=.*self.png: is a link that leads nowhere",
    }.items():
        with pytest.raises(UserError, match=expected):
            inputs.read_images(str(tmp_path / name), SPEC, 5)
    with pytest.raises(UserError, match="--input=/dev/null: is a device, not a file"):
        inputs.read_images("/dev/null", SPEC, 5)
    mask = str(tmp_path / "pipe.png")
    with pytest.raises(UserError, match=r"--mask=.*pipe\.png: is a named pipe, not a file"):
        inputs.known_pixels(mask, KEY, 2, SPEC)


@pytest.mark.parametrize("name", ["lower", "upper", "centre"])
def test_named_masks_are_the_same_for_every_image(name):
    known = inputs.known_pixels(name, KEY, 3, SPEC)
    assert known.shape == (3, 4, 6)
    np.testing.assert_array_equal(known[2], masks.FIXED[name](4, 6))


def test_random_masks_differ_and_follow_the_key():
    known = inputs.known_pixels("random", KEY, 3, SPEC)
    assert (known[0] != known[1]).any()
    np.testing.assert_array_equal(known, inputs.known_pixels("random", KEY, 3, SPEC))
    assert (known != inputs.known_pixels("random", jax.random.key(1), 3, SPEC)).any()


def test_a_mask_image_is_white_where_pixels_are_known(tmp_path):
    mask = np.random.default_rng(0).random((4, 6)) < 0.5
    path = str(tmp_path / "m.png")
    Image.fromarray((mask * 255).astype(np.uint8)).save(path)
    np.testing.assert_array_equal(inputs.known_pixels(path, KEY, 2, SPEC), [mask, mask])


def test_whole_frames_are_missing_by_number():
    frames = SPEC._replace(frames=5)
    for mask, missing in {"frames:2-4": [1, 2, 3], "frames:5": [4]}.items():
        known = inputs.known_pixels(mask, KEY, 2, frames)
        assert known.shape == (2, 5, 4, 6)
        assert known.any((0, 2, 3)).tolist() == known.all((0, 2, 3)).tolist()
        assert np.flatnonzero(~known[1, :, 0, 0]).tolist() == missing
    for mask in ("frames:0-2", "frames:4-2", "frames:2-6", "frames:", "frames:a", "frames:2-3-4"):
        with pytest.raises(UserError, match=r"FIRST-LAST with 1 ≤ FIRST ≤ LAST ≤ 5, got"):
            inputs.known_pixels(mask, KEY, 2, frames)
    with pytest.raises(UserError, match="is for sequences of frames"):
        inputs.known_pixels("frames:1", KEY, 2, SPEC)


def test_masks_that_do_not_fit(tmp_path):
    grey, white, small = (str(tmp_path / f"{name}.png") for name in ("grey", "white", "small"))
    Image.new("L", (6, 4), 100).save(grey)
    Image.new("L", (6, 4), 255).save(white)
    Image.new("L", (4, 6), 0).save(small)
    for mask, expected in {
        "lowre": "did you mean 'lower'",
        "none.png": "no such file",
        grey: "black .missing. and white",
        white: "no pixel is missing",
        small: "is 4x6 pixels; the model's images are 6x4",
    }.items():
        with pytest.raises(UserError, match=expected):
            inputs.known_pixels(mask, KEY, 2, SPEC)


def test_archives_that_are_no_archives_of_arrays(tmp_path):
    path = tmp_path / "a.npz"

    def refused(expected):
        with pytest.raises(UserError, match=expected):
            inputs.read_images(str(path), SPEC, 1)

    np.savez(path, image=images(1), levels=np.array("abc"))
    refused("must be 17, the model's, or 256, got")
    np.savez(path, image=images(1), levels=np.array(17.5))
    refused("must be 17, the model's, or 256, got")
    with open(path, "wb") as file:
        np.save(file, images(1))  # an npy under another name
    refused("not an npz file")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("image", b"no array")
    refused("'image' is not an array")
    claim = {"descr": "|u1", "fortran_order": False, "shape": (10**14, 8)}
    with zipfile.ZipFile(path, "w") as archive, archive.open("image.npy", "w") as member:
        np.lib.format.write_array_header_1_0(member, claim)
    refused("plain arrays")
