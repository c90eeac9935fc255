"""Parallel and step-by-step evaluation agree, and no value depends on itself or a later one."""

import functools

import jax
import numpy as np
import pytest
from pixel_models import built, case_name, positions, random_images

from rnngen_jax.shapes import ImageSpec

IN_SEQUENCE = [
    ("pixel_rnn", {"order": "serpentine", "above": 2, "previous": 3}, ImageSpec(4, 3, levels=5)),
    ("pixel_rnn", {"order": "column", "layers": 2, "residual": True}, ImageSpec(3, 4, levels=5)),
    ("pixel_rnn", {"readout": "logistic_mixture", "pixels": "scalar"}, ImageSpec(3, 3, 3)),
    ("pixel_rnn", {"readout_hidden": 7, "cell": "lstm"}, ImageSpec(3, 3, 3, levels=4)),
    ("pixel_rnn", {"class_conditional": True}, ImageSpec(3, 3, levels=4, classes=2)),
    ("pixel_rnn", {}, ImageSpec(3, 3, levels=40)),
    ("row_rnn", {}, ImageSpec(4, 3, 3, levels=4)),
    ("row_rnn", {"readout": "logistic_mixture", "pixels": "scalar"}, ImageSpec(4, 3)),
    ("row_rnn", {"within": "autoregressive", "cell": "lstm"}, ImageSpec(4, 3, 3, levels=4)),
    ("row_rnn", {"within": "autoregressive", "layers": 2}, ImageSpec(4, 3, levels=4)),
    ("row_rnn", {"tied_readout": True}, ImageSpec(4, 3, levels=4)),
    ("code_rnn", {"above": 2, "previous": 2}, ImageSpec(3, 4, levels=40)),
    ("code_rnn", {"layers": 2, "cell": "lstm"}, ImageSpec(3, 3, 3, levels=4)),
    ("code_rnn", {"class_conditional": True}, ImageSpec(2, 3, 2, levels=4, classes=2)),
]
GREY = ImageSpec(4, 3, levels=5)
WIDE = ImageSpec(3, 5, levels=5)
COLOUR = ImageSpec(3, 4, 3, levels=4)
LABELLED = ImageSpec(3, 3, levels=4, classes=2)
PLAIN = {"learned_carry": False, "residual": False}
ON_GRIDS = [
    ("row_lstm", {"layers": 2, "kernel": 5}, WIDE),
    ("row_lstm", {"cell": "gru", "order": "column", "first_kernel": 7, "features": 5}, COLOUR),
    ("row_lstm", {"cell": "rg_lru", "layers": 2, "order": "reverse"}, COLOUR),
    ("row_lstm", {"cell": "min_lstm", "kernel": 5, "class_conditional": True}, LABELLED),
    ("row_lstm", {"cell": "rnn", "pixels": "scalar", **PLAIN}, GREY),
    ("diagonal_bilstm", {"layers": 2, "features": 5}, COLOUR),
    ("diagonal_bilstm", {"cell": "gru", "layers": 2, "first_kernel": 7}, WIDE),
    ("diagonal_bilstm", {"cell": "min_gru", "layers": 2, "order": "column"}, COLOUR),
    ("diagonal_bilstm", {"cell": "rg_lru", "class_conditional": True}, LABELLED),
    ("diagonal_bilstm", {"cell": "rnn", "order": "reverse", "pixels": "scalar", **PLAIN}, GREY),
    ("diagonal_bilstm", {}, ImageSpec(4, 1, levels=5)),
    ("pixel_cnn", {"layers": 2, "order": "column"}, COLOUR),
    ("pixel_cnn", {"kernel": 5, "first_kernel": 7, "order": "reverse"}, WIDE),
    ("pixel_cnn", {"gated": True, "layers": 2, "order": "reverse"}, COLOUR),
    ("pixel_cnn", {"gated": True, "kernel": 5, "first_kernel": 7, "residual": False}, GREY),
    (
        "pixel_cnn",
        {"gated": True, "readout": "logistic_mixture", "class_conditional": True},
        LABELLED,
    ),
]
CASES = IN_SEQUENCE + ON_GRIDS
NUM = 6


