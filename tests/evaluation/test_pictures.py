import os

import numpy as np
import pytest
from PIL import Image

from rnngen_jax.errors import UserError
from rnngen_jax.evaluation import animations, pictures


@pytest.mark.parametrize("levels", [2, 3, 17, 256])
def test_levels_survive_as_pixels(levels):
    images = np.arange(levels, dtype=np.uint8).reshape(1, 1, levels, 1)
    pixels = pictures.to_pixels(images, levels)
    assert pixels.shape == (1, 1, levels, 3)
    assert pixels[0, 0, 0, 0] == 0
    assert pixels[0, 0, -1, 0] == 255
    np.testing.assert_array_equal(pictures.to_levels(pixels[..., :1], levels), images)


def test_grid_is_enlarged_by_whole_steps_and_in_order():
    images = np.zeros((5, 4, 8, 1), np.uint8)
    images[:, 1, 3, 0] = np.arange(1, 6)
    picture = pictures.grid(images, levels=6)
    scale, gap = 12, pictures.GAP  # 4 rows of pixels become 48
    height, width = 4 * scale + gap, 8 * scale + gap
    assert picture.shape == (2 * height + gap, 3 * width + gap, 3)
    for number in range(5):
        row, column = divmod(number, 3)
        top, left = row * height + gap, column * width + gap
        cell = picture[top : top + 4 * scale, left : left + 8 * scale]
        want = pictures.to_pixels(images[number], 6).repeat(scale, 0).repeat(scale, 1)
        np.testing.assert_array_equal(cell, want)
    assert (picture[height + gap :, 2 * width + gap :] == pictures.GAP_COLOUR).all()


def test_large_images_are_not_enlarged():
    picture = pictures.grid(np.zeros((1, 64, 50, 3), np.uint8), 256)
    assert picture.shape == (64 + 2 * pictures.GAP, 50 + 2 * pictures.GAP, 3)


def test_completions_stand_below_the_original_and_the_damaged():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 17, (2, 48, 48, 1), dtype=np.uint8)
    completed = rng.integers(0, 17, (2, 3, 48, 48, 1), dtype=np.uint8)
    known = np.zeros((2, 48, 48), bool)
    known[:, :24] = True
    picture = pictures.completions(images, known, completed, 17)
    step = 48 + pictures.GAP

    def cell(row, column):
        top, left = row * step + pictures.GAP, column * step + pictures.GAP
        return picture[top : top + 48, left : left + 48]

    assert picture.shape == (5 * step + pictures.GAP, 2 * step + pictures.GAP, 3)
    for column in range(2):
        original = pictures.to_pixels(images[column], 17)
        np.testing.assert_array_equal(cell(0, column), original)
        np.testing.assert_array_equal(cell(1, column)[:24], original[:24])
        assert (cell(1, column)[24:] == pictures.MISSING_COLOUR).all()
        for k in range(3):
            want = pictures.to_pixels(completed[column, k], 17)
            np.testing.assert_array_equal(cell(2 + k, column), want)
    assert len(set(pictures.MISSING_COLOUR)) > 1  # no grey


def test_single_files_are_numbered_or_have_names(tmp_path):
    images = np.arange(3 * 4, dtype=np.uint8).reshape(3, 2, 2, 1)
    pictures.write_singles(tmp_path / "a", images, 256)
    assert sorted(os.listdir(tmp_path / "a")) == ["00000.png", "00001.png", "00002.png"]
    assert pictures.numbered(3) == ["00000", "00001", "00002"]
    assert pictures.numbered(10**5 + 1)[-1] == "100000"
    pictures.write_singles(tmp_path / "b", images, 256, ("x", "y.z", "ü"))
    assert sorted(os.listdir(tmp_path / "b")) == ["x.png", "y.z.png", "ü.png"]
    with Image.open(tmp_path / "b" / "y.z.png") as image:
        np.testing.assert_array_equal(np.asarray(image), images[1, ..., 0])


def test_samples_as_a_grid_arrays_or_single_files(tmp_path):
    images = np.arange(3 * 4, dtype=np.uint8).reshape(3, 2, 2, 1)
    labels = np.array([2, 0, 1], np.int32)
    pictures.write_samples(f"{tmp_path}/a.png", images, labels, 17)
    with Image.open(tmp_path / "a.png") as image:
        np.testing.assert_array_equal(np.asarray(image), pictures.grid(images, 17))
    pictures.write_samples(f"{tmp_path}/a.npz", images, labels, 17)
    with np.load(tmp_path / "a.npz") as stored:
        assert sorted(stored) == ["image", "label", "levels"]
        np.testing.assert_array_equal(stored["image"], images)
        np.testing.assert_array_equal(stored["label"], labels)
    pictures.write_samples(f"{tmp_path}/b.npz", images, None, 17)
    with np.load(tmp_path / "b.npz") as stored:
        assert sorted(stored) == ["image", "levels"]
    pictures.write_samples(f"{tmp_path}/singles/", images, None, 17)
    assert sorted(os.listdir(tmp_path / "singles")) == ["00000.png", "00001.png", "00002.png"]
    with Image.open(tmp_path / "singles" / "00001.png") as image:
        assert image.mode == "L"
        np.testing.assert_array_equal(pictures.to_levels(np.asarray(image), 17), images[1, ..., 0])


