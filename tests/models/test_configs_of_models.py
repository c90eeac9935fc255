"""Every field of every model's Config changes what the model computes."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rnngen_jax import models
from rnngen_jax.models import levels
from rnngen_jax.models.frozen import Perceptual
from rnngen_jax.shapes import ImageSpec

SPEC = ImageSpec(4, 4, levels=3, classes=2)
BINARY = SPEC._replace(levels=2)
DEEP = SPEC._replace(channels=2, levels=4)  # codes of two depths
TWO_LEVELS = [DEEP._replace(height=2, width=2), DEEP]
OF = {
    "code_rnn": TWO_LEVELS,
    "code_prior": TWO_LEVELS,
    "video_rnn": SPEC._replace(frames=3),
}

# For each model and field: another value, and what else must be set for the field to matter.
READOUT = {
    "class_conditional": (True, {}),
    "readout": ("logistic_mixture", {}),
    "mixtures": (2, {"readout": "logistic_mixture"}),
}
PIXELS = {**READOUT, "pixels": ("scalar", {}), "position": (False, {}), "dropout": (0.5, {})}
GRID = {
    **PIXELS,
    "features": (9, {}),
    "layers": (3, {}),
    "residual": (False, {}),
    "first_kernel": (3, {}),
    "order": ("reverse", {}),
    "readout_hidden": (0, {}),
}
CELL = {
    "cell": ("lstm", {}),
    "features": (9, {}),
    "layers": (2, {}),
    "residual": (True, {"layers": 2}),
    "learned_carry": (True, {}),
}
HALVING = {
    "features": (9, {}),
    "stages": (2, {}),
    "kernel": (4, {}),
    "hidden": (9, {}),
    "activation": ("tanh", {}),
    "dropout": (0.5, {}),
}
# Fields that change how the same numbers are computed.
WAYS = {"remat": (3, {}), "strategy": ("sequential:gradient=autodiff", {})}
DISCRIMINATOR = {
    "loss": ("hinge", {}),
    "label_smoothing": (0.2, {}),
    "penalty": ("r1", {}),
    "penalty_weight": (2.0, {"penalty": "r1"}),
    "spectral": (True, {}),
    "discriminator_norm": ("batch", {}),
    "dropout": (0.5, {}),
    "slope": (0.1, {}),
    "augmentation": ("cutout", {}),
}
ADVERSARIAL = {
    **DISCRIMINATOR,
    "noise": (4, {}),
    "noise_kind": ("uniform", {}),
    "norm": ("batch", {}),
    "class_conditional": (True, {}),
    "conditioning": ("auxiliary", {"class_conditional": True}),
    "codes": (2, {}),
    "traits": (2, {}),
    "information": (0.5, {"codes": 2}),
}
BOUND = {
    **READOUT,
    "latents": (3, {}),
    "beta": (0.5, {}),
    "beta_warmup": (4, {}),
    "free_bits": (3.0, {}),
    "prior": ("recurrent:features=5", {}),
}
CODES = {
    **{name: READOUT[name] for name in ("readout", "mixtures")},
    "quantiser": ("simvq:codes=5", {}),
    "depth": (2, {}),
    "depth_dropout": (True, {"depth": 2}),
    "groups": (2, {}),
    "vectors": (6, {}),
    "levels": (2, {}),
    **{name: HALVING[name] for name in ("features", "stages", "kernel", "activation")},
    "blocks": (2, {}),
}
CHANGES = {
    "pixel_rnn": {
        **CELL,
        **PIXELS,
        "input_features": (9, {}),
        "previous": (2, {}),
        "above": (2, {}),
        "order": ("serpentine", {}),
        "readout_hidden": (5, {}),
        **WAYS,
    },
    "row_rnn": {
        **CELL,
        **PIXELS,
        "input_features": (9, {}),
        "within": ("autoregressive", {}),
        "within_features": (9, {"within": "autoregressive"}),
        "tied_readout": (True, {}),
        **WAYS,
    },
    "row_lstm": {
        **GRID,
        "cell": ("gru", {}),
        "kernel": (5, {}),
        "learned_carry": (False, {}),
        **WAYS,
    },
    "diagonal_bilstm": {
        **GRID,
        "cell": ("gru", {}),
        "learned_carry": (False, {}),
        **WAYS,
    },
    "pixel_cnn": {**GRID, "gated": (True, {}), "kernel": (5, {})},
    "vae": {**BOUND, **HALVING},
    "vqvae": CODES,
    "vqgan": {
        **CODES,
        **DISCRIMINATOR,
        "loss": ("non_saturating", {}),
        "label_smoothing": (0.2, {"loss": "non_saturating"}),
        "discriminator_norm": ("batch", {"discriminator_stages": 2}),  # of all maps but the first
        "discriminator_features": (3, {}),
        "discriminator_stages": (2, {}),
        "discriminator_kernel": (3, {}),
        "adversarial_weight": (0.5, {}),
        "adversarial_start": (1, {}),
        "perceptual_weight": (0.5, {}),
    },
    "code_rnn": {
        **CELL,
        "input_features": (9, {}),
        "previous": (2, {}),
        "above": (2, {}),
        "around": (0, {}),
        "position": (False, {}),
        "class_conditional": (True, {}),
        "deep_features": (9, {}),
        "dropout": (0.5, {}),
        "heads": ("2^2", {}),
        "chained": (False, {"heads": "2^2"}),
        **WAYS,
    },
    "code_prior": {"prior": ("pixel_cnn:features=6", {}), "around": (0, {})},
    "classifier": {**HALVING, "dropout": (0.0, {})},
    "mlp_gan": {**ADVERSARIAL, "hidden": (6, {}), "layers": (2, {})},
    "dcgan": {
        **ADVERSARIAL,
        "discriminator_norm": ("batch", {"stages": 2}),  # of all maps but the first
        "features": (3, {}),
        "stages": (2, {}),
        "kernel": (3, {}),
        "attention": (True, {}),
        "grow": (2, {}),
    },
    "gru_gan": {
        **ADVERSARIAL,
        "cell": ("rnn", {}),
        "features": (5, {}),
        "layers": (2, {"cell": "rnn"}),
        "residual": (True, {"layers": 2, "cell": "rnn"}),
        "learned_carry": (True, {"cell": "rnn"}),
        "remat": (3, {"cell": "rnn"}),
        "strategy": ("sequential:gradient=autodiff", {"cell": "rnn"}),
        "step": ("patch", {"noise_each": False}),
        "noise_each": (False, {}),
        "channels": (4, {}),
        "discriminator": ("recurrent", {"cell": "rnn"}),
        "share": ("discriminator", {}),
    },
    "video_rnn": {
        **CELL,
        **READOUT,
        "encoder": ("patches:size=2", {}),
        "maps": (True, {"input_features": 128}),
        "kernel": (5, {"maps": True, "input_features": 128}),
        "input_features": (9, {}),
        "last": (False, {}),
        "objective": ("mse", {}),
        "feeding": ("reverse:steps=10", {}),
        **WAYS,
    },
    "draw": {
        **BOUND,
        **CELL,
        "cell": ("gru", {}),
        "learned_carry": (False, {}),
        "steps": (3, {}),
        "read_size": (0, {}),
        "write_size": (3, {}),
        "readout": ("gaussian", {}),
        "remat": (1, {}),
    },
    "rnn_autoencoder": {
        **BOUND,
        **CELL,
        "bidirectional": (True, {}),
        "input_features": (9, {}),
        "pixels": ("onehot", {}),
        "sequence": ("columns", {}),
        "patch": (1, {"sequence": "patches"}),
        "latent": ("deterministic", {}),
        "attention": ("additive", {"attention": "dot"}),
        "attend": ("embedding", {"attention": "dot"}),
        "decoder": ("autoregressive", {}),
        "dropout": (0.5, {}),
        "remat": (3, {"attention": "dot"}),
        "strategy": ("sequential:gradient=autodiff", {}),
    },
}
SMALL = {name: {"features": 6} for name in CHANGES}
for name in ("pixel_rnn", "row_rnn", "rnn_autoencoder", "code_rnn", "video_rnn"):
    SMALL[name]["input_features"] = 6
SMALL["vae"] |= {"latents": 2, "stages": 1, "kernel": 2, "hidden": 5}
SMALL["vqvae"] |= {"quantiser": "codebook:codes=5", "vectors": 4, "stages": 1, "kernel": 2}
SMALL["vqgan"] |= SMALL["vqvae"] | {"discriminator_features": 2, "discriminator_kernel": 2}
SMALL["code_rnn"] |= {"deep_features": 6}
SMALL["code_prior"] = {"prior": "row_lstm:features=6"}
SMALL["classifier"] |= {"stages": 1, "kernel": 2, "hidden": 5}
SMALL["rnn_autoencoder"] |= {"latents": 2, "patch": 2}
SMALL["mlp_gan"] = {"noise": 3, "hidden": 5, "layers": 1}
SMALL["dcgan"] = {"noise": 3, "features": 2, "stages": 1, "kernel": 2, "norm": "none"}
SMALL["gru_gan"] = {"noise": 3, "features": 4, "channels": 3, "norm": "none", "cell": "none"}
SMALL["draw"] |= {"latents": 2, "steps": 2, "read_size": 2, "write_size": 2}


def test_every_model_and_every_field_is_listed():
    assert set(CHANGES) == set(models.names())
    for name, changes in CHANGES.items():
        fields = {field.name for field in dataclasses.fields(models.config_class(name))}
        assert set(changes) == fields


class Program:
    """A model's training loss at fixed parameters; the sum of all players' losses."""

    def __init__(self, name, fields):
        spec = OF.get(name, SPEC)
        judge = ()
        if fields.get("perceptual_weight"):
            judge = (Perceptual(models.build("classifier", SMALL["classifier"], spec)),)
        if isinstance(spec, list):
            config = models.config_class(name)(**SMALL[name] | fields)
            model = levels.prior(name, config, spec)
        else:
            model = models.build(name, SMALL[name] | fields, spec, *judge)
        rng = np.random.default_rng(0)
        images = [
            rng.integers(0, 3, (4, *each.shape), np.uint8)
            for each in (spec if isinstance(spec, list) else [spec])
        ]
        shapes, extra = jax.eval_shape(model.init, jax.random.key(0))
        batch = {
            getattr(spec, "key", "image"): levels.packed(images),
            "label": np.array([0, 1, 0, 1], np.int32),
            "index": np.arange(4, dtype=np.int32),
        }
        self.shapes = jax.tree.map(jnp.shape, shapes)
        # The same parameters whatever the initialisation, which alone does not count as a change.
        self.params, waves = jax.tree.map(
            lambda leaf: np.sin(np.arange(leaf.size, dtype=np.float32)).reshape(leaf.shape),
            (shapes, extra),
        )
        extra = jax.tree.map(lambda wave: 1 + jnp.asarray(wave) / 2, waves)  # variances above 0
        self.loss = lambda p: sum(
            loss(p, extra, batch, jax.random.key(2), 0)[0] for loss in model.losses.values()
        )

    @functools.cached_property
    def number(self):
        return float(jax.jit(self.loss)(self.params))

    @functools.cached_property
    def forward(self):
        """The traced program of the loss."""
        return self.traced(self.loss)

    @functools.cached_property
    def gradient(self):
        """The traced program of its gradient."""
        return self.traced(jax.grad(self.loss))

    def traced(self, function):
        """As text, without the addresses of Python's functions."""
        return re.sub(r"0x[0-9a-f]+", "", str(jax.make_jaxpr(function)(self.params)))


