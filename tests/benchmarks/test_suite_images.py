"""Textbook layers against equations, whole passes against our steps, and the suite's table."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rnngen_jax.benchmarks import agreement, textbook
from rnngen_jax.benchmarks.contenders import Layer, contender
from rnngen_jax.benchmarks.problem import Settings, Shape
from rnngen_jax.benchmarks.suites import images
from rnngen_jax.benchmarks.timing import Timing
from rnngen_jax.errors import RunError
from rnngen_jax.models.base import Model
from rnngen_jax.shapes import ImageSpec

SHAPE = Shape(6, 2, 1, 4)  # images of 2 by 3 pixels
COLOUR = SHAPE._replace(inputs=3)


def step(params, x, c, *states):
    """An LSTM step, given the concatenated inputs of a neighbourhood, and its states."""
    a = {g: x @ params["input"][g] + params["bias"][g] for g in "ifgo"}
    for g in a:
        a[g] = a[g] + np.concatenate(states, -1) @ params["recurrent"][g]
    i, f, o = (1 / (1 + np.exp(-a[g])) for g in "ifo")
    c = f * c + i * np.tanh(a["g"])
    return o * np.tanh(c), c


def row_lstm(params, xs):
    """The Row LSTM pixel by pixel; h and c have a border of zeros above and on both sides."""
    height, width, batch, _ = xs.shape
    h, c = np.zeros((2, height + 1, width + 2, batch, SHAPE.hidden))
    left = np.pad(xs, [(0, 0), (1, 0), (0, 0), (0, 0)])
    for i in range(height):
        for j in range(width):
            x = np.concatenate([left[i, j], left[i, j + 1]], -1)
            above = h[i, j], h[i, j + 1], h[i, j + 2]
            found = step(params["recurrent"]["cell"], x, c[i, j + 1], *above)
            h[i + 1, j + 1], c[i + 1, j + 1] = found
    return h[1:, 1:-1]


def diagonal_bilstm(params, xs):
    """The Diagonal BiLSTM pixel by pixel: from the left, plus from the right one row above."""

    def from_left(params, xs):
        height, width, batch, _ = xs.shape
        h, c = np.zeros((2, height + 1, width + 1, batch, SHAPE.hidden))
        for i in range(height):
            for j in range(width):
                found = step(params, xs[i, j], c[i + 1, j], h[i + 1, j], h[i, j + 1])
                h[i + 1, j + 1], c[i + 1, j + 1] = found
        return h[1:, 1:]

    right = from_left(params["right"], xs[:, ::-1])[:, ::-1]
    return from_left(params["left"], xs) + np.pad(right, [(1, 0), (0, 0), (0, 0), (0, 0)])[:-1]


@pytest.mark.parametrize("equations", [row_lstm, diagonal_bilstm])
def test_layers_are_their_equations(equations):
    for layer in images.layers(equations.__name__, SHAPE):
        if layer.name == "ours":
            params, xs = layer.params, layer.xs.astype(np.float64)
            out = params["out"]["dense"]
            wanted = xs + equations(params, xs) @ out["kernel"] + out["bias"]
        one = contender(layer)
        given = one.outputs(one.forward())
        np.testing.assert_allclose(given, wanted, atol=1e-5, err_msg=layer.name)


@pytest.mark.parametrize(("kind", "layers"), [("row_lstm", 2), ("diagonal_bilstm", 1)])
def test_networks_agree_with_gradients_and_channel_masks(monkeypatch, kind, layers):
    fields = functools.partial(images._fields, layers=layers)
    monkeypatch.setattr(images, "_fields", fields)
    monkeypatch.setattr(images, "TEXTBOOKS", {"flax": False})
    found = images.networks(kind, COLOUR)
    agreement.check(kind, [contender(one) for one in found])


@pytest.mark.parametrize(
    ("kind", "cell", "unseen"), [("row_lstm", "cell", 2), ("diagonal_bilstm", "left", 0)]
)
def test_places_that_come_later_are_masked(kind, cell, unseen):
    theirs = images.layers(kind, SHAPE)[1]
    seen = np.abs(contender(theirs).gradient()[cell]["ih"]["kernel"]).max((1, 2)) > 0
    assert [place for place, one in enumerate(seen) if not one] == [unseen]


def test_a_wrong_layer_stops_the_bench(monkeypatch):
    right = textbook.LAYERS["row_lstm"]

    def wrong(ours):
        cell = ours["recurrent"]["cell"]
        recurrent = {gate: kernel[::-1] for gate, kernel in cell["recurrent"].items()}
        return right.params({**ours, "recurrent": {"cell": {**cell, "recurrent": recurrent}}})

    layers = {"row_lstm": right._replace(params=wrong)}
    monkeypatch.setattr(images, "LAYERS", layers)
    message = "row_lstm layer 6,2,1,4: outputs of flax ConvLSTMCell differ from ours by"
    with pytest.raises(RunError, match=message):
        next(images.run(Settings(1, (SHAPE,)), None))


def alternating(spec):
    """A deterministic model whose values alternate, starting with 1."""

    def conditionals(params, extra, image, label):
        values = image.reshape(image.shape[0], -1)
        before = jnp.pad(values, [(0, 0), (1, 0)])[:, :-1]
        return jnp.where(before == 0, 50.0, -50.0).reshape(*image.shape, 1)

    def log_probs(raw):
        return jax.nn.log_sigmoid(jnp.concatenate([-raw, raw], -1))

    def sample(params, extra, key, num):
        return jnp.tile(jnp.arange(1, spec.dims + 1) % 2, (num, 1)).reshape(num, *spec.shape)

    def walk(params, extra, key, image, known):
        return image, conditionals(params, extra, image, None)

    return Model(
        "alternating",
        spec,
        False,
        lambda key: ({}, {}),
        {},
        conditionals=conditionals,
        log_probs=log_probs,
        sample=sample,
        walk=walk,
    )


@pytest.mark.parametrize("way", ["python", "compiled"])
def test_passes_draw_value_by_value(way):
    one = images.passes(alternating(ImageSpec(2, 2, 3, levels=2)))
    blank = jnp.zeros((5, 2, 2, 3), jnp.uint8)
    drawn = np.asarray(getattr(one, way)({}, blank, jax.random.key(1)))
    np.testing.assert_array_equal(drawn.reshape(5, 12), np.tile([1, 0], (5, 6)))


def test_passes_are_spread_and_their_logits_are_given_what_comes_before():
    def all_seen(params, extra, image, label):
        return jnp.ones((*image.shape, 1)) * image.sum((1, 2, 3))[:, None, None, None, None]

    model = alternating(ImageSpec(2, 41, levels=2))._replace(conditionals=all_seen)
    one = images.passes(model)
    assert len(one.values) == images.PASSES
    assert (one.values[0], one.values[-1]) == (0, 81)
    assert set(np.diff(one.values)) == {3}
    given = np.random.default_rng(0).integers(0, 2, (4, 2, 41, 1), np.uint8)
    before = np.pad(given.reshape(4, 82).cumsum(1), [(0, 0), (1, 0)])[:, one.values]
    np.testing.assert_array_equal(one.logits({}, given)[..., 0], before)


def test_steps_of_a_real_model_and_passes_are_timed(monkeypatch):
    monkeypatch.setattr(images, "LAYERS", {})
    monkeypatch.setattr(images, "MODELS", {"gated": ("pixel_cnn", {"gated": True})})
    found = list(images.run(Settings(1, (SHAPE,)), None))
    assert [record.contender for record in found] == ["ours", *images.PASSED]
    assert all(record.values["ratio"] > 0 for record in found)


@pytest.fixture
def certain(monkeypatch):
    """The suite without layers, with one model that compiles quickly."""
    monkeypatch.setattr(images, "LAYERS", {})
    monkeypatch.setattr(images, "MODELS", {"certain": ("alternating", {})})
    monkeypatch.setattr(images.models, "build", lambda name, fields, spec: alternating(spec))


def test_times_of_passes_are_scaled(monkeypatch, certain):
    seconds = {"ours": 0.5, images.PYTHON: 2.0, images.COMPILED: 1.0}

    def interleaved(calls, rounds):
        assert rounds == 3
        shapes = {name: call().shape for name, call in calls.items()}
        assert shapes == dict.fromkeys(seconds, (2, 6, 7, 1))
        return {name: Timing(*[seconds[name]] * 3) for name in calls}

    monkeypatch.setattr(images, "interleaved", interleaved)
    found = list(images.run(Settings(3, (Shape(6 * 7, 2, 1, 4),)), None))
    assert {record.case for record in found} == {"certain sample 42,2,1,4"}
    # 28 of 42 values were sampled.
    assert [record.values["ms"] for record in found] == pytest.approx([500, 3000, 1500])
    assert [record.values["ratio"] for record in found] == pytest.approx([1, 6, 3])
    said = images.notes(found)
    assert said[1:] == [
        "sample: one pass per value, Python / ours: median 6, lowest 6",
        "sample: one pass per value, fori_loop / ours: median 3, lowest 3",
    ]


def test_wrong_steps_stop_the_bench(monkeypatch, certain):
    def wrong(name, fields, spec):
        model = alternating(spec)
        return model._replace(walk=lambda *given: (None, 1.1 * model.walk(*given)[1]))

    monkeypatch.setattr(images.models, "build", wrong)
    message = "certain 6,2,1,4: logits of one pass per value differ from ours by 0.09"
    with pytest.raises(RunError, match=message):
        list(images.run(Settings(1, (SHAPE,)), None))


def test_gradients_are_timed_beside_each_other(monkeypatch):
    monkeypatch.setattr(images, "MODELS", {})
    monkeypatch.setattr(images, "LAYERS", {"row_lstm": textbook.LAYERS["row_lstm"]})
    x = np.ones((2, 3), np.float32)

    def layers(kind, shape):
        def one(name):
            return Layer(name, lambda p, xs: p * xs, x, x, x, np.asarray, np.asarray)

        return [one(name) for name in ("ours", *images.TEXTBOOKS)]

    monkeypatch.setattr(images, "layers", layers)
    monkeypatch.setattr(images, "networks", layers)
    found = list(images.run(Settings(1, (SHAPE,)), None))
    assert [record.contender for record in found] == 2 * ["ours", *images.TEXTBOOKS]
    cases = [f"row_lstm {part} gradient 6,2,1,4" for part in ("layer", "network")]
    assert list(dict.fromkeys(record.case for record in found)) == cases
    for n, record in enumerate(found):
        ours = found[3 * (n // 3)]
        assert record.values["ratio"] == record.values["ms"] / ours.values["ms"]


def test_images_are_the_squarest():
    shapes = {784: (28, 28), 28: (4, 7), 7: (1, 7), 1: (1, 1)}
    for pixels, sides in shapes.items():
        spec = images.image_spec(Shape(pixels, 2, 3, 4))
        assert spec == ImageSpec(*sides, 3, levels=2)