def test_colour_singles_stay_in_colour(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (1, 2, 3, 3), dtype=np.uint8)
    pictures.write_singles(tmp_path / "s", images, 256)
    with Image.open(tmp_path / "s" / "00000.png") as image:
        np.testing.assert_array_equal(np.asarray(image), images[0])


@pytest.mark.parametrize("out", ["a.gif", "a.jpg", "a", "a.png.txt", "picture.svg"])
def test_other_endings_are_refused(out):
    with pytest.raises(UserError, match=r"\.png or \.npz, or a folder/"):
        pictures.require_out(out, folder=True)


def test_strips_of_predictions_are_framed_by_what_they_are():
    """Row by row: a sequence's truth, then its prediction, whose last two frames are predicted."""
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 256, (2, 3, 4, 48, 50, 3), np.uint8)  # [kinds, N, T, H, W, 3]
    predicted = np.array([[0, 0, 0, 0], [0, 0, 1, 1]], bool)
    picture = pictures.predictions(list(rows), predicted)
    film = animations.predicted(list(rows), predicted)
    assert picture.shape == (6 * 50 + 2, 4 * 52 + 2, 3)
    assert film.shape == (4, 2 * 50 + 2, 3 * 52 + 2, 3)
    for kind, item, time in np.ndindex(2, 3, 4):
        colours = (pictures.GIVEN_COLOUR, pictures.PREDICTED_COLOUR)
        own = colours[int(predicted[kind, time])]
        places = ((picture, 2 * item + kind, time), (film[time], kind, item))
        for found, row, column in places:
            top, left = 50 * row + 2, 52 * column + 2
            cell = found[top - 1 : top + 49, left - 1 : left + 51]
            np.testing.assert_array_equal(cell[1:-1, 1:-1], rows[kind, item, time])
            for edge in (cell[0], cell[-1], cell[:, 0], cell[:, -1]):
                assert (edge == own).all()


def test_completed_sequences_are_strips_in_one_column():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 17, (2, 3, 48, 50, 1), np.uint8)
    completed = rng.integers(0, 17, (2, 1, 3, 48, 50, 1), np.uint8)
    known = np.ones((2, 3, 48, 50), bool)
    known[:, 1] = False
    picture = pictures.completions(images, known, completed, 17)
    assert picture.shape == (2 * 3 * 50 + 2, 3 * 50 + 4, 3)
    for item in range(2):
        original, damaged, filled = (
            picture[top : top + 48, 2:-2] for top in 2 + 50 * (3 * item + np.arange(3))
        )
        for time in range(3):
            at = slice(50 * time, 50 * (time + 1))
            true = pictures.to_pixels(images[item, time], 17)
            np.testing.assert_array_equal(original[:, at], true)
            seen = np.full_like(true, pictures.MISSING_COLOUR) if time == 1 else true
            np.testing.assert_array_equal(damaged[:, at], seen)
            made = pictures.to_pixels(completed[item, 0, time], 17)
            np.testing.assert_array_equal(filled[:, at], made)


def test_folders_only_where_they_are_allowed(tmp_path):
    pictures.require_out(f"{tmp_path}", folder=True)
    pictures.require_out(f"{tmp_path}/new/", folder=True)
    for out in (f"{tmp_path}", f"{tmp_path}/new/"):
        with pytest.raises(UserError, match=r"\.png or \.npz"):
            pictures.require_out(out, folder=False)


@pytest.mark.parametrize(
    ("name", "write", "picture"),
    [
        ("a.png", pictures.write_png, np.zeros((2, 2, 3), np.uint8)),
        ("a.gif", animations.write_gif, np.zeros((2, 2, 2, 3), np.uint8)),
    ],
)
def test_an_old_file_stays_when_writing_fails(tmp_path, monkeypatch, name, write, picture):
    path = tmp_path / name
    path.write_bytes(b"old")

    def fail(*_, **__):
        raise OSError("no space")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(UserError, match="no space"):
        write(path, picture)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("folder", [True, False])
def test_an_empty_out_is_not_the_current_folder(folder):
    with pytest.raises(UserError, match=r"--out must be a file .*got ''"):
        pictures.require_out("", folder=folder)
