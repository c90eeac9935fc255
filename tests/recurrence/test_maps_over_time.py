"""Every way of running cells over maps is the Python loop, in value and gradient, in every mode."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import recurrence_problems as problems
from recurrence_problems import FULL

from rnngen_jax import cells
from rnngen_jax.ops import convolutions
from rnngen_jax.recurrence import choices, sequential, unroll
from rnngen_jax.recurrence.choices import Choice

T, B, H, W, D, F = 5, 2, 3, 2, 6, 3

CELLS = {
    "conv_lstm": lambda: cells.build_maps("conv_lstm", F),
    "peepholes": lambda: cells.build_maps("conv_lstm:peepholes=True", F),
    "conv_gru": lambda: cells.build_maps("conv_gru", F),
    "gru": lambda: cells.build_maps("gru", F, learned=True),
    "min_gru": lambda: cells.build_maps("min_gru", F),
    "st_lstm": lambda: cells.build_maps("st_lstm:decoupling=True", F, layers=2),
    "residual_stack": lambda: cells.build_maps("conv_lstm", F, layers=2, residual=True),
}

# Chunks of 2 of the 5 steps: two in a loop, and one step left over.
WAYS = [
    ("conv_lstm", {}, FULL[0], D),
    ("conv_lstm", {"strategy": "sequential:gates=store,chunk=2"}, FULL[1], D),
    ("conv_lstm", {"strategy": "sequential:gates=recompute,chunk=2"}, FULL[0], 1),
    ("conv_lstm", {"strategy": "sequential:gradient=autodiff"}, FULL[1], D),
    ("peepholes", {}, FULL[1], D),
    ("conv_gru", {"remat": 2}, FULL[1], D),
    ("gru", {}, FULL[1]._replace(carried=False), D),
    ("min_gru", {"strategy": "associative:chunk=2"}, FULL[1], D),
    ("st_lstm", {"remat": 2}, FULL[0], D),
    ("residual_stack", {"remat": 2}, FULL[1], D),
]


@functools.cache
def by_the_loop(name, mode, width):
    drawn = problems.draw(CELLS[name](), (T, B, H, W, width), mode)
    return problems.solve(drawn, strategy="loop")


@pytest.mark.parametrize(("name", "options", "mode", "width"), WAYS)
def test_unroll_over_maps_is_the_python_loop(name, options, mode, width):
    with jax.enable_x64(True):
        drawn = problems.draw(CELLS[name](), (T, B, H, W, width), mode)
        problems.close(problems.solve(drawn, **options), by_the_loop(name, mode, width))


def test_a_sequence_begins_anew_at_all_places_of_its_map():
    """Resets `[T, B]` are those of every place; a sequence after one is run as if it were first."""
    cell = CELLS["conv_lstm"]()
    drawn = problems.draw(cell, (T, B, H, W, D), FULL[0])
    params, xs = jax.tree.map(np.float32, (drawn.params, drawn.xs))
    reset = np.zeros((T, B), bool)
    reset[2, 1] = True
    ys = unroll(cell, params, xs, reset=jnp.asarray(reset))[1]
    everywhere = np.broadcast_to(reset[..., None, None], (T, B, H, W))
    np.testing.assert_array_equal(ys, unroll(cell, params, xs, reset=jnp.asarray(everywhere))[1])
    alone = unroll(cell, params, xs[2:, 1:])[1]
    np.testing.assert_allclose(ys[2:, 1:], alone, atol=1e-6)
    assert np.abs(ys[2:, :1] - unroll(cell, params, xs[2:, :1])[1]).max() > 1e-3
    with pytest.raises(ValueError, match="reset must be of shape"):
        unroll(cell, params, xs, reset=jnp.zeros((T, B, H), bool))


def test_features_first_is_not_chosen_for_maps(monkeypatch):
    """That form knows neighbours along a line alone."""
    monkeypatch.setattr(choices, "_LANES", 1)
    monkeypatch.setattr(sequential, "compiled_for", lambda: "tpu")
    assert sequential.choose("tpu", 2, F) == Choice(False, 4096, 4, columns=True)
    drawn = problems.draw(CELLS["conv_lstm"](), (T, B, H, W, D), FULL[0])
    with jax.enable_x64(True):
        problems.close(problems.solve(drawn), by_the_loop("conv_lstm", FULL[0], D))


def peak(name, steps, remat):
    """Bytes beside arguments and results that the gradient over T steps needs."""
    cell = CELLS[name]()
    params = jax.eval_shape(lambda: cell.init(jax.random.key(0), D))
    xs = jax.ShapeDtypeStruct((steps, B, H, W, D), jnp.float32)
    loss = jax.jit(jax.grad(lambda p, xs: (unroll(cell, p, xs, remat=remat)[1] ** 2).sum()))
    return loss.lower(params, xs).compile().memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize("name", ["conv_lstm", "conv_gru"])
def test_remat_over_time_takes_less_memory(name):
    assert peak(name, 64, 8) < 0.6 * peak(name, 64, None)


@pytest.mark.parametrize("name", ["conv_lstm", "conv_gru"])
def test_neighbourhoods_are_laid_out_for_some_steps_at_a_time(name, monkeypatch):
    """Those of all steps would be 9 D values per place and step."""
    found = {}
    for steps in (2, 128):
        monkeypatch.setattr(convolutions, "_CPU_VALUES", steps * B * H * W * 9 * D)
        found[steps] = peak(name, 64, None)
    assert found[128] - found[2] > 0.8 * 62 * B * H * W * 9 * D * 4
