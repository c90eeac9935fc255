"""Animated GIFs as Pillow reads them back, and the places of their boxes."""

import numpy as np
import pytest
from PIL import Image

from rnngen_jax.errors import UserError
from rnngen_jax.evaluation import animations, code_maps, pictures
from rnngen_jax.evaluation.drawing import Film
from rnngen_jax.models.base import Canvases
from rnngen_jax.shapes import ImageSpec

COLOUR = (255, 0, 128)


def read(path):
    """Frames `[F, H, W, 3]`, their durations in milliseconds, and the file's other information."""
    with Image.open(path) as image:
        frames, times = [], []
        for number in range(image.n_frames):
            image.seek(number)
            frames.append(np.asarray(image.convert("RGB")))
            times.append(image.info["duration"])
        return np.stack(frames), times, image.info


def noise(*shape, most=256):
    return np.random.default_rng(0).integers(0, most, shape, dtype=np.uint8)


def test_up_to_256_colours_come_back_as_they_are(tmp_path):
    palette = noise(256, 3)
    frames = palette[noise(5, 20, 30)]
    animations.write_gif(tmp_path / "a.gif", frames, 120, hold=900)
    found, times, info = read(tmp_path / "a.gif")
    np.testing.assert_array_equal(found, frames)
    assert times == [120] * 4 + [900]
    assert info["loop"] == 0  # for ever


def test_all_greys_and_the_colours_of_boxes_fit(tmp_path):
    frames = np.repeat(noise(3, 40, 40)[..., None], 3, axis=-1)
    frames[:, :2] = COLOUR
    frames[:, 2:4] = animations.READ_COLOUR
    assert len(np.unique(frames.reshape(-1, 3), axis=0)) == 258
    animations.write_gif(tmp_path / "a.gif", frames)
    found, _, _ = read(tmp_path / "a.gif")
    np.testing.assert_array_equal(found[:, :4], frames[:, :4])
    assert (found == found[..., :1])[:, 4:].all()  # greys are greys
    assert abs(found.astype(int) - frames).max() <= 1
    np.testing.assert_array_equal(found[frames == 0], 0)
    np.testing.assert_array_equal(found[frames == 255], 255)


def test_colour_is_near_and_its_greys_are_greys(tmp_path):
    down, across = np.mgrid[:64, :64] * 4
    frames = np.stack([np.stack([down, across, 255 - down], -1)] * 2).astype(np.uint8)
    frames[1] //= 2
    frames[:, :, :8] = noise(2, 64, 8, 1)
    animations.write_gif(tmp_path / "a.gif", frames)
    found, _, _ = read(tmp_path / "a.gif")
    away = abs(found.astype(int) - frames)
    assert (found == found[..., :1])[:, :, :8].all()
    assert away[:, :, :8].max() <= 255 / (animations.GREYS - 1) / 2 + 1
    assert away.mean() < 10


def test_what_stands_still_takes_the_time_of_its_frames(tmp_path):
    frames = noise(2, 4, 4, 3)[[0, 0, 1]]
    animations.write_gif(tmp_path / "a.gif", frames, 100, hold=400)
    found, times, _ = read(tmp_path / "a.gif")
    np.testing.assert_array_equal(found, frames[1:])
    assert times == [200, 400]


def test_webp_is_without_loss(tmp_path):
    frames = noise(3, 8, 9, 3)
    animations.write_animation(f"{tmp_path}/a.webp", frames, 100, hold=400)
    found, times, _ = read(tmp_path / "a.webp")
    np.testing.assert_array_equal(found, frames)
    assert times == [100, 100, 400]
    with pytest.raises(UserError, match=r"a.webp: the longer side .* ≤ 16383 pixels"):
        animations.write_animation(f"{tmp_path}/a.webp", np.zeros((1, 1, 16384, 3), np.uint8))


@pytest.mark.parametrize(("num", "want"), [(2, [0, 1]), (4, [0, 1, 2, 3, 2, 1])])
def test_forth_and_back_shows_no_end_twice(num, want):
    np.testing.assert_array_equal(animations.forth_and_back(np.arange(num)), want)


# Boxes on an image of 8x8 pixels, and the rows and columns of their outlines.
BOXES = [
    ((2, 3, 4, 6), (2, 5), (3, 7)),
    ((2.5, 3, 4, 6.5), (2.5, 5), (3, 7.5)),
    ((0, 0, 7, 7), (0, 8), (0, 8)),
    ((-3, 2, 3, 50), (0, 4), (2, 8)),
    ((-np.inf, -1e30, 1e30, np.inf), (), ()),
    ((-9, 0, -2, 7), (), ()),
    ((0, 8, 7, 20), (), ()),
    ((np.nan, 0, 7, 7), (), ()),
]


