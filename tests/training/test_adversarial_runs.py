"""Adversarial models in the trainer: over devices, stopped and resumed, private, and finite."""

import functools
import sys

import jax
import numpy as np
import pytest
import training_toys as toys

from rnngen_jax import data, experiment, main, models
from rnngen_jax.data.base import DataConfig
from rnngen_jax.data.feed import fetch, make_feed
from rnngen_jax.errors import UserError
from rnngen_jax.ops.adversarial import LOSSES
from rnngen_jax.ops.penalties import PENALTIES
from rnngen_jax.runs.training import accountant
from rnngen_jax.shapes import ImageSpec
from rnngen_jax.training import sinks
from rnngen_jax.training.checkpoints import open_checkpoints
from rnngen_jax.training.config import OptimizerConfig
from rnngen_jax.training.loop import train
from rnngen_jax.training.optimizers import make_optimizer
from rnngen_jax.training.parallel import make_parallel
from rnngen_jax.training.privacy import Privacy, epsilon
from rnngen_jax.training.state import create
from rnngen_jax.training.step import Updates, many_steps, most_updates, train_step

SPEC = ImageSpec(4, 4, 1, 17, 3)
EVERYTHING = {  # that looks beyond its own example, or draws
    "noise": 3,
    "norm": "batch",
    "discriminator_norm": "batch",
    "spectral": True,
    "dropout": 0.3,
    "augmentation": "color",
}
GANS = {
    "mlp_gan": ("mlp_gan", {**EVERYTHING, "hidden": 4, "layers": 1}, Updates(2)),
    "dcgan": ("dcgan", {**EVERYTHING, "features": 2, "stages": 2, "kernel": 2}, Updates(2)),
    "private": (
        "mlp_gan",
        {"noise": 3, "hidden": 4, "layers": 1},
        Updates(1, Privacy(0.5, 0.1)),
    ),
}
STEPS, BATCH = 3, 16
PLACES = {"one": ("jit", 1), "jit": ("jit", 8), "pmap": ("pmap", 8)}


def split():
    """48 images of 4×4, labelled by how bright they are."""
    rng = np.random.default_rng(0)
    base = rng.integers(0, 17, (48, 1, 1, 1))
    images = np.clip(base + rng.integers(-4, 5, (48, 4, 4, 1)), 0, 16).astype(np.uint8)
    labels = (base.reshape(-1) // 6).astype(np.int32)
    return data.base.Split(48, lambda i: (images[i], labels[i]))


@functools.cache
def trained(case, kind, devices):
    """Metrics of every step and the state after the last."""
    name, fields, own = GANS[case]
    model, updates = models.build(name, fields, SPEC), {"discriminator": own}
    config = OptimizerConfig(name="sgd", learning_rate=0.1)
    chains = {player: make_optimizer(config) for player in model.losses}
    parallel = make_parallel(
        kind,
        train_step(model, chains, 0.9, toys.keep, updates),
        fetch,
        0,
        BATCH,
        jax.devices()[:devices],
    )
    feed = make_feed(split(), BATCH * most_updates(updates), 0, "device")
    state = parallel.place(jax.jit(functools.partial(create, model, chains, 0, True))())
    resident = parallel.place_resident(feed.resident)
    chunk = parallel.place_chunk(next(iter(feed.chunks([(0, STEPS)], 0, 1))))
    state, metrics = parallel.compiled(state, resident, chunk)(state, resident, chunk)
    return parallel.host(metrics), parallel.host(state)


SLOW = [("mlp_gan", "jit"), ("private", "jit"), ("dcgan", "jit"), ("dcgan", "pmap")]


@pytest.mark.parametrize(
    ("case", "place"),
    [
        ("mlp_gan", "pmap"),
        ("private", "pmap"),
        *(pytest.param(*each, marks=pytest.mark.slow) for each in SLOW),
    ],
)
def test_eight_devices_give_the_numbers_of_one(case, place):
    metrics, state = trained(case, *PLACES["one"])
    assert np.ptp(metrics["loss/discriminator"]) > 1e-3
    assert metrics["grad_norm/generator"].min() > 1e-4
    found, after = trained(case, *PLACES[place])
    assert found.keys() == metrics.keys()
    for name, values in metrics.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-4, atol=1e-5, err_msg=name)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), after, state)


def run(workdir, steps):
    """Trains the GAN that has everything, in calls of two steps."""
    name, fields, _ = GANS["mlp_gan"]
    model = models.build(name, fields, SPEC)
    config = toys.settings(
        steps=steps, batch_size=8, steps_per_call=2, log_every=2, checkpoint_every=2, ema_decay=0.9
    )
    sections = {
        "discriminator": OptimizerConfig(learning_rate=0.01, updates_per_step=2),
        "generator": OptimizerConfig(learning_rate=0.01),
    }
    feed = make_feed(split(), 16, 0, "device")
    given = (toys.jitter, config, sections, workdir, toys.IDENTITY)
    train(model, feed, *given, devices=jax.devices()[:1])
    meta = open_checkpoints(workdir / "checkpoints").restore_evaluated(
        "latest", model, toys.IDENTITY
    )
    lines = sinks.read(workdir / "metrics.jsonl")
    return meta, [{k: v for k, v in line.items() if k != "images_per_second"} for line in lines]