@functools.cache
def compiled(number):
    """A model with its parameters, and its outputs for `NUM` images, given parameters too."""
    model, params, extra = built(CASES[number])
    conditionals = jax.jit(model.conditionals)
    return model, params, extra, lambda images, label: conditionals(params, extra, images, label)


EACH = pytest.mark.parametrize("number", range(len(CASES)), ids=map(case_name, CASES))


OPTIMISED = (0, 8, 11, 16)  # pixels, rows, and two on a grid


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(number, marks=[pytest.mark.optimised] if number in OPTIMISED else [])
        for number in range(len(CASES))
    ],
    ids=map(case_name, CASES),
)
def test_step_by_step_outputs_are_the_teacher_forced_ones(number):
    model, params, extra, conditionals = compiled(number)
    spec = model.spec
    image = random_images(spec, 1, NUM)
    label = np.arange(NUM, dtype=np.int32) % max(spec.classes, 1)
    walk = jax.jit(model.walk)
    # On given images, with nothing left to draw; then on images drawn freely; then on half each.
    for share in (1.0, 0.0, 0.5):
        known = np.random.default_rng(2).random((NUM, spec.height, spec.width)) < share
        completed, raw = walk(params, extra, jax.random.key(3), image, known, label)
        np.testing.assert_allclose(raw, conditionals(completed, label), atol=1e-5)
        np.testing.assert_array_equal(np.asarray(completed)[known], np.asarray(image)[known])
        if share < 1:
            assert (completed != image).any()


def others(image, levels):
    """Another value for each: the opposite one, or 0 for the middle of an odd number of levels."""
    opposite = levels - 1 - image
    return np.where(opposite == image, 0, opposite).astype(np.uint8)


def visits(case):
    """Rows, columns and channels of all values in the model's own order."""
    channels = case[2].channels
    rows, columns = np.repeat(positions(case), channels, axis=0).T
    return rows, columns, np.tile(np.arange(channels), len(rows) // channels)


def changes(number, rest):
    """Outputs before and after a change at each value, `[V, V, P]` each, in the model's order.

    Args:
      number: of the case.
      rest: whether all later values change, too.
    """
    model, _, _, conditionals = compiled(number)
    image = random_images(model.spec, 1, 1)[0]
    other = others(image, model.spec.levels)
    order = visits(CASES[number])
    count, label = model.spec.dims, np.zeros(NUM, np.int32)
    changed = np.repeat(image[None], -(-count // NUM) * NUM, axis=0)
    for n in range(count):
        places = tuple(axis[n : None if rest else n + 1] for axis in order)
        changed[n][places] = other[places]

    def outputs(images):
        return np.asarray(conditionals(images, label))[:, *order]

    # Each image has the same position in both batches, so equal inputs give equal bits.
    before = outputs(np.repeat(image[None], NUM, axis=0))
    after = [outputs(images) for images in changed.reshape(-1, NUM, *image.shape)]
    return np.concatenate([before] * len(after))[:count], np.concatenate(after)[:count]


@EACH
def test_no_conditional_depends_on_its_own_or_a_later_value(number):
    """With all values from one on changed, the outputs up to it are the same to the bit."""
    name, fields, _ = CASES[number]
    before, after = changes(number, rest=True)
    rows, _, channels = visits(CASES[number])
    independent = name == "row_rnn" and "within" not in fields
    for n, row in enumerate(rows):
        np.testing.assert_array_equal(before[n, : n + 1], after[n, : n + 1])
        if independent:  # nor on any value of its own row
            np.testing.assert_array_equal(before[n, rows == row], after[n, rows == row])
    if not independent:  # not in vain: outputs do depend on the value just before, of each channel
        differ = np.diagonal((before != after).any(-1), 1)
        for channel in range(channels.max() + 1):
            assert differ[channels[:-1] == channel].any()


@pytest.mark.parametrize("number", range(len(IN_SEQUENCE)), ids=map(case_name, IN_SEQUENCE))
def test_the_last_value_depends_on_every_one_of_the_row_before(number):
    spec = CASES[number][2]
    before, after = changes(number, rest=False)
    rows, _, _ = visits(CASES[number])
    # Influence through many random steps could be lost in rounding; through two rows it is not.
    for n in range((spec.height - 2) * spec.width * spec.channels, spec.dims):
        if rows[n] < spec.height - 1:
            assert (before[n, -1] != after[n, -1]).any()
