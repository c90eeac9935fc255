"""`unroll` equals a plain Python loop in value and gradient, in every mode; `generate` too."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import recurrence_problems as problems
from recurrence_problems import FULL, MODES, Mode

from rnngen_jax import cells
from rnngen_jax.cells import base
from rnngen_jax.errors import UserError
from rnngen_jax.ops import products
from rnngen_jax.recurrence import (
    bidirectional,
    by_layer,
    choices,
    generate,
    joining,
    names,
    refuse_suffix,
    sequential,
    stacked,
    unroll,
)
from rnngen_jax.recurrence.choices import Choice, choose

T, B, D, F = 7, 3, 6, 5

CELLS = {
    **{name: functools.partial(cells.build, name, F) for name in cells.names()},
    "learned_lstm_stack": lambda: cells.build("lstm", F, layers=2, residual=True, learned=True),
}

# Chunks of 3 of the 7 steps: two in a loop, and one step left over.
WAYS = [("lstm", {}, mode, D) for mode in MODES]
WAYS += [
    (name, {"strategy": f"sequential:{options}"}, mode, D)
    for name, options, modes in (
        ("rnn", "gates=recompute,chunk=3", FULL[:1]),
        ("gru", "gates=recompute,chunk=3", FULL),
        ("gru", "gates=store,chunk=3", FULL),
        ("lstm", "gates=recompute,chunk=3", FULL[1:]),
        ("lstm", "gates=store,chunk=3", FULL[:1]),
        ("lstm", "gradient=autodiff", FULL[:1]),
        # Four steps per iteration: of 7, or of chunks of 5 and 2.
        ("lstm", "gates=store,unroll=4", FULL),
        ("gru", "gates=recompute,unroll=4,chunk=5", FULL),
    )
    for mode in modes
]
WAYS += [("gru", {"remat": T + 1}, FULL[0], D)]
# A reset restores the learned initial carry.
WAYS += [("learned_lstm_stack", {}, Mode(reverse, reset=True), D) for reverse in (False, True)]
WAYS += [("learned_lstm_stack", {"remat": 3}, FULL[1], D)]
WAYS += [("lstm", {"strategy": "sequential", "remat": 3}, FULL[0], D)]
# Few input features: the input product is computed inside the loop.
WAYS += [("gru", {}, FULL[0], 1), ("lstm", {}, FULL[1], 1)]
WAYS += [("lstm", {"strategy": "sequential:gradient=autodiff"}, FULL[1], 1)]
WAYS += [("gru", {"strategy": "sequential:unroll=2"}, FULL[1], 1)]
# Every other cell with its default strategy.
WAYS += [(name, {}, FULL[1], D) for name in sorted(CELLS.keys() - {way[0] for way in WAYS})]


def problem(name, mode, width):
    return problems.draw(CELLS[name](), (T, B, width), mode)


@functools.cache
def by_the_loop(name, mode, width):
    return problems.solve(problem(name, mode, width), strategy="loop")


# The default, with every option and with none, and gates that are rematerialised.
OPTIMISED = [WAYS[0], ("lstm", {}, FULL[1], D), WAYS[len(MODES) + 1]]


@pytest.mark.parametrize(
    ("name", "options", "mode", "width"),
    [pytest.param(*way, marks=[pytest.mark.optimised] if way in OPTIMISED else []) for way in WAYS],
)
def test_unroll_is_the_python_loop_in_value_and_gradient(name, options, mode, width):
    with jax.enable_x64(True):
        fast = problems.solve(problem(name, mode, width), **options)
        problems.close(fast, by_the_loop(name, mode, width))


@pytest.mark.parametrize("name", ["gru", "lstm"])
def test_products_gate_by_gate_are_those_of_all_gates_at_once(name, monkeypatch):
    """Thin and small kernels, as in all these tests, are concatenated for one product."""
    with jax.enable_x64(True):
        wanted = by_the_loop(name, FULL[0], D)
        monkeypatch.setattr(products, "_CPU_WIDE", 0)
        for module in (base, stacked):
            monkeypatch.setattr(module, "THIN", 0)
        fast = problems.solve(problem(name, FULL[0], D), strategy="sequential:chunk=3")
        problems.close(fast, wanted)


@pytest.mark.parametrize("name", ["gru", "lstm"])
def test_a_tpus_choice_is_the_python_loop_in_value_and_gradient(name, monkeypatch):
    for module in (stacked, products):
        monkeypatch.setattr(module, "compiled_for", lambda: "tpu")
    with jax.enable_x64(True):
        fast = problems.solve(problem(name, FULL[1], D))
        problems.close(fast, by_the_loop(name, FULL[1], D))
    assert program(name) == program(name, strategy="sequential:gates=recompute,unroll=4")
    monkeypatch.undo()
    assert program(name) == program(name, strategy="sequential:gates=recompute,unroll=1")


@pytest.mark.parametrize(
    ("name", "mode", "width"),
    [("lstm", FULL[0], D), ("lstm", FULL[1], 1), ("gru", FULL[1], D), ("rnn", FULL[0], D)],
)
def test_features_first_is_the_python_loop_in_value_and_gradient(name, mode, width, monkeypatch):
    """Seven steps: four in a loop's iteration, and three left over."""
    wanted_program = program(name)
    monkeypatch.setattr(choices, "_LANES", 1)
    for module in (sequential, base):
        monkeypatch.setattr(module, "compiled_for", lambda: "tpu")
    with jax.enable_x64(True):
        fast = problems.solve(problem(name, mode, width))
        problems.close(fast, by_the_loop(name, mode, width))
    monkeypatch.setattr(base, "compiled_for", lambda: "cpu")
    assert program(name) != wanted_program
    # What is asked for is done.
    told = "sequential:gates=recompute,unroll=1"
    assert program(name, strategy=told) == wanted_program