def test_a_run_that_was_stopped_ends_bit_equal_to_one_that_was_not(tmp_path):
    """With running moments, power iteration's vectors and both optimisers in its state."""
    first, _ = run(tmp_path / "parts", 4)
    parts, lines = run(tmp_path / "parts", 8)
    whole, expected = run(tmp_path / "whole", 8)
    arrays = parts.meta["arrays"]  # digests of all of the state
    assert arrays == whole.meta["arrays"] != first.meta["arrays"]
    assert lines == expected
    for part in ("extra.spectral", "extra.discriminator", "extra.generator", "opt_state.gener"):
        moved = {name for name in arrays if arrays[name] != first.meta["arrays"][name]}
        assert any(name.startswith(part) for name in moved), part


# Every loss with every penalty, and what else keeps a discriminator smooth, on the digits.


@functools.cache
def digits():
    dataset = data.load(DataConfig(name="digits"))
    feed = make_feed(dataset.splits["train"], 16, 0, "device")
    return dataset.spec, feed.resident, next(iter(feed.chunks([(0, 200)], 0, 1)))


def stays_finite(fields, **section):
    spec, resident, chunk = digits()
    model = models.build("mlp_gan", {"noise": 4, "hidden": 8, "layers": 1, **fields}, spec)
    config = OptimizerConfig(learning_rate=1e-3, b1=0.5, **section)
    chains = {player: make_optimizer(config) for player in model.losses}
    step = train_step(model, chains, 0.0, toys.keep)
    state = jax.jit(functools.partial(create, model, chains, 0))()
    state, metrics = jax.jit(many_steps(step, fetch, 0))(state, resident, chunk)
    assert state.step == 200
    for name, values in metrics.items():
        assert np.all(np.isfinite(values)), name
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(state.params))
    assert np.ptp(metrics["loss/discriminator"]) > 0
    return state


FAST = {
    "minimax": ({"penalty": "none", "spectral": True}, {}),
    "non_saturating": ({"penalty": "dragan", "augmentation": "color,translation,cutout"}, {}),
    "least_squares": ({"penalty": "r1"}, {}),
    "hinge": ({"penalty": "r2"}, {}),
    "wasserstein": ({"penalty": "wgan_gp"}, {"clip_weights": 0.1}),
    "relativistic": ({"penalty": "r1_r2"}, {}),
}


@pytest.mark.parametrize("loss", FAST)
def test_each_loss_with_a_penalty_stays_finite(loss):
    fields, section = FAST[loss]
    state = stays_finite({"loss": loss, **fields}, **section)
    if section:
        assert max(np.abs(x).max() for x in jax.tree.leaves(state.params)) < 0.1 * (1 + 1e-6)


def test_the_losses_and_penalties_above_are_all_of_them():
    assert set(FAST) == set(LOSSES)
    assert {fields["penalty"] for fields, _ in FAST.values()} == set(PENALTIES)


@pytest.mark.slow
@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_with_every_penalty_stays_finite(loss, penalty):
    stays_finite({"loss": loss, "penalty": penalty})


# Private training, from the command line.

CONFIG = """
from rnngen_jax import experiment

def get_config():
    config = experiment.default("mlp_gan")
    config.model.update({"noise": 4, "hidden": 8, "layers": 1})
    config.discriminator.update({"updates_per_step": 2, "private_noise": 1.1, "private_clip": 0.5})
    config.training.update({"steps": 4, "batch_size": 16, "steps_per_call": 2, "log_every": 2})
    config.training.update({"validate_every": 0, "checkpoint_every": 0, "sample_every": 0})
    return config
"""


def command(folder, *flags):
    file = folder / "private.py"
    file.write_text(CONFIG)
    return main.run(["rnngen", "train", f"--config={file}", f"--workdir={folder / 'run'}", *flags])


def test_a_private_run_tells_its_epsilon(tmp_path):
    accounting = pytest.importorskip("dp_accounting")
    from dp_accounting import rdp

    assert command(tmp_path, "--config.discriminator.private_delta=1e-4") == 0
    lines = sinks.read(tmp_path / "run" / "metrics.jsonl")
    num = data.load(DataConfig(name="digits")).splits["train"].num
    assert [line["step"] for line in lines] == [2, 4]
    for line in lines:
        assert line["delta/discriminator"] == 1e-4
        # A step of two updates is two private steps.
        steps, rate = 2 * line["step"], 16 / num
        assert line["epsilon/discriminator"] == pytest.approx(epsilon(1.1, rate, steps, 1e-4))
        event = accounting.PoissonSampledDpEvent(rate, accounting.GaussianDpEvent(1.1))
        theirs = rdp.RdpAccountant().compose(event, steps).get_epsilon(1e-4)
        assert line["epsilon/discriminator"] == pytest.approx(theirs, rel=1e-9)
        assert "epsilon/generator" not in line


def test_without_the_accountants_package_nothing_begins(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    assert command(tmp_path) != 0
    said = capsys.readouterr().err.strip()
    assert "not installed" in said
    assert "rnngen_jax[privacy]" in said
    assert "\n" not in said
    assert not (tmp_path / "run").exists()


def test_a_run_that_is_not_private_needs_no_accountant(monkeypatch):
    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    assert accountant(experiment.check({"model": {"name": "mlp_gan"}}), 100) is None
    private = {"model": {"name": "mlp_gan"}, "discriminator": {"private_noise": 1.0}}
    with pytest.raises(UserError, match="not installed"):
        accountant(experiment.check(private), 100)
