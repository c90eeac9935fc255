"""What makes these models honest: they sum to one, see no future, and sample what they score."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rnngen_jax import models
from rnngen_jax.ops import orders
from rnngen_jax.shapes import ImageSpec

CELLS = ["rnn", "lstm", "gru", "gru:variant=reset_before", "layer_norm_lstm", "layer_norm_gru"]
SMALL = {"features": 6, "input_features": 6, "learned_carry": True}

# Each readout with grey levels that it fits, for both models; then each choice that changes who
# sees whom. A binary 2x2 image has 16 states, one of 3 levels 81, a 1x2 one of 3 channels 64.
GREY = ImageSpec(2, 2, levels=3)
BINARY = ImageSpec(2, 2, levels=2)
COLOUR = ImageSpec(1, 2, channels=3, levels=2)
READOUTS = [("categorical", GREY), ("bernoulli", BINARY), ("logistic_mixture", GREY)]


def cases():
    for n, (readout, spec) in enumerate(READOUTS):
        for m, cell in enumerate(CELLS):
            yield "row_rnn", {"readout": readout, "cell": cell}, spec
            order = orders.ORDERS[(n + m) % 3]  # every cell and every readout meets every order
            yield "pixel_rnn", {"readout": readout, "cell": cell, "order": order}, spec
    for readout, spec in READOUTS:
        yield "row_rnn", {"readout": readout, "within": "autoregressive"}, spec
        yield "pixel_rnn", {"readout": readout, "pixels": "scalar", "above": 2}, spec
        yield "pixel_rnn", {"readout": readout, "previous": 3, "above": 0, "layers": 2}, spec
    for readout in ("categorical", "bernoulli", "logistic_mixture"):
        yield "pixel_rnn", {"readout": readout}, COLOUR
        yield "pixel_rnn", {"readout": readout, "readout_hidden": 5, "pixels": "scalar"}, COLOUR
        yield "row_rnn", {"readout": readout}, COLOUR
        yield "row_rnn", {"readout": readout, "within": "autoregressive"}, COLOUR
    yield "row_rnn", {"tied_readout": True}, GREY
    tied = {"tied_readout": True, "readout": "bernoulli", "pixels": "scalar"}
    yield "row_rnn", tied | {"cell": "rnn:input_weights=False"}, BINARY
    labelled = ImageSpec(2, 2, levels=2, classes=3)
    yield "pixel_rnn", {"class_conditional": True}, labelled
    yield "row_rnn", {"class_conditional": True, "within": "autoregressive"}, labelled


def case_name(case):
    name, fields, spec = case
    parts = [str(value) for value in fields.values()]
    return "-".join([name, *parts, f"{spec.channels}x{spec.levels}"])


CASES = list(cases())


def built(case, seed=0):
    """The model with random parameters, biases included; in NumPy, for it compiles nothing."""
    name, fields, spec = case
    model = models.build(name, SMALL | fields, spec)
    shapes, extra = jax.eval_shape(model.init, jax.random.key(0))
    rng = np.random.default_rng(seed)

    def draw(leaf):
        scale = 0.4 if leaf.ndim < 2 else 1.5 / np.sqrt(leaf.shape[-2])
        return scale * rng.standard_normal(leaf.shape, np.float32)

    return model, jax.tree.map(draw, shapes), extra


def all_images(spec):
    values = itertools.product(range(spec.levels), repeat=spec.dims)
    return np.array(list(values), np.uint8).reshape(-1, *spec.shape)


def scores(model, params, extra, images, label=0):
    batch = {
        "image": images,
        "label": np.full(len(images), label, np.int32),
        "index": np.arange(len(images), dtype=np.int32),
    }
    return jax.jit(model.log_prob)(params, extra, batch, jax.random.key(0))


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_all_images_together_have_probability_one(case):
    model, params, extra = built(case)
    images = all_images(model.spec)
    for label in range(max(model.spec.classes, 1)):
        log_p = np.asarray(scores(model, params, extra, images, label), np.float64)
        np.testing.assert_allclose(np.exp(log_p).sum(), 1.0, atol=1e-6)


FEW = ("gru", "rnn:input_weights=False")
SAMPLED = [c for c in CASES if c[1].get("cell", "gru") in FEW]


@pytest.mark.parametrize("case", SAMPLED, ids=case_name)
def test_samples_are_drawn_from_the_distribution_that_is_scored(case):
    """Draws against the exact probabilities of all images: the sampler is the scorer's twin."""
    model, params, extra = built(case)
    images = all_images(model.spec)
    num = 4000
    label = jnp.full(num, 1) if model.conditional else None
    drawn = jax.jit(lambda p, k: model.sample(p, extra, k, num, label))(params, jax.random.key(3))
    assert drawn.dtype == jnp.uint8
    assert drawn.shape == (num, *model.spec.shape)
    base = model.spec.levels ** np.arange(model.spec.dims)[::-1]
    counts = np.bincount(np.asarray(drawn).reshape(num, -1) @ base, minlength=len(images))
    log_p = scores(model, params, extra, images, 1 if model.conditional else 0)
    p = np.exp(np.asarray(log_p, np.float64))
    # Standardised sum of squares over the states: mean 1, with a spread far below what any
    # disagreement between sampler and scorer gives.
    chi = ((counts - num * p) ** 2 / (num * p).clip(1.0)).sum() / len(images)
    assert chi < 1.0 + 6 * np.sqrt(2 / len(images))


