"""Every field of every model's Config changes what the model computes, and bad values are named."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rnngen_jax import models
from rnngen_jax.errors import UserError
from rnngen_jax.shapes import ImageSpec

SPEC = ImageSpec(4, 4, levels=3, classes=2)
BINARY = SPEC._replace(levels=2)

# For each model and field: another value, and what else must be set for the field to matter.
CHANGES = {
    "pixel_rnn": {
        "cell": ("lstm", {}),
        "features": (9, {}),
        "layers": (2, {}),
        "residual": (True, {"layers": 2}),
        "learned_carry": (True, {}),
        "input_features": (9, {}),
        "pixels": ("scalar", {}),
        "previous": (2, {}),
        "above": (2, {}),
        "position": (False, {}),
        "class_conditional": (True, {}),
        "order": ("serpentine", {}),
        "readout": ("logistic_mixture", {}),
        "mixtures": (2, {"readout": "logistic_mixture"}),
        "readout_hidden": (5, {}),
        "dropout": (0.5, {}),
        "remat": (3, {}),
    },
    "row_rnn": {
        "cell": ("lstm", {}),
        "features": (9, {}),
        "layers": (2, {}),
        "residual": (True, {"layers": 2}),
        "learned_carry": (True, {}),
        "input_features": (9, {}),
        "pixels": ("scalar", {}),
        "position": (False, {}),
        "class_conditional": (True, {}),
        "within": ("autoregressive", {}),
        "within_features": (9, {"within": "autoregressive"}),
        "tied_readout": (True, {}),
        "readout": ("logistic_mixture", {}),
        "mixtures": (2, {"readout": "logistic_mixture"}),
        "dropout": (0.5, {}),
        "remat": (3, {}),
    },
}
SMALL = {"features": 6, "input_features": 6}


def test_every_model_and_every_field_is_listed():
    assert set(CHANGES) == set(models.names())
    for name, changes in CHANGES.items():
        fields = {field.name for field in dataclasses.fields(models.config_class(name))}
        assert set(changes) == fields


def program(name, fields):
    """Shapes of the parameters, the loss at fixed parameters, and the traced program."""
    model = models.build(name, SMALL | fields, SPEC)
    shapes, extra = jax.eval_shape(model.init, jax.random.key(0))
    batch = {
        "image": np.random.default_rng(0).integers(0, 3, (4, *SPEC.shape), np.uint8),
        "label": np.array([0, 1, 0, 1], np.int32),
        "index": np.arange(4, dtype=np.int32),
    }
    # The same numbers whatever the initialisation is, so that it alone does not count as a change.
    params = jax.tree.map(
        lambda leaf: np.sin(np.arange(leaf.size, dtype=np.float32)).reshape(leaf.shape), shapes
    )

    def loss(params):
        return model.losses["model"](params, extra, batch, jax.random.key(2), 0)[0]

    jaxpr = jax.make_jaxpr(jax.grad(loss))(params)
    return str(jax.tree.map(jnp.shape, params)), float(jax.jit(loss)(params)), str(jaxpr)


@pytest.mark.parametrize(
    ("name", "field"), [(name, field) for name, fields in CHANGES.items() for field in fields]
)
def test_changing_a_field_changes_the_computation(name, field):
    value, also = CHANGES[name][field]
    shapes, number, jaxpr = program(name, also)
    new_shapes, new_number, new_jaxpr = program(name, also | {field: value})
    if field == "remat":  # the same numbers by another way
        np.testing.assert_allclose(new_number, number, rtol=1e-6)
        assert new_jaxpr != jaxpr
    else:
        assert new_shapes != shapes or abs(new_number - number) > 1e-6


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("pixel_rn", {}, "did you mean 'pixel_rnn'"),
        ("pixel_rnn", {"feature": 3}, "did you mean 'features'"),
        ("pixel_rnn", {"features": 3.5}, "type float"),
        ("pixel_rnn", {"features": 0}, "features=0"),
        ("pixel_rnn", {"dropout": 1.0}, "less than 1"),
        ("pixel_rnn", {"dropout": float("nan")}, "not finite"),
        ("pixel_rnn", {"order": "diagonal"}, "raster"),
        ("pixel_rnn", {"pixels": "embedding"}, "onehot"),
        ("pixel_rnn", {"previous": 0, "above": 0}, "1 or more"),
        ("pixel_rnn", {"readout": "bernoulli"}, "3 levels"),
        ("row_rnn", {"within": "autoregresive"}, "did you mean 'autoregressive'"),
        ("row_rnn", {"tied_readout": True, "readout": "logistic_mixture"}, "tied_readout"),
        ("row_rnn", {"tied_readout": True, "features": 5, "input_features": 6}, "tied_readout"),
    ],
)
def test_a_config_that_does_not_fit_is_refused_in_one_line(name, fields, message):
    with pytest.raises(UserError, match=message) as error:
        models.build(name, fields, SPEC)
    assert "\n" not in str(error.value)


def test_a_conditional_model_needs_labels():
    for name in models.names():
        with pytest.raises(UserError, match="without labels"):
            models.build(name, {"class_conditional": True}, SPEC._replace(classes=0))


def test_the_tied_readout_is_the_transpose_of_the_input_weights():
    fields = SMALL | {
        "tied_readout": True,
        "readout": "bernoulli",
        "pixels": "scalar",
        "position": False,
        "cell": "rnn:input_weights=False",
    }
    model = models.build("row_rnn", fields, BINARY)
    params, extra = model.init(jax.random.key(0))
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), params["model"])
    image = np.asarray(jax.random.bernoulli(jax.random.key(1), 0.5, (2, 4, 4, 1)))
    raw = model.conditionals(params, extra, image)
    w, u, b = p["kernel"], p["recurrent"]["cell"]["recurrent"], p["recurrent"]["cell"]["bias"]
    h = np.zeros((2, 6))
    for t in range(4):
        x = np.zeros((2, 4)) if t == 0 else 2.0 * image[:, t - 1, :, 0] - 1
        h = np.tanh(x @ w + h @ u + b)  # h' = f(x W + h U + b);  y = h' Wᵀ + b_y
        np.testing.assert_allclose(raw[:, t, :, 0, 0], h @ w.T + p["bias"], atol=1e-5)
