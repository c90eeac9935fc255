"""Pixel orders visit every pixel once, and neighbours are always earlier."""

import jax.numpy as jnp
import numpy as np
import pytest

from rnngen_jax.errors import UserError
from rnngen_jax.ops import orders


@pytest.mark.parametrize("order", orders.ORDERS)
def test_a_sequence_is_the_image_in_another_order(order):
    image = jnp.arange(2 * 3 * 4 * 2).reshape(2, 3, 4, 2)
    sequence = orders.to_sequence(image, order)
    assert sequence.shape == (12, 2, 2)
    for t, (row, column) in enumerate(orders.positions(order, 3, 4)):
        np.testing.assert_array_equal(sequence[t], image[:, row, column])
    np.testing.assert_array_equal(orders.from_sequence(sequence, order, 3, 4), image)


def test_the_orders_are_the_ones_promised():
    def walk(order):
        return [tuple(place) for place in orders.positions(order, 2, 3).tolist()]

    assert walk("raster") == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
    assert walk("serpentine") == [(0, 0), (0, 1), (0, 2), (1, 2), (1, 1), (1, 0)]
    assert walk("column") == [(0, 0), (1, 0), (0, 1), (1, 1), (0, 2), (1, 2)]
    with pytest.raises(UserError, match="did you mean 'raster'"):
        walk("rasters")


@pytest.mark.parametrize("order", orders.ORDERS)
@pytest.mark.parametrize(("previous", "above"), [(1, 0), (3, 0), (0, 1), (2, 2)])
def test_neighbours_are_earlier_pixels_in_the_right_places(order, previous, above):
    height, width = 4, 5
    where = orders.positions(order, height, width)
    table = orders.neighbours(order, height, width, previous, above)
    assert table.shape == (20, previous + above * (2 * above + 1))
    steps = np.arange(20)[:, None]
    assert ((table < steps) | (table == 20)).all()
    line = 1 if order == "column" else 0
    for t in range(20):
        assert table[t, :previous].tolist() == [
            t - n if t >= n else 20 for n in range(1, previous + 1)
        ]
        expected = {
            s
            for s in range(20)
            if 1 <= where[t, line] - where[s, line] <= above
            and abs(where[t, 1 - line] - where[s, 1 - line]) <= above
        }
        assert set(table[t, previous:].tolist()) - {20} == expected


@pytest.mark.parametrize("around", [0, 1, 2])
def test_the_places_of_a_coarser_grid_around_each_place(around):
    """7x5 places under 4x3: every two rows and columns have one place above them."""
    table = orders.coarser((7, 5), (4, 3), around)
    assert table.dtype == np.int32
    assert table.shape == (35, (2 * around + 1) ** 2)
    offsets = range(-around, around + 1)
    for t, (row, column) in enumerate(orders.positions("raster", 7, 5)):
        expected = []
        for up in offsets:
            for aside in offsets:
                r, c = row // 2 + up, column // 2 + aside
                expected.append(3 * r + c if 0 <= r < 4 and 0 <= c < 3 else 12)
        assert table[t].tolist() == expected
