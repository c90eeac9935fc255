"""Each pixel's distribution depends on exactly the earlier pixels that the papers state.

The expected sets come from the papers' figures, as set equations over places; the models' own are
found by changing one pixel at a time. Places are those of the model's order, as if it were raster.

Paper 1 is van den Oord et al. 2016 (Pixel RNN), paper 2 is 2016b (Gated PixelCNN).
"""

import functools
import itertools

import jax
import numpy as np
import pytest
from pixel_models import built, positions, random_images

from rnngen_jax.shapes import ImageSpec

SPEC = ImageSpec(5, 7, levels=4)
IMAGES, DRAWS = 4, 3  # ReLUs that let nothing through for one image or draw do for another
FLAT = {"position": False, "pixels": "scalar"}


def places(spec):
    return list(itertools.product(range(spec.height), range(spec.width)))


def past(spec, place):
    return {other for other in places(spec) if other < place}


class Field(dict):
    """For each place of a map, the set of pixels that it depends on; empty outside the image."""

    def __missing__(self, place):
        return frozenset()


def over(spec, rule, order=None):
    """The map of sets that `rule(field, i, j)` gives, place by place, later ones from earlier."""
    field = Field()
    for i, j in order or places(spec):
        field[i, j] = frozenset(rule(field, i, j))
    return field


def seen_by(field, i, j, taps):
    """What position (i, j) depends on through a kernel."""
    return frozenset().union(*(field[i + up, j + aside] for up, aside in taps))


def square(radius):
    """The part of a square kernel before its middle."""
    aside = range(-radius, radius + 1)
    return [(up, n) for up in range(-radius, 1) for n in aside if (up, n) < (0, 0)]


def first_map(spec, radius):
    inside = set(places(spec))
    return over(
        spec, lambda _, i, j: inside & {(i + up, j + aside) for up, aside in square(radius)}
    )


def row_lstm(spec, first, kernel, *, linear=False):
    """Paper 1, section 3.1: a triangle of states, each with inputs from its own row's left."""
    r, x = kernel // 2, first_map(spec, first // 2)
    left, above = [(0, -n) for n in range(r + 1)], [(-1, n) for n in range(-r, r + 1)]
    if linear:  # its gates see the inputs above; its state goes straight down
        return over(spec, lambda h, i, j: seen_by(x, i, j, left + above) | h[i - 1, j])
    return over(spec, lambda h, i, j: seen_by(x, i, j, left) | seen_by(h, i, j, above))


