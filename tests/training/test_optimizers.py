"""Each optimiser against its update rule written out in NumPy, over several steps."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rnngen_jax.errors import UserError
from rnngen_jax.training.config import DECAYS, OptimizerConfig, optimizer_section
from rnngen_jax.training.optimizers import learning_rate, make_optimizer

STEPS = 10
RNG = np.random.default_rng(0)
START = {"kernel": RNG.normal(size=(3, 2)), "bias": RNG.normal(size=2)}
GRADIENTS = [{k: RNG.normal(size=v.shape) for k, v in START.items()} for _ in range(4)]


def trained(config):
    """Parameters after optax's updates for the four gradients, in float64."""
    with jax.enable_x64(True):
        optimizer = make_optimizer(config.resolved(STEPS))
        params = jax.tree.map(jnp.asarray, START)
        state = optimizer.init(params)
        for gradient in GRADIENTS:
            updates, state = optimizer.update(jax.tree.map(jnp.asarray, gradient), state, params)
            params = optax.apply_updates(params, updates)
        return jax.tree.map(np.asarray, params)


def by_hand(config):
    """The same, written out."""
    params = {k: v.copy() for k, v in START.items()}
    m = {k: np.zeros_like(v) for k, v in params.items()}
    v = {k: np.zeros_like(v) for k, v in params.items()}
    for t, given in enumerate(GRADIENTS):
        gradient = dict(given)
        gradient["kernel"] = (
            gradient["kernel"]
            + config.l1 * np.sign(params["kernel"])
            + config.l2 * params["kernel"]
        )
        norm = np.sqrt(sum(np.sum(g**2) for g in gradient.values()))
        if config.clip_norm and norm > config.clip_norm:
            gradient = {k: g * config.clip_norm / norm for k, g in gradient.items()}
        step = t // config.updates_per_step
        rate = config.learning_rate * min(1, (step + 1) / max(config.warmup_steps, 1))
        for k, g in gradient.items():
            if config.name in ("adam", "adamw"):
                m[k] = config.b1 * m[k] + (1 - config.b1) * g
                v[k] = config.b2 * v[k] + (1 - config.b2) * g**2
                update = m[k] / (1 - config.b1 ** (t + 1))
                update /= np.sqrt(v[k] / (1 - config.b2 ** (t + 1))) + config.eps
                if k == "kernel":
                    update = update + config.weight_decay * params[k]
                params[k] = params[k] - rate * update
            elif config.name == "rmsprop":
                v[k] = config.decay * v[k] + (1 - config.decay) * g**2
                m[k] = config.momentum * m[k] + rate * g / np.sqrt(v[k] + config.eps)
                params[k] = params[k] - m[k]
            else:
                m[k] = config.momentum * m[k] + g
                params[k] = params[k] - rate * m[k]
            if config.clip_weights:
                params[k] = np.clip(params[k], -config.clip_weights, config.clip_weights)
    return params


CASES = [
    {"name": "adam"},
    {"name": "adam", "b1": 0.7, "b2": 0.9, "eps": 0.01},
    {"name": "adamw", "weight_decay": 0.3},
    {"name": "rmsprop"},
    {"name": "rmsprop", "momentum": 0.8, "decay": 0.5, "eps": 0.01},
    {"name": "sgd"},
    {"name": "sgd", "momentum": 0.8},
    {"name": "sgd", "l1": 0.1},
    {"name": "sgd", "l2": 0.1},
    {"name": "sgd", "clip_norm": 0.5},
    {"name": "sgd", "clip_weights": 0.3},
    {"name": "rmsprop", "clip_weights": 0.3, "momentum": 0.8},
    {"name": "sgd", "updates_per_step": 2, "warmup_steps": 2},
    {"name": "sgd", "l1": 0.4, "l2": 0.3, "clip_norm": 0.5, "warmup_steps": 3},
]


@pytest.mark.parametrize("fields", CASES, ids=str)
def test_the_update_is_the_one_written_out(fields):
    config = OptimizerConfig(learning_rate=0.1, **fields)
    actual, expected = trained(config), by_hand(config)
    for name, value in expected.items():
        np.testing.assert_allclose(actual[name], value, rtol=1e-6, err_msg=name)