WALKED = [
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
]


def random_images(spec, seed, num=6):
    return np.random.default_rng(seed).integers(0, spec.levels, (num, *spec.shape), np.uint8)


@pytest.mark.parametrize("case", WALKED, ids=case_name)
def test_step_by_step_outputs_are_the_teacher_forced_ones(case):
    model, params, extra = built(case)
    spec = model.spec
    image = random_images(spec, 1)
    label = np.arange(6, dtype=np.int32) % 2 if model.conditional else None
    walk = jax.jit(model.walk)
    # On given images, with nothing left to draw; then on images drawn freely; then on half each.
    for share in (1.0, 0.0, 0.5):
        known = np.random.default_rng(2).random((6, spec.height, spec.width)) < share
        completed, raw = walk(params, extra, jax.random.key(3), image, known, label)
        expected = jax.jit(model.conditionals)(params, extra, completed, label)
        np.testing.assert_allclose(raw, expected, atol=1e-5)
        np.testing.assert_array_equal(np.asarray(completed)[known], np.asarray(image)[known])
        if share < 1:
            assert (completed != image).any()


def visits(case):
    """Row, column and channel of every value in the model's own order."""
    name, fields, spec = case
    order = fields.get("order", "raster") if name == "pixel_rnn" else "raster"
    where = orders.positions(order, spec.height, spec.width).tolist()
    return [(r, c, ch) for r, c in where for ch in range(spec.channels)]


@pytest.mark.parametrize("case", WALKED, ids=case_name)
def test_no_conditional_depends_on_its_own_or_a_later_value(case):
    """Changes everything from a value on: the outputs up to that value stay the same to the bit."""
    model, params, extra = built(case)
    image = random_images(model.spec, 1, 2)
    other = model.spec.levels - 1 - image  # differs, but for the middle one of an odd number
    other = np.where(other == image, 0, other).astype(np.uint8)
    label = np.zeros(2, np.int32)
    conditionals = jax.jit(model.conditionals)
    before = np.asarray(conditionals(params, extra, image, label))
    order = visits(case)
    independent = case[0] == "row_rnn" and "within" not in case[1]
    for n, (row, column, channel) in enumerate(order):
        changed = np.array(image)
        for place in order[n:]:
            changed[(slice(None), *place)] = np.asarray(other)[(slice(None), *place)]
        after = np.asarray(conditionals(params, extra, changed, label))
        for place in order[: n + 1]:
            at = (slice(None), *place)
            np.testing.assert_array_equal(before[at], after[at])
        if independent:  # nor on any value of its own row
            np.testing.assert_array_equal(before[:, row], after[:, row])
        # Not in vain: the last value does depend on every one that came before its row.
        only = np.array(image)
        only[:, row, column, channel] = np.asarray(other)[:, row, column, channel]
        last = order[-1]
        if row < model.spec.height - 1 and place_matters(case, n):
            at = (slice(None), *last)
            assert (before[at] != np.asarray(conditionals(params, extra, only, label))[at]).any()


def place_matters(case, n):
    """Influence through many random steps could be lost in rounding; through two rows it is not."""
    _, _, spec = case
    return n >= (spec.height - 2) * spec.width * spec.channels


def test_a_conditional_model_listens_to_its_label_and_another_does_not():
    spec = ImageSpec(3, 3, levels=4, classes=3)
    images = random_images(spec, 0)
    for name in ("pixel_rnn", "row_rnn"):
        for conditional in (True, False):
            model, params, extra = built((name, {"class_conditional": conditional}, spec))
            differ = scores(model, params, extra, images, 0) != scores(
                model, params, extra, images, 2
            )
            assert differ.all() == conditional
            assert model.conditional == conditional


def test_dropout_is_for_training_alone_and_belongs_to_the_example():
    model, params, extra = built(("pixel_rnn", {"dropout": 0.5}, GREY))
    images = random_images(GREY, 0)
    batch = {"image": images, "label": np.zeros(6, np.int32), "index": np.arange(6)}

    compiled = jax.jit(lambda batch, key: model.losses["model"](params, extra, batch, key, 0)[0])

    def loss(batch, seed):
        return compiled(batch, jax.random.key(seed))

    assert loss(batch, 0) == loss(batch, 0) != loss(batch, 1)
    part = {name: value[2:4] for name, value in batch.items()}
    rest = {name: value[[0, 1, 4, 5]] for name, value in batch.items()}
    np.testing.assert_allclose((loss(part, 0) * 2 + loss(rest, 0) * 4) / 6, loss(batch, 0), 1e-6)
    exact = -scores(model, params, extra, images).mean() / GREY.dims
    many = np.mean([loss(batch, seed) for seed in range(3)])
    assert abs(many - exact) > 1e-4


def test_the_losses_units_are_nats_and_bits():
    model, params, extra = built(("pixel_rnn", {}, GREY))
    images = random_images(GREY, 0)
    batch = {"image": images, "label": np.zeros(6, np.int32), "index": np.arange(6)}
    value, aux = model.losses["model"](params, extra, batch, jax.random.key(0), 0)
    nats = -scores(model, params, extra, images).mean()
    np.testing.assert_allclose(aux.metrics["nats_per_image"], nats, rtol=1e-6)
    np.testing.assert_allclose(aux.metrics["bits_per_dim"], nats / 4 / np.log(2), rtol=1e-6)
    np.testing.assert_allclose(value, nats / 4, rtol=1e-6)