def diagonal_bilstm(spec, first, *, linear=False):
    """Paper 1, section 3.2: from the left and above; and from the right, in the row above."""
    x = first_map(spec, first // 2)

    def side(back):
        def rule(h, i, j):
            if linear:  # its gates see the inputs of both neighbours; its state goes along the row
                return seen_by(x, i, j, [(0, 0), (0, back), (-1, 0)]) | h[i, j + back]
            return x[i, j] | h[i, j + back] | h[i - 1, j]

        return over(
            spec, rule, sorted(places(spec), key=lambda place: (place[0], -back * place[1]))
        )

    left, right = side(-1), side(1)
    return over(spec, lambda _, i, j: x[i, j] | left[i, j] | right[i - 1, j])


def pixel_cnn(spec, first, kernel, layers):
    """Paper 1, section 3.5: each layer widens the map by its kernel."""
    x, taps = first_map(spec, first // 2), [*square(kernel // 2), (0, 0)]
    for _ in range(layers):
        x = over(spec, lambda _, i, j, x=x: seen_by(x, i, j, taps))
    return x


def gated_pixel_cnn(spec, first, kernel, layers):
    """Paper 2, figure 2: the vertical stack sees rows above; the horizontal one its own too."""
    (r0, r), inside = (first // 2, kernel // 2), set(places(spec))
    ups = [(up, n) for up, n in square(r0) if up < 0]
    above = over(spec, lambda _, i, j: inside & {(i + up, j + n) for up, n in ups})
    x = over(spec, lambda _, i, j: inside & {(i, j - n) for n in range(1, r0 + 1)})
    around = list(itertools.product(range(-r, 1), range(-r, r + 1)))
    for _ in range(layers):
        above = over(spec, lambda _, i, j, v=above: seen_by(v, i, j, around))
        x = over(
            spec,
            lambda _, i, j, x=x, v=above: (
                v[i, j] | seen_by(x, i, j, [(0, -n) for n in range(r + 1)])
            ),
        )
    return x


@functools.cache
def probe(spec):
    """Images, and for each place in raster order the same with another value there."""
    images = random_images(spec, 0, IMAGES)
    changed = np.repeat(images[None], spec.height * spec.width, axis=0)
    for n, place in enumerate(places(spec)):
        at = (slice(None), *place)
        changed[n][at] = (changed[n][at] + 1 + np.arange(IMAGES)[:, None] % 3) % spec.levels
    return np.repeat(images[None], len(changed), axis=0), changed


def found(case):
    """The pixels that each place's outputs depend on, found by changing one at a time."""
    name, fields, spec = case
    before, after = probe(spec)
    order = positions(case).tolist()  # (row, column) of the image for each place, in raster order
    differ = np.zeros((spec.height * spec.width, spec.height, spec.width), bool)
    compiled = None
    for seed in range(DRAWS):
        model, params, extra = built((name, FLAT | fields, spec), seed)
        compiled = compiled or jax.jit(model.conditionals)
        one, other = (
            np.asarray(compiled(params, extra, images.reshape(-1, *spec.shape)))
            for images in (before, after)
        )
        moved = (one != other).any((3, 4)).reshape(len(before), IMAGES, spec.height, spec.width)
        differ |= moved.any(1)
    # From the image's rows and columns to places of the order.
    columns = spec.height if fields.get("order") == "column" else spec.width
    place = {tuple(pixel): divmod(n, columns) for n, pixel in enumerate(order)}
    field = {place[pixel]: set() for pixel in places(spec)}
    for n, pixel in enumerate(places(spec)):
        for seer in places(spec):
            if differ[n][seer]:
                field[place[seer]].add(place[pixel])
    return field


DIAGONAL = ("diagonal_bilstm", {}, SPEC)
ROW = ("row_lstm", {"kernel": 3}, SPEC)
PLAIN = ("pixel_cnn", {"kernel": 5, "layers": 2}, SPEC)
GATED = ("pixel_cnn", {"kernel": 5, "layers": 3, "gated": True}, SPEC)
TURNED = ImageSpec(7, 5, levels=4)

FIELDS = [
    (ROW, row_lstm(SPEC, 3, 3)),
    (("row_lstm", {"kernel": 5, "order": "column"}, TURNED), row_lstm(SPEC, 3, 5)),
    (("row_lstm", {"cell": "min_gru"}, SPEC), row_lstm(SPEC, 3, 3, linear=True)),
    (DIAGONAL, diagonal_bilstm(SPEC, 3)),
    (("diagonal_bilstm", {"cell": "gru", "order": "reverse"}, SPEC), diagonal_bilstm(SPEC, 3)),
    (("diagonal_bilstm", {"cell": "min_gru"}, SPEC), diagonal_bilstm(SPEC, 3, linear=True)),
    (PLAIN, pixel_cnn(SPEC, 3, 5, 2)),
    (
        ("pixel_cnn", {"layers": 2, "first_kernel": 5, "order": "reverse"}, SPEC),
        pixel_cnn(SPEC, 5, 3, 2),
    ),
    (GATED, gated_pixel_cnn(SPEC, 3, 5, 3)),
    (("pixel_cnn", {"gated": True, "order": "column"}, TURNED), gated_pixel_cnn(SPEC, 3, 3, 1)),
]


def field_name(case):
    return "-".join([case[0], *(f"{key}={value}" for key, value in case[1].items())])


@pytest.mark.parametrize(("case", "expected"), FIELDS, ids=[field_name(case) for case, _ in FIELDS])
def test_a_pixel_depends_on_those_that_it_should_see_and_on_no_others(case, expected):
    got = found(case)
    for place in places(SPEC):
        assert got[place] == expected[place]
        assert got[place] <= past(SPEC, place)


def test_the_row_lstm_sees_a_triangle():
    def triangle(i, j):
        return {(i - up, n) for up in range(i + 1) for n in range(j - 2 - up, j + up + 1)}

    field = row_lstm(SPEC, 3, 3)
    for place in places(SPEC):
        assert field[place] == triangle(*place) & past(SPEC, place)


def test_the_diagonal_bilstm_sees_the_whole_past_but_for_the_last_pixel_of_the_row_above():
    """No state of the row above depends on that row's last pixel, which would come after it."""
    field = diagonal_bilstm(SPEC, 3)
    for i, j in places(SPEC):
        out_of_reach = {(i - 1, SPEC.width - 1)} if i and j + 1 < SPEC.width - 1 else set()
        assert past(SPEC, (i, j)) - field[i, j] == out_of_reach


def test_pixel_cnn_has_a_blind_spot_at_any_depth_and_the_gated_one_has_none():
    deep, gated = pixel_cnn(SPEC, 3, 5, layers=20), gated_pixel_cnn(SPEC, 3, 5, layers=3)
    for i, j in places(SPEC):
        blind = past(SPEC, (i, j)) - deep[i, j]
        # Upwards by u rows it reaches 1 + 2 (u - 1) places to the right, and never further.
        assert blind == {(m, n) for m, n in past(SPEC, (i, j)) if m < i and n >= j + 2 * (i - m)}
        assert gated[i, j] == past(SPEC, (i, j)) >= blind
