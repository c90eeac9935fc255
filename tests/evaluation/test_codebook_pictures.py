"""The codes of a codebook as images: where they are common, and how often."""

import numpy as np
import pytest

from rnngen_jax.evaluation import code_maps, codebook_pictures, pictures
from rnngen_jax.shapes import ImageSpec

GRID, IMAGE = ImageSpec(3, 4, 2, levels=6), ImageSpec(5, 8, 1, levels=17)


def by_hand(grids, codes):
    """`typical` with loops."""
    num, height, width = grids.shape
    sides = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if i or j]
    found, often = np.full((codes, 3), -1), {}
    places = [(n, i, j) for n in range(num) for i in range(height) for j in range(width)]

    def neighbours(n, i, j):
        for di, dj in sides:
            if 0 <= i + di < height and 0 <= j + dj < width:
                yield di, dj, grids[n, i + di, j + dj]

    for place in places:
        for beside in neighbours(*place):
            pair = grids[place], *beside
            often[pair] = often.get(pair, 0) + 1
    best = {}
    for place in places:
        each = [often[grids[place], *beside] for beside in neighbours(*place)]
        usual = len(each), np.round(np.exp(np.mean(np.log(each))), 9)
        if usual > best.get(grids[place], (-1, 0)):
            best[grids[place]], found[grids[place]] = usual, place
    return found


@pytest.mark.parametrize(("shape", "codes"), [((6, 4, 5), 4), ((9, 2, 2), 3), ((5, 1, 6), 3)])
def test_the_commonest_surroundings_by_hand(shape, codes):
    grids = np.random.default_rng(0).integers(0, codes, shape).astype(np.uint8)
    grids[grids == 1] = 0  # a code that is nowhere
    found = codebook_pictures.typical(grids, codes)
    np.testing.assert_array_equal(found, by_hand(grids, codes))
    assert (found[1] == -1).all()


def test_a_grid_of_one_place_has_no_neighbours():
    found = codebook_pictures.typical(np.array([2, 0, 2]).reshape(3, 1, 1), 3)
    np.testing.assert_array_equal(found, [[1, 0, 0], [-1] * 3, [0, 0, 0]])


def decode(params, extra, grids):
    """A decoder that shows the first depth's codes, and has both as the vectors."""
    del params, extra
    mean = code_maps.enlarged(grids[-1][..., :1] / 10, GRID, IMAGE)
    return mean.astype(np.float32), [grid.astype(np.float32) for grid in grids]


def shown(grids, most=6):
    return codebook_pictures.code_images(decode, {}, {}, [grids], [GRID], IMAGE, 0, most)


@pytest.fixture
def found():
    grids = np.random.default_rng(1).integers(0, 5, (8, *GRID.shape)).astype(np.uint8)
    grids[..., 1] = grids[..., 0] // 2  # so that codes of one depth come with those of the other
    return grids, shown(grids)


def test_codes_are_shown_in_the_order_of_their_use(found):
    grids, images = found
    for depth in range(2):
        used = np.bincount(grids[..., depth].ravel(), minlength=6)
        np.testing.assert_array_equal(images.counts[depth], used)
        assert (np.diff(used[images.shown[depth]]) <= 0).all()
    assert images.alone.shape == images.surrounded.shape == (2, 6, 6, 6, 1)
    # Alone, a code is everywhere within the image; 5 is used at neither depth.
    for code, alone in zip(images.shown[0], images.alone[0], strict=True):
        inside = alone[np.isfinite(alone)]
        np.testing.assert_allclose(inside, code / 10, rtol=1e-6)
        assert inside.size == 30  # the window goes one row beyond the image
    dead = images.shown[0] == 5
    assert np.isnan(images.surrounded[0][dead]).all()
    # In its place in the middle of its surroundings, too.
    middle = images.surrounded[0][~dead][:, 2, 2, 0]
    np.testing.assert_allclose(middle, images.shown[0][~dead] / 10, rtol=1e-6)


def test_a_code_has_the_codes_of_other_depths_beside_it(found):
    grids, images = found
    pairs = {tuple(pair) for pair in grids.reshape(-1, 2)}
    for depth in range(2):
        for code, vector in zip(images.shown[depth], images.vectors[depth], strict=True):
            assert vector[depth] == code
            if images.counts[depth, code]:
                assert tuple(vector) in pairs
            else:
                assert vector[1 - depth] == images.counts[1 - depth].argmax()


