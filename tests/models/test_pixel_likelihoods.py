"""Autoregressive models' probabilities sum to one, and samples follow them."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pixel_models import ON_A_GRID, built, case_name, random_images, scores

from rnngen_jax import cells
from rnngen_jax.models import grid
from rnngen_jax.ops import orders
from rnngen_jax.shapes import ImageSpec

CELLS = [*cells.names(), "gru:variant=reset_before"]
CONVOLVED = grid.convolvable_names()

# Each readout with suitable grey levels, for all models; then each choice that changes which values
# depend on which. A binary 2x2 image has 16 states, one of 3 levels 81, a 1x2 one of 3 channels 64.
GREY = ImageSpec(2, 2, levels=3)
BINARY = ImageSpec(2, 2, levels=2)
COLOUR = ImageSpec(1, 2, channels=3, levels=2)
LABELLED = ImageSpec(2, 2, levels=2, classes=3)
SIX = ImageSpec(1, 2, levels=6)  # codes of two and three levels
READOUTS = [("categorical", GREY), ("bernoulli", BINARY), ("logistic_mixture", GREY)]


def cases_in_sequence():
    for n, cell in enumerate(CELLS):
        readout, spec = READOUTS[n % 3]
        yield "row_rnn", {"readout": readout, "cell": cell}, spec
        order = orders.ORDERS[(n + n // 3) % 3]  # every readout meets every order
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
    yield "pixel_rnn", {"class_conditional": True}, LABELLED
    yield "row_rnn", {"class_conditional": True, "within": "autoregressive"}, LABELLED
    yield "code_rnn", {}, GREY
    yield "code_rnn", {"cell": "lstm", "layers": 2}, COLOUR
    yield "code_rnn", {"class_conditional": True}, LABELLED
    yield "code_rnn", {"heads": "2x3"}, SIX
    yield "code_rnn", {"heads": "3x2", "chained": False}, SIX._replace(width=1, channels=2)


def cases_on_a_grid():
    """Every layer, gated or not or with each cell, then with each readout on colours."""
    layers = [("row_lstm", {"cell": cell}) for cell in CONVOLVED]
    layers += [("diagonal_bilstm", {"cell": cell}) for cell in CONVOLVED]
    layers += [("pixel_cnn", {"gated": gated}) for gated in (False, True) for _ in READOUTS]
    # Counts without a common divisor meet in all pairs by themselves; 3 and 3 do when shifted.
    for n, (name, fields) in enumerate(layers):
        readout, spec = READOUTS[n % 3]
        order, pixels = grid.ORDERS[(n + n // 3) % 3], ("onehot", "scalar")[n % 2]
        yield name, fields | {"readout": readout, "order": order, "pixels": pixels}, spec
    coloured = [("row_lstm", {"cell": "lstm"}), ("diagonal_bilstm", {"cell": "min_gru"})]
    coloured += [("pixel_cnn", {"gated": gated}) for gated in (False, True)]
    for n, (name, fields) in enumerate(coloured):
        for m, (readout, _) in enumerate(READOUTS):
            order, pixels = grid.ORDERS[(n + m) % 3], ("onehot", "scalar")[(n + m) % 2]
            more = {"readout": readout, "order": order, "pixels": pixels, "readout_hidden": 0}
            yield name, fields | more, COLOUR
        yield name, fields | {"class_conditional": True, "position": False}, LABELLED


SEQUENCES, GRIDS = list(cases_in_sequence()), list(cases_on_a_grid())


def all_images(spec):
    values = itertools.product(range(spec.levels), repeat=spec.dims)
    return np.array(list(values), np.uint8).reshape(-1, *spec.shape)


# Each kind of model: rows, pixels, and on a grid.
OPTIMISED = [SEQUENCES[0], SEQUENCES[1], GRIDS[0], GRIDS[-1]]


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, marks=[pytest.mark.optimised] if case in OPTIMISED else [])
        for case in SEQUENCES + GRIDS
    ],
    ids=case_name,
)
def test_all_images_together_have_probability_one(case):
    model, params, extra = built(case)
    images = all_images(model.spec)
    for label in range(max(model.spec.classes, 1)):
        log_p = scores(model, params, extra, images, label).astype(np.float64)
        np.testing.assert_allclose(np.exp(log_p).sum(), 1.0, atol=1e-6)


FEW = ("gru", "rnn:input_weights=False")
SAMPLED = [
    (name, fields, spec)
    for name, fields, spec in SEQUENCES
    if fields.get("cell", "gru") in FEW and (name, fields.get("pixels")) != ("pixel_rnn", "scalar")
]
# Step by step is all at once in test_pixel_steps.py; what is drawn from it depends on the readout.
SAMPLED = [case for n, case in enumerate(SAMPLED) if n % 2 == 0 or case[0] == "code_rnn"]
SAMPLED += [
    ("row_lstm", {"layers": 2, "order": "column"}, GREY),
    ("diagonal_bilstm", {"cell": "gru", "readout": "logistic_mixture"}, COLOUR),
    ("pixel_cnn", {"order": "reverse", "class_conditional": True}, LABELLED),
    ("pixel_cnn", {"gated": True}, COLOUR),
]


@pytest.mark.parametrize("case", SAMPLED, ids=case_name)
def test_samples_are_drawn_from_the_distribution_that_is_scored(case):
    """Samples against the exact probabilities of all images."""
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
    p = np.exp(log_p.astype(np.float64))
    # The standardised sum of squares over the states has mean 1; any disagreement between sampling
    # and scoring moves it by far more than its spread.
    chi = ((counts - num * p) ** 2 / (num * p).clip(1.0)).sum() / len(images)
    assert chi < 1.0 + 6 * np.sqrt(2 / len(images))


@pytest.mark.parametrize("name", ["pixel_rnn", "row_rnn", *ON_A_GRID, "pixel_cnn, gated"])
def test_a_conditional_model_listens_to_its_label_and_another_does_not(name):
    spec = ImageSpec(3, 3, levels=4, classes=3)
    images = random_images(spec, 0)
    name, _, gated = name.partition(", ")
    fields = {"gated": True} if gated else {}
    for conditional in (True, False):
        case = name, fields | {"class_conditional": conditional}, spec
        model, params, extra = built(case)
        differ = scores(model, params, extra, images, 0) != scores(model, params, extra, images, 2)
        assert differ.all() == conditional
        assert model.conditional == conditional


@pytest.mark.parametrize("name", ["pixel_rnn", "diagonal_bilstm", "pixel_cnn"])
def test_dropout_is_for_training_alone_and_belongs_to_the_example(name):
    model, params, extra = built((name, {"dropout": 0.5}, GREY))
    images = random_images(GREY, 0)
    batch = {"image": images, "label": np.zeros(6, np.int32), "index": np.arange(6)}

    compiled = jax.jit(lambda p, batch, key: model.losses["model"](p, extra, batch, key, 0)[0])

    def loss(batch, seed):
        return compiled(params, batch, jax.random.key(seed))

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
