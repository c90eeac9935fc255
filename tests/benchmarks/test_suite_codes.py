"""Torch's VQ-VAE against ours over a few steps, and the suite's tables."""

import functools

import jax
import numpy as np
import pytest

from rnngen_jax.benchmarks.problem import Settings, Shape
from rnngen_jax.benchmarks.suites import codes
from rnngen_jax.benchmarks.textbook_vqvae import LAYERS, torch_vqvae
from rnngen_jax.benchmarks.timing import Timing
from rnngen_jax.benchmarks.torch_layers import from_torch, to_torch
from rnngen_jax.errors import RunError, UserError

SHAPE = Shape(3, 4, 8, 8)
PLAIN = codes.PLAIN
ours, sizes_of = functools.cache(codes.ours), codes.sizes_of


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Our side, compiled once for all tests."""
    monkeypatch.setattr(codes, "ours", ours)


def peers():
    pytest.importorskip("torch")
    pytest.importorskip("vector_quantize_pytorch")


@pytest.mark.parametrize("readout", codes.READOUTS)
def test_networks_and_their_training_agree(readout):
    peers()
    sizes = codes.sizes_of(readout, SHAPE)
    codes.check("here", ours(sizes, SHAPE.steps, PLAIN), sizes)


def test_parameters_come_back_from_torch():
    params = ours(codes.sizes_of("bernoulli", SHAPE), SHAPE.steps, PLAIN).params
    for name, layers in LAYERS.items():
        back = from_torch(to_torch(params[name], layers), layers)
        jax.tree.map(np.testing.assert_array_equal, back, params[name])


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ("encoder", "losses of torch eager, vector-quantize-pytorch differ from ours by"),
        ("codes", "code displacement of torch eager, vector-quantize-pytorch differs from ours"),
    ],
)
def test_a_wrong_network_stops_the_bench(monkeypatch, part, message):
    def wrong(params, codebook, count, sizes):
        if part == "codes":
            right = torch_vqvae(params, codebook, count, sizes)
            return right._replace(codes=lambda: codebook + 0.9 * (right.codes() - codebook))
        changed = jax.tree.map(lambda leaf: 0.5 * leaf, params[part])
        return torch_vqvae({**params, part: changed}, codebook, count, sizes)

    peers()
    monkeypatch.setattr(codes, "torch_vqvae", wrong)
    sizes = codes.sizes_of("bernoulli", SHAPE)
    with pytest.raises(RunError, match=f"here: {message}"):
        codes.check("here", ours(sizes, SHAPE.steps, PLAIN), sizes)


def test_without_a_quantiser_the_decoder_sees_the_encoders_vectors():
    """Its first loss is that of the same networks, computed apart."""
    sizes = codes.sizes_of("bernoulli", SHAPE)
    bare = ours(sizes, SHAPE.steps, None)
    losses, _, found = bare.train()
    assert found is None
    with_codes = ours(sizes, SHAPE.steps, PLAIN).train()[0]
    assert np.isfinite(losses).all()
    assert not np.allclose(losses[0], with_codes[0], rtol=1e-5)


def test_a_run_that_has_begun_starts_from_trained_parameters():
    sizes = codes.sizes_of("bernoulli", SHAPE)
    start = ours(sizes, SHAPE.steps, PLAIN)
    begun = codes.ours(sizes, SHAPE.steps, PLAIN, begun=True)
    after = {name: start.train()[1]["model"][name] for name in LAYERS}
    jax.tree.map(np.testing.assert_array_equal, begun.params, after)


def test_training_and_sampling_are_timed(monkeypatch):
    taken = {"ours": 0.5, codes.USUAL: 0.6, codes.BARE: 0.45, codes.TORCH: 1.0}
    taken["ours, pixel_rnn"] = 4.0

    def interleaved(calls, rounds):
        assert rounds == 3
        for call in calls.values():
            call()
        return {name: Timing(*[taken[name]] * 4) for name in calls}

    monkeypatch.setattr(codes, "interleaved", interleaved)
    monkeypatch.setattr(codes, "READOUTS", {"bernoulli": 2})
    monkeypatch.setattr(codes, "PIXELS", {"ours, pixel_rnn": {}})
    monkeypatch.setattr(codes, "sizes_of", lambda *_: sizes_of("bernoulli", SHAPE))
    monkeypatch.setattr(codes.torch_nn, "missing", lambda: "torch is not installed")
    found = list(codes.run(Settings(3, (SHAPE,)), None))
    cases = 3 * ["bernoulli train 3,4,8,8"] + 2 * ["sample 3,4,8,8"]
    assert [record.case for record in found] == cases
    assert found[0].values["steps/s"] == pytest.approx(6)
    assert found[3].values["images/s"] == pytest.approx(8)
    notes = codes.notes(found)
    assert "bernoulli train 3,4,8,8: the quantiser takes 10 % of a step" in notes
    assert "sample 3,4,8,8: ours, pixel_rnn / ours: 8" in notes


def test_a_side_that_cannot_be_halved_twice_is_refused():
    with pytest.raises(UserError, match="I must be a multiple of 4, got 10"):
        codes.sizes_of("bernoulli", Shape(1, 2, 10, 4))
