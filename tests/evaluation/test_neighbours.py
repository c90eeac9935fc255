import numpy as np
import pytest

from rnngen_jax.errors import UserError
from rnngen_jax.evaluation import neighbours, pictures

RNG = np.random.default_rng(2)
N, M, H, W, C, K = 5, 40, 4, 3, 2, 3
POOL = RNG.integers(0, 256, (M, H, W, C), dtype=np.uint8)
SAMPLES = RNG.integers(0, 256, (N, H, W, C), dtype=np.uint8)
SAMPLES[1] = POOL[17]


def by_sorting(samples, pool, k):
    """Indices and distances from all differences, ties by index."""
    x, y = (array.reshape(len(array), -1).astype(np.float64) for array in (samples, pool))
    distances = np.sqrt(((x[:, None] - y) ** 2).sum(-1))
    order = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(distances, order, 1)


def in_pieces(pool, *ends):
    return (
        (start, pool[start:end]) for start, end in zip((0, *ends), (*ends, len(pool)), strict=True)
    )


def test_nearest_images_and_how_far_they_are():
    index, distance = neighbours.nearest(SAMPLES, POOL, K)
    want, far = by_sorting(SAMPLES, POOL, K)
    np.testing.assert_array_equal(index, want)
    np.testing.assert_allclose(distance, far / 255, rtol=1e-15)
    assert index.dtype == np.int64
    assert (index[1, 0], distance[1, 0]) == (17, 0)


def test_black_and_white_are_as_far_apart_as_pixels_are_many():
    black, white = np.zeros((1, H, W, C), np.uint8), np.full((1, H, W, C), 16, np.uint8)
    _, distance = neighbours.nearest(black, white, 1, levels=17)
    np.testing.assert_allclose(distance, np.sqrt(H * W * C), rtol=1e-15)


def test_pieces_change_nothing_and_ties_go_to_the_first():
    few = np.repeat(POOL % 2, 2, axis=0)  # of two levels, each image twice: many ties
    samples = SAMPLES % 2
    index, distance = neighbours.nearest(samples, few, 7, 2)
    np.testing.assert_array_equal(index, by_sorting(samples, few, 7)[0])
    others = [neighbours.nearest(samples, few, 7, 2, rows=rows) for rows in (1, 3, 79)]
    others += [neighbours.nearest(samples, in_pieces(few, *ends), 7, 2) for ends in ([], [1, 50])]
    others.append(neighbours.nearest(samples, in_pieces(few, 33), 7, 2, rows=10))
    for found in others:
        np.testing.assert_array_equal(found[0], index)
        np.testing.assert_array_equal(found[1], distance)


def test_numbers_are_those_that_pieces_say():
    index, _ = neighbours.nearest(SAMPLES, [(100, POOL[:20]), (500, POOL[20:])], K)
    plain, _ = neighbours.nearest(SAMPLES, POOL, K)
    np.testing.assert_array_equal(index, np.where(plain < 20, plain + 100, plain + 480))


def test_large_images_stay_exact():
    # Sums of squares over 64x64x3 bytes exceed the precision of float32.
    pool = np.full((2, 64, 64, 3), 253, np.uint8)
    pool[1, 0, 0, 0] = 254
    samples = np.full((1, 64, 64, 3), 255, np.uint8)
    index, distance = neighbours.nearest(samples, pool, 2)
    np.testing.assert_array_equal(index, [[1, 0]])
    want = np.sqrt(np.array([4 * 64 * 64 * 3 - 3, 4 * 64 * 64 * 3])) / 255
    np.testing.assert_array_equal(distance[0], want)


def test_copies_are_at_no_distance_in_feature_space():
    pool = RNG.standard_normal((M, 50)).astype(np.float32)
    index, distance = neighbours.in_features(pool, pool, 2)
    np.testing.assert_array_equal(index[:, 0], np.arange(M))
    np.testing.assert_array_equal(distance[:, 0], 0)
    assert distance[:, 1].min() > 1


@pytest.mark.parametrize("rows", [None, 1, 7])
def test_in_features(rows):
    # Far from zero, so that plain inner products would lose the distance entirely.
    pool = RNG.standard_normal((M, 6)) * 1e-3 + 1e3
    samples = RNG.standard_normal((N, 6)) * 1e-3 + 1e3
    samples[2] = pool[31]
    index, distance = neighbours.in_features(samples, pool, K, rows)
    want, far = by_sorting(samples, pool, K)
    np.testing.assert_array_equal(index, want)
    np.testing.assert_allclose(distance, far, rtol=1e-12)
    assert (index[2, 0], distance[2, 0]) == (31, 0)


def test_what_does_not_fit_is_said():
    with pytest.raises(UserError, match=r"neighbours must be ≤ 40 .*got 41"):
        neighbours.nearest(SAMPLES, POOL, M + 1)
    with pytest.raises(UserError, match="neighbours must be ≥ 1, got 0"):
        neighbours.nearest(SAMPLES, POOL, 0)
    with pytest.raises(UserError, match="image size"):
        neighbours.nearest(SAMPLES, POOL[:, 1:], 1)
    with pytest.raises(UserError, match=r"neighbours must be ≤ 2 .*got 3"):
        neighbours.in_features(np.zeros((2, 4)), np.zeros((2, 4)), 3)
    with pytest.raises(UserError, match="number of features"):
        neighbours.in_features(np.zeros((2, 4)), np.zeros((2, 1)), 1)


def test_picture_has_a_row_a_sample():
    samples, pool = SAMPLES[..., :1], POOL[..., :1]
    index, _ = neighbours.nearest(samples, pool, K)
    rows = neighbours.picture_rows(samples, pool[index])
    assert rows.shape == (N, 1 + K, H, W, 1)
    np.testing.assert_array_equal(rows[:, 0], samples)
    np.testing.assert_array_equal(rows[3, 2], pool[index[3, 1]])
    drawn = neighbours.picture(samples, index, lambda numbers: pool[numbers], 256)
    np.testing.assert_array_equal(drawn, pictures.tile(pictures.to_pixels(rows, 256)))
