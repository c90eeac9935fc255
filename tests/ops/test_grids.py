"""Neighbours, channel masks and diagonals, against plain loops over places."""

import itertools

import jax
import numpy as np
import pytest

from rnngen_jax.ops import grids

SIZES = [(3, 5), (4, 3), (4, 1), (1, 4)]
TAPS = {
    "square": grids.before(2),
    "flat": grids.before(2, rows=1),
    "left": (*grids.left(2), (0, 0)),
    "own": ((0, 0),),
    "neighbours": ((0, 0), (0, -1), (-1, 0)),
}


def drawn(*shape):
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def places(height, width):
    return itertools.product(range(height), range(width))


def at(x, row, column):
    """`x[row, column]`, 0 outside."""
    inside = 0 <= row < x.shape[0] and 0 <= column < x.shape[1]
    return x[row, column] if inside else np.zeros_like(x[0, 0])


def test_places_before_a_pixel_are_those_of_its_square_in_raster_order():
    around = list(itertools.product(range(-2, 3), repeat=2))
    assert list(grids.before(2)) == [place for place in around if place < (0, 0)]
    assert list(grids.before(2, rows=1)) == [p for p in around if (-1, -2) <= p < (0, 0)]
    assert grids.left(3) == ((0, -3), (0, -2), (0, -1))


@pytest.mark.parametrize("taps", TAPS.values(), ids=TAPS)
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_a_pixel_sees_its_neighbours_in_whole_maps_and_in_a_samplers_rows(height, width, taps):
    x = drawn(height, width, 2, 3)
    seen = np.asarray(jax.jit(lambda x: grids.gather(x, taps))(x))

    @jax.jit
    def draw_and_look(rows, x, column):
        rows = grids.put(rows, taps, x, column)
        return rows, grids.next_row(rows), grids.look(rows, taps, column)

    rows = grids.first_rows(taps, width, 2, 3)
    for row, column in places(height, width):
        expected = [at(x, row + up, column + aside) for up, aside in taps]
        np.testing.assert_array_equal(seen[row, column], np.concatenate(expected, axis=-1))
        rows, below, looked = draw_and_look(rows, x[row, column], column)
        np.testing.assert_array_equal(looked, seen[row, column])
        rows = below if column == width - 1 else rows


@pytest.mark.parametrize("count", [1, 2, 6])
def test_images_side_by_side_have_a_column_of_zeros_between_them(count):
    height, width, batch = 2, 3, 6
    x = drawn(height, width, batch, 4)
    line = np.asarray(jax.jit(lambda x: grids.side_by_side(x, count))(x))
    assert line.shape == (height, count * (width + 1) - 1, batch // count, 4)
    for n in range(count):
        start, images = n * (width + 1), slice(n * batch // count, (n + 1) * batch // count)
        np.testing.assert_array_equal(line[:, start : start + width], x[:, :, images])
        np.testing.assert_array_equal(line[:, start + width : start + width + 1], 0)
    np.testing.assert_array_equal(grids.batched(line, count), x)


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("rest", [(), (2, 3)])
def test_skewing_makes_columns_of_diagonals_and_back(height, width, rest):
    x = drawn(height, width, *rest)
    y = drawn(width + height - 1, height, *rest)
    skewed, unskewed = np.zeros_like(y), np.zeros_like(x)
    for row, column in places(height, width):
        skewed[row + column, row] = x[row, column]
        unskewed[row, column] = y[row + column, row]

    @jax.jit
    def all_ways(x, y):
        def unskew(y):
            return grids.unskew(y, width)

        transposed = jax.vjp(grids.skew, x)[1](y), jax.vjp(unskew, y)[1](x)
        return grids.skew(x), unskew(y), unskew(grids.skew(x)), *transposed

    # Both move values and leave zeros elsewhere, so each is the transpose of the other.
    for got, wanted in zip(
        all_ways(x, y), (skewed, unskewed, x, (unskewed,), (skewed,)), strict=True
    ):
        jax.tree.map(np.testing.assert_array_equal, got, wanted)


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize(("sources", "targets"), [(6, 6), (7, 4), (4, 8), (3, 9), (2, 5)])
def test_channel_masks_let_groups_see_earlier_ones(channels, sources, targets):
    def groups(features):
        """The channel of each feature: those in [0, 1/C), [1/C, 2/C), ... of their number."""
        return [
            next(c for c in range(channels) if n < features * (c + 1) / channels)
            for n in range(features)
        ]

    masks = {kind: grids.channel_mask(kind, channels, sources, targets) for kind in "AB"}
    for (m, source), (n, target) in itertools.product(
        enumerate(groups(sources)), enumerate(groups(targets))
    ):
        assert masks["A"][m, n] == (source < target)
        assert masks["B"][m, n] == (source <= target)
    if channels == 1:
        assert not masks["A"].any()
        assert masks["B"].all()
    for features in (sources, targets):
        sizes = np.bincount(groups(features), minlength=channels)
        assert sizes.max() - sizes.min() <= 1
    taps = ((-1, 1), (0, -1), (0, 0))
    for kind, own in masks.items():
        above, left, here = np.split(grids.tap_mask(kind, channels, taps, sources, targets), 3)
        assert above.all()
        assert left.all()
        np.testing.assert_array_equal(here, own)


def test_features_first_the_taps_are_the_same():
    taps = ((-1, -1), (-1, 2), (0, -2), (0, 0))
    x = np.random.default_rng(0).standard_normal((3, 4, 2, 5))
    both = jax.jit(lambda x: (grids.gather_columns(x, taps), grids.gather(x, taps)))(x)
    np.testing.assert_array_equal(*both)
