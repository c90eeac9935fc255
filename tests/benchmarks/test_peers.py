"""Other libraries' layers with our parameters give our outputs, and gradients in our layout."""

import functools
import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rnngen_jax.benchmarks import agreement, layouts, peers
from rnngen_jax.benchmarks.contenders import contender, ours
from rnngen_jax.benchmarks.peers import equinox_cells, flax_linen, jax_cudnn, keras_layers, torch_nn
from rnngen_jax.benchmarks.problem import Shape, draw
from rnngen_jax.errors import RunError

# Four different sizes, so that a transposed array does not fit.
SHAPE = Shape(4, 2, 3, 5)

PEERS = [flax_linen, torch_nn, keras_layers, equinox_cells]


@functools.cache
def by_the_python_loop(cell):
    """Our outputs and gradients, by the strategy that is tested against the equations."""
    reference = contender(ours(draw(cell, SHAPE), "loop"))
    return reference.outputs(reference.forward()), reference.gradients(reference.gradient())


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.__name__.rsplit(".", 1)[-1])
def test_peer_agrees_with_the_python_loop(peer, cell):
    if (reason := peer.missing()) is not None:
        pytest.skip(reason)
    wanted_ys, wanted = by_the_python_loop(cell)
    found = peer.contenders(draw(cell, SHAPE))
    assert found
    for one in found:
        ys = one.outputs(one.forward())
        np.testing.assert_allclose(ys, wanted_ys, atol=2e-6, err_msg=one.name)
        gradients = one.gradients(one.gradient())
        assert agreement.difference(gradients, wanted)[0] < 1e-5, one.name
        # A second call gives the same: nothing accumulates between calls.
        again = one.gradients(one.gradient())
        assert agreement.difference(again, gradients)[0] == 0, one.name


def test_cudnn_layout_is_that_of_jax_own_reference():
    from jax.experimental import rnn

    problem = draw("lstm", SHAPE)
    steps, batch, inputs, hidden = SHAPE
    zeros = jnp.zeros((1, batch, hidden))

    def apply(flat, xs):
        parts = rnn.unpack_lstm_weights(flat, inputs, hidden, 1, False)
        lengths = jnp.full((batch,), steps, jnp.int32)
        options = (lengths, inputs, hidden, 1, 0.0, False)
        return rnn.lstm_ref(jnp.swapaxes(xs, 0, 1), zeros, zeros, *parts, *options)[0]

    def loss(flat):
        return (jnp.swapaxes(apply(flat, problem.xs), 0, 1) * problem.weights).sum()

    wanted_ys, wanted = by_the_python_loop("lstm")
    flat = jax_cudnn.flatten(problem.params)
    ys = np.swapaxes(apply(flat, problem.xs), 0, 1)
    np.testing.assert_allclose(ys, wanted_ys, atol=2e-6)
    gradients = jax_cudnn.unflatten(jax.grad(loss)(flat), SHAPE)
    assert agreement.difference(gradients, wanted)[0] < 1e-5


@pytest.mark.parametrize(("cell", "gates"), [("lstm", "ofig"), ("gru", "rzn")])
def test_wide_layout_and_back(cell, gates):
    params = draw(cell, SHAPE).params
    wide = layouts.widen(params, gates)
    assert wide.input.shape == (3, 5 * len(gates))
    back = layouts.narrow(wide, gates)
    assert jax.tree.structure(back) == jax.tree.structure(params)
    jax.tree.map(np.testing.assert_array_equal, back, params)


def test_a_peer_that_is_not_installed_is_named(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "torch" else find(name)
    )
    said = peers.left_out()
    assert "torch is not installed (pip install rnngen_jax[bench]): left out" in said
    found = {one.name.split()[0] for one in peers.contenders(draw("gru", SHAPE))}
    assert "torch" not in found
    assert "flax" in found


def test_wrong_parameters_stop_the_bench():
    problem = draw("gru", SHAPE)
    reference = contender(ours(problem, "sequential"))
    swapped = {**problem.params["recurrent"]}
    swapped["z"], swapped["r"] = swapped["r"], swapped["z"]
    wrong = problem._replace(params={**problem.params, "recurrent": swapped})
    message = r"gru 4,2,3,5: outputs of other differ from ours by .*; allowed: 0.0001"
    with pytest.raises(RunError, match=message):
        agreement.check(str(problem), [reference, contender(ours(wrong, "sequential", "other"))])
    # The same outputs with different gradients.
    halved = reference._replace(
        name="half",
        gradients=lambda found: jax.tree.map(lambda g: 0.5 * np.asarray(g), found),
    )
    with pytest.raises(
        RunError, match=r"gradients of half for \['.*'\] differ from ours by 0.5 of the largest"
    ):
        agreement.check(str(problem), [reference, halved])


def test_difference_sees_shapes_structure_and_what_is_no_number():
    wanted = {"a": np.array([1.0, -4.0]), "b": np.zeros(2)}
    assert agreement.difference(wanted, wanted) == (0.0, "")
    close = {"a": np.array([1.0, -4.4]), "b": np.zeros(2)}
    size, where = agreement.difference(close, wanted)
    assert size == pytest.approx(0.1)
    assert where == "['a']"
    for bad in (
        {"a": wanted["a"]},
        {**wanted, "b": np.zeros(3)},
        {**wanted, "b": np.full(2, np.nan)},
    ):
        assert agreement.difference(bad, wanted)[0] == np.inf
    with pytest.raises(RunError):
        agreement.require_close("x", {"a": np.full(2, np.nan)}, {"a": np.zeros(2)})