@pytest.mark.parametrize(
    ("base", "change"),
    [
        ({}, {"name": "sgd"}),
        ({}, {"learning_rate": 0.2}),
        ({}, {"schedule": "cosine"}),
        ({}, {"schedule": "linear"}),
        ({}, {"schedule": "exponential"}),
        ({}, {"warmup_steps": 2}),
        ({}, {"warmup_fraction": 0.5}),
        ({"schedule": "cosine"}, {"decay_steps": 30}),
        ({"schedule": "cosine"}, {"final_fraction": 0.5}),
        ({}, {"b1": 0.5}),
        ({}, {"b2": 0.5}),
        ({"name": "rmsprop"}, {"decay": 0.5}),
        ({"name": "rmsprop"}, {"momentum": 0.5}),
        ({"name": "sgd"}, {"momentum": 0.5}),
        ({}, {"eps": 0.1}),
        ({"name": "adamw"}, {"weight_decay": 0.1}),
        ({}, {"l1": 0.1}),
        ({}, {"l2": 0.1}),
        ({"name": "sgd"}, {"clip_norm": 0.1}),
        ({"name": "sgd"}, {"clip_weights": 0.1}),
        ({"schedule": "cosine"}, {"updates_per_step": 2}),
    ],
    ids=str,
)
def test_every_field_changes_the_update(base, change):
    before = trained(OptimizerConfig(**{"learning_rate": 0.1, **base}))
    after = trained(OptimizerConfig(**{"learning_rate": 0.1, **base, **change}))
    assert not np.array_equal(before["kernel"], after["kernel"])


def test_the_fields_above_are_all_of_them():
    cases = test_every_field_changes_the_update.pytestmark[0].args[1]
    fields = {field.name for field in dataclasses.fields(OptimizerConfig)}
    private = {"private_noise", "private_clip", "private_delta"}  # which the step and the line read
    assert fields == {name for _, change in cases for name in change} | private


@pytest.mark.parametrize(
    ("schedule", "middle"),
    [("constant", 1.0), ("cosine", 0.55), ("linear", 0.55), ("exponential", 0.1**0.5)],
)
def test_schedules(schedule, middle):
    final = {} if schedule == "constant" else {"final_fraction": 0.1}
    config = OptimizerConfig(learning_rate=2.0, schedule=schedule, warmup_steps=4, **final)
    rate = learning_rate(config.resolved(24))
    got = [float(rate(jnp.int32(count))) / 2 for count in (0, 1, 3, 4, 14, 24)]
    last = 1.0 if schedule == "constant" else 0.1
    np.testing.assert_allclose(got, [0.25, 0.5, 1, 1, middle, last], rtol=1e-6)


@pytest.mark.parametrize("name", ["adam", "sgd", "rmsprop"])
def test_clipped_weights_stay_inside_after_every_update(name):
    """In float32, as in training; the first update brings in weights that start outside."""
    limit = 0.3
    optimizer = make_optimizer(OptimizerConfig(name=name, learning_rate=0.2, clip_weights=limit))
    params = jax.tree.map(jnp.float32, START)
    assert any(np.abs(leaf).max() > limit for leaf in params.values())
    state, at_the_edge = optimizer.init(params), 0
    for gradient in GRADIENTS:
        updates, state = optimizer.update(jax.tree.map(jnp.float32, gradient), state, params)
        params = optax.apply_updates(params, updates)
        largest = max(np.abs(np.asarray(leaf)).max() for leaf in params.values())
        assert largest <= limit * (1 + 1e-6)
        at_the_edge += largest > 0.999 * limit
    assert at_the_edge


def test_a_schedule_counts_steps_whatever_the_updates_per_step():
    """Three updates of a step have one learning rate: after 2 of 4 steps it is half way down."""
    config = OptimizerConfig(
        name="sgd",
        learning_rate=1.0,
        schedule="linear",
        decay_steps=4,
        final_fraction=0.0,
        updates_per_step=3,
    )
    optimizer = make_optimizer(config)
    state, rates = optimizer.init({"kernel": jnp.ones(1)}), []
    for _ in range(12):
        updates, state = optimizer.update({"kernel": jnp.ones(1)}, state, {"kernel": jnp.ones(1)})
        rates.append(-float(updates["kernel"][0]))
    np.testing.assert_allclose(rates, np.repeat([1, 0.75, 0.5, 0.25], 3), rtol=1e-6)


@pytest.mark.parametrize("schedule", DECAYS)
@pytest.mark.parametrize("lengths", [{}, {"warmup_steps": 10, "decay_steps": 10}], ids=str)
def test_a_decay_needs_a_length_beyond_its_warmup(schedule, lengths):
    given = lengths.get("decay_steps", 0)
    for section in (OptimizerConfig, optimizer_section("discriminator")):
        said = rf"^{section.SECTION}\.decay_steps must be > warmup_steps={given}, .*, got {given}"
        with pytest.raises(UserError, match=said):
            make_optimizer(section(schedule=schedule, **lengths))