def test_choices_by_platform_and_shape():
    """The table in the docstring."""
    assert choose("cpu", 64, 191) == Choice(stored=False, chunk=16, unroll=1)
    assert choose("cpu", 1, 192) == Choice(stored=True, chunk=1024, unroll=1)
    assert choose("cpu", 1024, 192).chunk == 8
    assert choose("tpu", 64, 191) == Choice(stored=False, chunk=4096, unroll=4)
    assert choose("tpu", 64, 192) == Choice(stored=True, chunk=4096, unroll=4)
    assert choose("tpu", 128, 128).columns
    assert not choose("tpu", 127, 128).columns
    assert not choose("tpu", 128, 129).columns
    assert not choose("cpu", 1024, 16).columns
    assert choose("gpu", 64, 16) == Choice(stored=True, chunk=4096, unroll=1)


def test_gradients_under_vmap_are_those_of_each():
    with jax.enable_x64(True):
        cell, rng = cells.build("lstm", F), np.random.default_rng(0)
        each = [problems.draw_params(cell, D, rng) for _ in range(2)]
        params = jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)
        xs = rng.standard_normal((2, T, B, D))

        def loss(params, xs, strategy):
            return jnp.sin(unroll(cell, params, xs, strategy=strategy)[1]).sum()

        gradient = jax.grad(lambda params, xs: loss(params, xs, "sequential:chunk=3"))
        together = jax.jit(jax.vmap(gradient))(params, xs)
        alone = jax.grad(loss)(each[1], xs[1], "loop")
        problems.close(jax.tree.map(lambda leaf: leaf[1], together), alone)


def test_forward_mode_and_second_derivatives():
    with jax.enable_x64(True):
        cell, rng = cells.build("gru", F), np.random.default_rng(0)
        params, xs = problems.draw_params(cell, D, rng), rng.standard_normal((3, B, D))

        def value(strategy):
            return lambda p: jnp.square(unroll(cell, p, xs, strategy=strategy)[1]).sum()

        def along(*functions):
            """The functions' derivatives in the direction of the parameters."""
            return jax.jit(lambda p: [jax.jvp(f, (p,), (p,))[1] for f in functions])(params)

        loop, own, autodiff = map(value, ("loop", "sequential", "sequential:gradient=autodiff"))
        slope, curvature = along(loop, jax.grad(loop))
        problems.close(along(autodiff, jax.grad(autodiff)), [slope, curvature])
        problems.close(along(jax.grad(own)), [curvature])
        with pytest.raises(TypeError, match="forward-mode"):
            along(own)


def test_unroll_factor_and_any_batch_axes_change_no_number():
    cell = cells.build("gru", F)
    params = cell.init(jax.random.key(0), D)
    xs = jax.random.normal(jax.random.key(1), (T, B, D))
    carry, ys = unroll(cell, params, xs)
    np.testing.assert_allclose(unroll(cell, params, xs, unroll=4)[1], ys, atol=1e-6)
    _, single = unroll(cell, params, xs[:, 0])
    np.testing.assert_allclose(single, ys[:, 0], atol=1e-6)
    _, double = unroll(cell, params, xs[:, :, None])
    np.testing.assert_allclose(double[:, :, 0], ys, atol=1e-6)
    assert carry.h.shape == (B, F)
    mapped = jax.vmap(lambda x: unroll(cell, params, x)[1], in_axes=1, out_axes=1)(xs)
    np.testing.assert_allclose(mapped, ys, atol=1e-6)


