import jax
import numpy as np
import pytest

from rnngen_jax.ops import masks


def test_halves_are_named_after_what_is_missing():
    np.testing.assert_array_equal(masks.lower(3, 2), [[True, True], [False] * 2, [False] * 2])
    np.testing.assert_array_equal(masks.upper(3, 2), [[False] * 2, [True, True], [True, True]])


@pytest.mark.parametrize(("height", "width"), [(8, 8), (7, 5), (2, 3), (1, 1), (28, 28)])
def test_centre_misses_a_box_of_half_the_size(height, width):
    missing = ~np.asarray(masks.centre(height, width))
    rows, columns = missing.any(1), missing.any(0)
    assert rows.sum() == max(height // 2, 1)
    assert columns.sum() == max(width // 2, 1)
    np.testing.assert_array_equal(missing, np.outer(rows, columns))
    before, after = rows.argmax(), rows[::-1].argmax()
    assert 0 <= after - before <= 1


@pytest.mark.parametrize("fraction", [0.0, 0.25, 0.5, 1.0])
def test_random_misses_the_exact_share_everywhere(fraction):
    key = jax.random.key(0)
    known = np.asarray(masks.random_each(key, np.arange(400), 6, 4, fraction))
    assert known.shape == (400, 6, 4)
    np.testing.assert_array_equal((~known).sum((1, 2)), round(fraction * 24))
    assert abs((~known).mean(0) - fraction).max() < 0.12  # five standard deviations


def test_random_each_is_keyed_by_the_index_alone():
    key = jax.random.key(3)
    all_masks = np.asarray(masks.random_each(key, np.arange(10), 4, 4))
    some = np.asarray(masks.random_each(key, np.array([7, 2]), 4, 4))
    np.testing.assert_array_equal(some, all_masks[[7, 2]])
    assert len({mask.tobytes() for mask in all_masks}) > 5