@pytest.mark.parametrize(("box", "rows", "columns"), BOXES)
def test_a_box_goes_round_its_pixels_and_is_cut_off_at_the_image(box, rows, columns):
    # Five images in two rows of three; the box is on the last one.
    pixels = noise(1, 5, 8, 8, 1, most=200)
    frames = np.stack([pictures.grid(images, 256) for images in pixels])
    before = frames.copy()
    laid = pictures.layout(2, 3, 8, 8)
    drawn = animations.draw_boxes(frames, np.array([[box]]), laid, COLOUR, first=4)
    np.testing.assert_array_equal(frames, before)
    want, scale = np.zeros(frames.shape[1:3], bool), 6
    if rows:
        (top, bottom), (left, right) = (
            [round(edge * scale) + 50 * place + pictures.GAP for edge in edges]
            for edges, place in ((rows, 1), (columns, 1))
        )
        want[top:bottom, left:right] = True
        line = animations.LINE
        want[top + line : bottom - line, left + line : right - line] = False
    np.testing.assert_array_equal((drawn[0] == COLOUR).all(-1), want)
    np.testing.assert_array_equal(drawn[0][~want], before[0][~want])


def canvases(steps, num, read=True, write=True):
    mean = np.random.default_rng(1).random((steps, num, 8, 8, 1), np.float32)
    box = np.broadcast_to(np.array([2, 2, 5, 5.0]), (steps, num, 4))
    return Canvases(mean, box if read else None, box if write else None)


def has(frame, colour):
    return (frame == colour).all(-1).any()


def test_samples_come_about_in_a_grid_and_end_without_boxes():
    frames = animations.sampled(canvases(3, 5))
    assert frames.shape == (4, 102, 152, 3)
    assert all(has(frame, animations.WRITE_COLOUR) for frame in frames[:3])
    assert not any(has(frame, animations.READ_COLOUR) for frame in frames)
    final = pictures.to_bytes(canvases(3, 5).mean[-1])
    np.testing.assert_array_equal(frames[-1], pictures.grid(final, 256))
    plain = animations.sampled(canvases(3, 5, write=False))
    np.testing.assert_array_equal(plain[2], plain[3])


def test_rebuilding_reads_above_and_writes_below():
    images = noise(4, 8, 8, 1, most=17)
    frames = animations.reconstructed(images, canvases(3, 4), 17)
    assert frames.shape == (4, 102, 202, 3)
    for frame in frames[:3]:
        assert has(frame[:51], animations.READ_COLOUR)
        assert not has(frame[51:], animations.READ_COLOUR)
        assert has(frame[51:], animations.WRITE_COLOUR)
        assert not has(frame[:51], animations.WRITE_COLOUR)
    want = pictures.reconstructions(images, canvases(3, 4).mean[-1], 17)
    np.testing.assert_array_equal(frames[-1], want)
    cell = frames[0][2:50, 2:50][:6, :6]  # the first pixel of the first original
    assert (cell == pictures.to_pixels(images, 17)[0, 0, 0]).all()


IMAGE, GRIDS = ImageSpec(8, 8, levels=17), (ImageSpec(1, 1, levels=5), ImageSpec(2, 2, levels=5))


def film(num, levels):
    """Codes in raster order, a single one above them if there are two levels."""
    rng = np.random.default_rng(2)
    known = np.arange(5)[:, None] > np.arange(4)
    if levels == 2:
        known = np.arange(6)[:, None] > np.arange(5)
    parts = np.split(known, [levels - 1], axis=1)[2 - levels :]
    known = tuple(
        own.reshape(-1, *spec.shape[:2]) for own, spec in zip(parts, own_grids(levels), strict=True)
    )
    mean = rng.random((4 + levels, num, 8, 8, 1), np.float32)
    vectors = [rng.normal(size=(num, *spec.shape[:2], 3)) for spec in own_grids(levels)]
    return Film(mean, known, tuple(vectors))


def own_grids(levels):
    return GRIDS[2 - levels :]


def colours(levels):
    return [code_maps.fit(vectors) for vectors in film(3, levels).vectors]


def cell(frame, row, column):
    top, left = 2 + 50 * row, 2 + 50 * column
    return frame[top : top + 48, left : left + 48]