def test_each_way_keeps_less_for_the_gradient_than_the_one_before():
    cell = cells.build("lstm", F)
    params = cell.init(jax.random.key(0), D)
    xs = jnp.ones((64, B, D))

    def kept(strategy, remat=None):
        loss = lambda p: unroll(cell, p, xs, strategy=strategy, remat=remat)[1].sum()  # noqa: E731
        residuals = jax.vjp(loss, params)[1]
        return sum(leaf.size for leaf in jax.tree.leaves(residuals))

    every = kept("sequential:gradient=autodiff")
    stored, recomputed = (kept(f"sequential:gates={gates}") for gates in ("store", "recompute"))
    # Instead of the gates and carries of 64 steps: only the carries, or those of 8 steps.
    assert every > stored > recomputed + 64 * 4 * B * F - 1
    assert kept("sequential", remat=8) < recomputed - 56 * 2 * B * F + 1


def test_a_chunk_of_few_steps_needs_less_memory_for_the_gradient():
    cell = cells.build("lstm", F)
    params = cell.init(jax.random.key(0), D)
    xs = jnp.ones((64, B, D))

    def planned(chunk):
        def loss(p):
            return unroll(cell, p, xs, strategy=f"sequential:chunk={chunk}")[1].sum()

        return jax.jit(jax.grad(loss)).lower(params).compile().memory_analysis().temp_size_in_bytes

    # At least the gradients of the gates of 56 more steps, in float32.
    assert planned(64) - planned(8) > 4 * 56 * 4 * B * F


def program(spec, layers=1, **options):
    cell, xs = cells.build(spec, F, layers=layers), jnp.ones((T, B, D))
    params = jax.eval_shape(lambda: cell.init(jax.random.key(0), D))
    return str(jax.make_jaxpr(lambda p: unroll(cell, p, xs, **options)[1])(params))


def test_auto_is_what_suits_the_cell():
    for spec, suited in (("gru", "sequential"), ("min_gru", "associative")):
        chosen = program(spec, strategy="auto")
        assert chosen == program(spec) == program(spec, strategy=suited)
        assert chosen != program(spec, strategy="sequential:gradient=autodiff")


def test_by_layer_runs_each_layer_over_the_whole_sequence():
    """A loop over a stack runs one step of each layer in turn; by layer, all steps of one first."""
    with jax.enable_x64(True):
        drawn = problems.draw(cells.build("gru", F, layers=2, residual=True), (T, B, D), FULL[0])
        whole, parts = (problems.solve(drawn, strategy=way) for way in ("loop", by_layer("loop")))
        problems.close(parts, whole)
    ways = "loop", by_layer("loop"), "newton:window=3", by_layer("newton:window=3")
    assert len({program("gru", layers=2, strategy=way) for way in ways}) == len(ways)
    # A state of 2 F values, with Jacobians of that width, against two of F.
    wide = f"{T // 2},{B},{2 * F},{2 * F}"
    assert wide in program("gru", layers=2, strategy="newton:window=3")
    assert wide not in program("gru", layers=2, strategy=by_layer("newton:window=3"))
    assert program("gru", strategy=by_layer("sequential")) == program("gru", strategy="sequential")


def test_a_strategy_says_whether_it_runs_cells_that_join_places():
    assert set(names()) - set(joining()) == {"newton"}
    assert {"auto", "associative", "loop", "sequential"} <= set(joining())


@pytest.mark.parametrize(
    ("cell", "settable", "instead"),
    [
        ("gru@loop", True, "model.cell=gru and model.strategy=loop."),
        ("gru:variant=nested@sequential:chunk=2", True, "strategy=sequential:chunk=2."),
        ("gru@", True, "set model.cell=gru."),
        ("gru@loop", False, "set model.cell=gru."),
    ],
)
def test_a_cell_that_says_how_it_is_run_is_told_the_field(cell, settable, instead):
    with pytest.raises(UserError, match=rf"^model.cell='{cell}' is an old.*{instead}$") as error:
        refuse_suffix(cell, "model", settable)
    assert "\n" not in str(error.value)
    refuse_suffix("gru:variant=nested", "model", settable)


def test_reset_begins_a_sequence_anew():
    cell = cells.build("gru", F)
    params = cell.init(jax.random.key(0), D)
    xs = jax.random.normal(jax.random.key(1), (T, B, D))
    reset = jnp.zeros((T, B), bool).at[3].set(True)
    _, ys = unroll(cell, params, xs, reset=reset)
    _, anew = unroll(cell, params, xs[3:])
    np.testing.assert_allclose(ys[3:], anew, atol=1e-6)
    assert np.abs(ys[3:] - unroll(cell, params, xs)[1][3:]).max() > 1e-3


