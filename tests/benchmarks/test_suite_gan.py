"""Torch's GANs against ours over a few steps of both players, and the suite's table."""

import functools

import jax
import numpy as np
import pytest

from rnngen_jax.benchmarks.problem import Settings, Shape
from rnngen_jax.benchmarks.suites import gan
from rnngen_jax.benchmarks.textbook_gan import from_torch, to_torch, torch_gan
from rnngen_jax.benchmarks.timing import Timing
from rnngen_jax.errors import RunError

SHAPE = Shape(3, 4, 8, 16)
ours = functools.cache(gan.ours)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Short noise vectors, and our side compiled once for all tests."""
    monkeypatch.setattr(gan, "NOISE", 5)
    monkeypatch.setattr(gan, "ours", ours)


@pytest.mark.parametrize("kind", gan.KINDS)
def test_networks_and_their_training_agree(kind):
    pytest.importorskip("torch")
    sizes = gan.sizes_of(kind, SHAPE)
    gan.check("here", ours(sizes, SHAPE.steps), sizes)


@pytest.mark.parametrize("kind", gan.KINDS)
def test_parameters_come_back_from_torch(kind):
    sizes = gan.sizes_of(kind, SHAPE)
    params = ours(sizes, SHAPE.steps).params
    jax.tree.map(np.testing.assert_array_equal, from_torch(to_torch(params, sizes), sizes), params)


@pytest.mark.parametrize(
    ("kind", "part", "message"),
    [
        ("mlp_gan", "generator", "losses of torch eager differ from ours by"),
        ("dcgan", "discriminator", "losses of torch eager differ from ours by"),
        ("mlp_gan", "params", "parameter displacement of torch eager differs from ours by 0.1 "),
    ],
)
def test_a_wrong_network_stops_the_bench(monkeypatch, kind, part, message):
    def wrong(params, sizes):
        if part in params:
            changed = jax.tree.map(lambda leaf: 0.9 * leaf, params[part])
            return torch_gan({**params, part: changed}, sizes)
        right = torch_gan(params, sizes)

        def less():
            return jax.tree.map(lambda a, b: b + 0.9 * (a - b), right.params(), params)

        return right._replace(params=less)

    pytest.importorskip("torch")
    monkeypatch.setattr(gan, "torch_gan", wrong)
    sizes = gan.sizes_of(kind, SHAPE)
    with pytest.raises(RunError, match=f"here: {message}"):
        gan.check("here", ours(sizes, SHAPE.steps), sizes)


def test_steps_are_timed_beside_each_other(monkeypatch):
    pytest.importorskip("torch")

    def interleaved(calls, rounds):
        assert rounds == 3
        for call in calls.values():
            call()
        taken = {"ours": 0.5, gan.TORCH: 2.0}
        return {name: Timing(*[taken[name]] * 3) for name in calls}

    monkeypatch.setattr(gan, "interleaved", interleaved)
    monkeypatch.setattr(gan, "KINDS", ("mlp_gan",))
    found = list(gan.run(Settings(3, (SHAPE,)), None))
    assert [record.case for record in found] == 2 * ["mlp_gan 3,4,8,16"]
    assert [record.values["ratio"] for record in found] == pytest.approx([1, 4])
    assert [record.values["steps/s"] for record in found] == pytest.approx([6, 1.5])
    assert gan.notes(found)[1:] == ["torch / ours: median 4, lowest 4"]