def outline(places, new):
    """The box round the place of a map of `places` to a side, or none."""
    box = np.zeros((48, 48), bool)
    if new is not None:
        size = 48 // places
        top, left = (size * side for side in divmod(new, places))
        box[top : top + size, left : left + size] = True
        box[top + 2 : top + size - 2, left + 2 : left + size - 2] = False
    return box


def assert_map(shown, places, drawn):
    """Each place of a map has one colour without its box: that of a gap until it is drawn."""
    size = 48 // places
    for place in range(places**2):
        top, left = (size * side for side in divmod(place, places))
        inside = shown[top + 2 : top + size - 2, left + 2 : left + size - 2].reshape(-1, 3)
        assert (inside == inside[0]).all()
        assert (inside[0] == pictures.GAP_COLOUR).all() == (place >= drawn)


def assert_parts(maps, image, levels, number, want):
    """The maps and the image of a frame, and their boxes."""
    last = number == 4 + levels  # which repeats the one before, without boxes
    drawn = min(number, 3 + levels)
    new = None if number == 0 or last else drawn - 1
    if levels == 2:
        assert_map(maps[0], 1, min(drawn, 1))
        boxes = [outline(1, 0 if new == 0 else None)]
        drawn, new = drawn - 1, None if new in (None, 0) else new - 1
    else:
        boxes = []
    assert_map(maps[-1], 2, max(drawn, 0))
    boxes.append(outline(2, new))
    for shown, box in zip([*maps, image], [*boxes, sum(boxes)], strict=True):
        found = (shown == animations.WRITE_COLOUR).all(-1)
        np.testing.assert_array_equal(found, box > 0)
    rest = ~(sum(boxes) > 0)
    np.testing.assert_array_equal(image[rest], want.repeat(6, 0).repeat(6, 1)[rest])


@pytest.mark.parametrize("levels", [1, 2])
def test_drawn_codes_are_beside_what_is_expected(levels):
    shown, means = film(3, levels), film(3, levels).mean
    frames = animations.sampled_codes(shown, colours(levels), own_grids(levels), IMAGE)
    per = 1 + levels
    assert frames.shape == (5 + levels, 102, 100 * per + 2, 3)  # a table of 2x2
    for number, frame in enumerate(frames):
        want = pictures.to_pixels(pictures.to_bytes(means[min(number, 3 + levels)]), 256)
        for n in range(3):
            row, column = divmod(n, 2)
            *maps, image = (cell(frame, row, per * column + part) for part in range(per))
            assert_parts(maps, image, levels, number, want[n])
        assert (cell(frame, 1, per) == pictures.GAP_COLOUR).all()


@pytest.mark.parametrize("levels", [1, 2])
def test_codes_of_images_are_below_them(levels):
    images, shown = noise(2, 8, 8, 1, most=17), film(2, levels)
    own = own_grids(levels)
    frames = animations.reconstructed_codes(images, shown, colours(levels), own, IMAGE)
    assert frames.shape == (5 + levels, 102 + 50 * levels, 102, 3)
    originals = pictures.to_pixels(images, 17).repeat(6, 1).repeat(6, 2)
    for number, frame in enumerate(frames):
        want = pictures.to_pixels(pictures.to_bytes(shown.mean[min(number, 3 + levels)]), 256)
        for n in range(2):
            original, *maps, image = (cell(frame, row, n) for row in range(2 + levels))
            assert_parts(maps, image, levels, number, want[n])
            read = (original == animations.READ_COLOUR).all(-1)
            np.testing.assert_array_equal(read, (image == animations.WRITE_COLOUR).all(-1))
            np.testing.assert_array_equal(original[~read], originals[n][~read])


def test_a_training_is_its_grids_in_order(tmp_path):
    assert animations.training(tmp_path) is None
    grids = [np.full((4, 6, 3), value, np.uint8) for value in (10, 200, 90)]
    for step, grid in zip((2, 10, 1000), grids, strict=True):
        pictures.write_png(tmp_path / f"step_{step:08}.png", grid)
    pictures.write_png(tmp_path / "other.png", grids[0])
    np.testing.assert_array_equal(animations.training(tmp_path), np.stack(grids))
    for step in range(2000, 2200):
        pictures.write_png(tmp_path / f"step_{step:08}.png", grids[1])
    many = animations.training(tmp_path)
    assert len(many) == animations.MOST_FRAMES
    np.testing.assert_array_equal(many[0], grids[0])
    pictures.write_png(tmp_path / "step_00003000.png", grids[0][:3])
    assert animations.training(tmp_path) is None  # sizes differ