def test_bidirectional_is_one_cell_each_way():
    forward, backward = cells.build("gru", F), cells.build("lstm", F + 1)
    params = {
        "forward": forward.init(jax.random.key(0), D),
        "backward": backward.init(jax.random.key(1), D),
    }
    xs = jax.random.normal(jax.random.key(2), (T, B, D))
    carries, ys = bidirectional(forward, backward, params, xs)
    assert ys.shape == (T, B, 2 * F + 1)
    flipped = unroll(backward, params["backward"], xs[::-1], strategy="loop")
    np.testing.assert_allclose(ys[..., :F], unroll(forward, params["forward"], xs)[1], atol=1e-6)
    np.testing.assert_allclose(ys[..., F:], flipped[1][::-1], atol=1e-6)
    np.testing.assert_allclose(carries["backward"].c, flipped[0].c, atol=1e-6)
    # Two sequences of 2 and 5 steps in one: each direction is reset where it enters the next.
    masks = {
        "forward": jnp.zeros((T, B), bool).at[2].set(True),
        "backward": jnp.zeros((T, B), bool).at[1].set(True),
    }
    _, joined = bidirectional(forward, backward, params, xs, reset=masks)
    for part in (slice(0, 2), slice(2, T)):
        _, alone = bidirectional(forward, backward, params, xs[part])
        np.testing.assert_allclose(joined[part], alone, atol=1e-6)


def test_generate_feeds_a_sampler_its_own_output():
    def step(carry, x, t, key):
        x = x + jax.random.normal(key, x.shape) + t
        return carry + x, x

    key = jax.random.key(5)
    carry, xs = jax.jit(lambda: generate(step, jnp.zeros(2), jnp.ones(2), key, 6))()
    total, x = np.zeros(2), np.ones(2)
    for t in range(6):
        x = x + np.asarray(jax.random.normal(jax.random.fold_in(key, t), (2,))) + t
        total = total + x
        np.testing.assert_allclose(xs[t], x, rtol=1e-6)
    np.testing.assert_allclose(carry, total, rtol=1e-6)


def test_wrong_options_are_refused():
    cell = cells.build("gru", F)
    params = cell.init(jax.random.key(0), D)
    with pytest.raises(UserError, match="parallel"):
        unroll(cell, params, jnp.ones((T, B, D)), strategy="parallel")
    with pytest.raises(UserError, match=r"strategy must be one of .*, got ''"):
        unroll(cell, params, jnp.ones((T, B, D)), strategy="")
    with pytest.raises(UserError, match="has no option 'gate=store'; did you mean 'gates'"):
        unroll(cell, params, jnp.ones((T, B, D)), strategy="sequential:gate=store")
    with pytest.raises(ValueError, match="unroll must be 0 with strategy='loop', got 2"):
        unroll(cell, params, jnp.ones((T, B, D)), strategy="loop", unroll=2)
    with pytest.raises(ValueError, match="remat must be ≥ 1 or None, got 0"):
        unroll(cell, params, jnp.ones((T, B, D)), remat=0)


@pytest.mark.parametrize(
    ("shape", "carry", "reset", "said"),
    [
        ((D,), None, None, r"^xs must be \[T, B, D\] or \[T, D\], got shape \(6,\)$"),
        ((T, B, D), (B, F + 1), None, r"must be .*h=\(3, 5\).*got .*h=\(3, 6\)"),
        ((T, B, D), (B + 1, F), None, r"must be .*h=\(3, 5\).*got .*h=\(4, 5\)"),
        ((T, B, D), (F,), None, r"must be .*h=\(3, 5\).*got .*h=\(5,\)"),
        ((T, D), (B, F), None, r"must be .*h=\(5,\).*got .*h=\(3, 5\)"),
        ((T, B, D), None, (B, T), r"^reset must be of shape \(7, 3\), as xs, got \(3, 7\)$"),
        ((T, B, D), None, (T,), r"^reset must be of shape \(7, 3\)"),
    ],
)
@pytest.mark.parametrize("layers", [1, 2])
def test_shapes_that_do_not_fit_are_refused(layers, shape, carry, reset, said):
    cell = cells.build("lstm", F, layers=layers)
    params = cell.init(jax.random.key(0), D)
    given = None
    if carry is not None:
        given = cells.build("lstm", carry[-1], layers=layers).carry(carry[:-1], jnp.float32)
    mask = None if reset is None else jnp.zeros(reset, bool)
    with pytest.raises(ValueError, match=said):
        unroll(cell, params, jnp.ones(shape), given, reset=mask)


def test_the_carry_of_another_cell_is_refused():
    cell, other = cells.build("gru", F), cells.build("rnn", F)
    params, carry = cell.init(jax.random.key(0), D), other.carry((B,), jnp.float32)
    said = r"^the carry's shapes must be GRUCarry\(h=\(3, 5\)\), got RNNCarry\(h=\(3, 5\)\)$"
    with pytest.raises(ValueError, match=said):
        unroll(cell, params, jnp.ones((T, B, D)), carry)