@functools.cache
def before(name, *also):
    return Program(name, dict(also))


@pytest.mark.parametrize(
    ("name", "field"), [(name, field) for name, fields in CHANGES.items() for field in fields]
)
def test_changing_a_field_changes_the_computation(name, field):
    value, also = CHANGES[name][field]
    one, other = before(name, *also.items()), Program(name, also | {field: value})
    if field in WAYS:  # the same numbers by another way
        np.testing.assert_allclose(other.number, one.number, rtol=1e-6)
        assert other.gradient != one.gradient
    else:  # nothing is compiled where the traced programs tell already
        told = other.shapes != one.shapes or other.forward != one.forward
        assert told or abs(other.number - one.number) > 1e-6


@pytest.mark.parametrize("name", CHANGES)
def test_the_same_config_gives_the_same_program(name):
    """So that a difference above is due to the field."""
    assert Program(name, {}).forward == before(name).forward


def test_the_tied_readout_is_the_transpose_of_the_input_weights():
    fields = SMALL["row_rnn"] | {
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


# With all the cells that a model can have.
ALL_CELLS = {
    "diagonal_bilstm": {},
    "gru_gan": {"cell": "gru", "discriminator": "recurrent"},
    "pixel_rnn": {"layers": 2, "learned_carry": True},
    "rnn_autoencoder": {"bidirectional": True},
    "row_lstm": {},
    "row_rnn": {"within": "autoregressive"},
}


@pytest.mark.parametrize("name", ALL_CELLS)
def test_a_strategy_is_that_of_all_cells(name):
    """Gated cells have no gradient of their own with autodiff, in training or in sampling."""

    def programs(strategy):
        fields = SMALL[name] | ALL_CELLS[name] | {"strategy": strategy}
        model = models.build(name, fields, SPEC)
        params, extra = jax.eval_shape(model.init, jax.random.key(0))
        batch = {
            "image": jnp.zeros((4, *SPEC.shape), jnp.uint8),
            "label": jnp.zeros(4, jnp.int32),
            "index": jnp.arange(4),
        }
        for loss in model.losses.values():
            yield lambda p, e, loss=loss: loss(p, e, batch, jax.random.key(1), 0)[0], params, extra
        yield lambda p, e: model.sample(p, e, jax.random.key(1), 2), params, extra

    def own(strategy):
        return [str(jax.make_jaxpr(f)(*of)).count("custom_vjp") for f, *of in programs(strategy)]

    assert any(own("auto"))
    assert not any(own("sequential:gradient=autodiff"))