def test_fewer_codes_are_the_first_ones():
    grids = np.random.default_rng(1).integers(0, 5, (8, *GRID.shape)).astype(np.uint8)
    all_of, few = (shown(grids, most) for most in (6, 2))
    np.testing.assert_array_equal(few.alone, all_of.alone[:, :2])
    np.testing.assert_array_equal(few.counts, all_of.counts)


def test_a_level_alone_has_the_commonest_codes_of_the_other():
    rng = np.random.default_rng(3)
    top, bottom = rng.integers(0, 3, (8, 2, 2, 1)), rng.integers(0, 5, (8, *GRID.shape))
    top[:, 0] = 2
    specs = [ImageSpec(2, 2, 1, levels=3), GRID]
    seen = []

    def decode_both(params, extra, grids):
        seen.append(grids)
        return decode(params, extra, grids)

    given = [grid.astype(np.uint8) for grid in (top, bottom)]
    codebook_pictures.code_images(decode_both, {}, {}, given, specs, IMAGE, 1, 6)
    alone, surrounded = seen[:2]
    assert (alone[0] == 2).all()
    assert (alone[1] == alone[1][:, :1, :1]).all()
    pairs = {(t.tobytes(), b.tobytes()) for t, b in zip(*given, strict=True)}
    assert {(t.tobytes(), b.tobytes()) for t, b in zip(*surrounded, strict=True)} <= pairs


def test_pictures_of_codes_are_in_threes(found):
    _, images = found
    colours = code_maps.fit(images.vectors)
    picture = codebook_pictures.of_codes(images, 0, colours)
    scale, gap = 8, pictures.GAP
    step = 6 * scale + gap
    assert picture.shape == (6 * step + gap, 3 * step + gap, 3)
    cells = [
        picture[row * step + gap : (row + 1) * step, column * step + gap : (column + 1) * step]
        for row in range(6)
        for column in range(3)
    ]
    for n, code in enumerate(images.shown[0]):
        swatch, alone, around = cells[3 * n : 3 * n + 3]
        assert (swatch == colours.of(images.vectors[0, n])).all()
        grey = pictures.to_bytes(np.float32(code / 10))
        assert (alone[scale * 2 : scale * 4, scale * 2 : scale * 4] == grey).all()
        empty = (around == pictures.GAP_COLOUR).all()
        assert empty == (images.counts[0, code] == 0)


def test_a_histogram_has_bars_of_the_codes_and_a_line_of_even_use(found):
    _, images = found
    colours = code_maps.fit(images.vectors)
    picture = codebook_pictures.of_usage(images, colours)
    width, height = codebook_pictures.BARS
    bar, gap = width // 6, pictures.GAP
    assert picture.shape == (2 * (height + gap) + gap, 6 * bar + 2 * gap, 3)
    for depth, used in enumerate(images.counts):
        part = picture[gap + depth * (height + gap) :][:height, gap:-gap]
        line = (part == codebook_pictures.LINE_COLOUR).all(-1).all(1)
        assert np.flatnonzero(line) == [height - round(used.mean() / used.max() * height)]
        for n, code in enumerate(images.shown[depth]):
            column = part[~line, n * bar]
            tall = (column == colours.of(images.vectors[depth, n])).all(-1).sum()
            want = np.ceil(used[code] / used.max() * height)
            assert abs(tall - want) <= 1  # the line lies on top


def test_maps_are_between_the_images_and_their_reconstructions():
    rng = np.random.default_rng(2)
    images = rng.integers(0, 17, (3, *IMAGE.shape)).astype(np.uint8)
    grids = rng.integers(0, 6, (3, *GRID.shape))
    mean, (vectors,) = decode({}, {}, [grids])
    top = rng.normal(size=(3, 2, 2, 3))
    colours, specs = [code_maps.fit(top), code_maps.fit(vectors)], [ImageSpec(2, 2), GRID]
    picture = codebook_pictures.of_maps(images, mean, [top, vectors], colours, specs, IMAGE)
    each = zip(colours, [top, vectors], specs, strict=True)
    maps = [code_maps.enlarged(own.of(codes), spec, IMAGE) for own, codes, spec in each]
    expected = pictures.to_pixels(pictures.to_bytes(mean), 256)
    rows = [pictures.to_pixels(images, 17), *maps, expected]
    np.testing.assert_array_equal(picture, pictures.tile(np.stack(rows)))
