"""Cells over maps against their equations in NumPy, values and gradients, and against torch."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from map_equations import EQUATIONS, LAYERS

from rnngen_jax import cells
from rnngen_jax.errors import UserError
from rnngen_jax.recurrence import unroll

T, B, H, W, D, F = 3, 2, 3, 4, 5, 3
# Also one place per neighbourhood, and a neighbourhood larger than the map.
CASES = [(spec, 3, D) for spec in EQUATIONS]
CASES += [("conv_lstm", 1, D), ("conv_gru", 7, D), ("conv_lstm", 3, 1)]
STEP = 1e-5  # of finite differences


def built(spec, kernel=3):
    layers = LAYERS if spec.startswith("st_lstm") else 1
    return cells.build_maps(spec, F, kernel, layers=layers)


def drawn(cell, width, seed=0):
    """Parameters, none of them 0, inputs, weights of outputs, and a direction of both."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(lambda: cell.init(jax.random.key(0), width))

    def normal(scale):
        return jax.tree.map(lambda leaf: scale * rng.standard_normal(leaf.shape), shapes)

    params, xs = normal(0.4), rng.standard_normal((T, B, H, W, width))
    weights = rng.standard_normal((T, B, H, W, cell.features))
    return params, xs, weights, (normal(1.0), rng.standard_normal(xs.shape))


def by_equations(spec, cell, params, xs):
    zeros = jax.tree.map(np.zeros_like, jax.tree.leaves(cell.carry((B, H, W), np.float32)))
    state, ys = tuple(zeros), []
    for x in xs:
        state, y = EQUATIONS[spec](params, state, x)
        ys.append(y)
    return state, np.stack(ys)


@pytest.mark.parametrize(("spec", "kernel", "width"), CASES)
def test_a_cell_is_its_equations_in_value_and_gradient(spec, kernel, width):
    """The gradient along a direction, against differences of the equations."""
    cell = built(spec, kernel)
    params, xs, weights, direction = drawn(cell, width)

    @jax.jit
    def loss(params, xs):
        carry, ys = unroll(cell, params, xs)
        return (ys * weights).sum() + sum(map(jnp.sum, jax.tree.leaves(carry))), (carry, ys)

    def expected(sign):
        moved = jax.tree.map(lambda a, d: a + sign * STEP * d, (params, xs), direction)
        state, ys = by_equations(spec, cell, *moved)
        return (ys * weights).sum() + sum(map(np.sum, state))

    with jax.enable_x64(True):
        run = jax.value_and_grad(loss, (0, 1), has_aux=True)
        (_, (carry, ys)), gradient = run(params, xs)
        assert ys.dtype == jnp.float64
    state, wanted = by_equations(spec, cell, params, xs)
    np.testing.assert_allclose(ys, wanted, rtol=0, atol=1e-12)
    for ours, theirs in zip(jax.tree.leaves(carry), state, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)
    slopes = jax.tree.map(lambda a, b: (np.asarray(a) * b).sum(), gradient, direction)
    slope = (expected(1) - expected(-1)) / (2 * STEP)
    np.testing.assert_allclose(sum(jax.tree.leaves(slopes)), slope, rtol=1e-6)


def test_every_cell_over_maps_has_equations_or_is_a_cell_with_some():
    assert set(cells.names(maps=True)) <= {spec.partition(":")[0] for spec in EQUATIONS}
    assert set(cells.map_names()) == {
        *cells.names(maps=True),
        *("gru", "lstm", "min_gru", "min_lstm", "rg_lru", "rnn"),
    }
    assert not set(cells.names(maps=True)) & set(cells.names())


@pytest.mark.parametrize("spec", ["min_lstm", "rg_lru"])
def test_a_linear_cell_is_itself_given_the_inputs_around_each_place(spec):
    cell, plain = built(spec), cells.from_spec(spec, F)
    params, xs, *_ = drawn(cell, D)
    around = np.pad(xs, [(0, 0), (0, 0), (1, 1), (1, 1), (0, 0)])
    around = [around[:, :, i : i + H, j : j + W] for i in range(3) for j in range(3)]
    wanted = unroll(plain, params, jnp.concatenate(around, axis=-1))[1]
    np.testing.assert_allclose(unroll(cell, params, jnp.asarray(xs))[1], wanted, atol=1e-5)


@functools.cache
def torch_conv_lstm():
    """A plain loop over steps in PyTorch: `run(params, xs) -> ys`, of NumPy or its own arrays."""
    torch = pytest.importorskip("torch")

    def kernel(gates):
        wide = torch.cat([gates[g] for g in "ifgo"], dim=-1)
        return wide.reshape(3, 3, -1, wide.shape[-1]).permute(3, 2, 0, 1)

    def run(params, xs):
        weight = torch.cat([kernel(params["input"]), kernel(params["recurrent"])], dim=1)
        bias = torch.cat([params["bias"][g] for g in "ifgo"])
        h = c = torch.zeros(B, F, H, W, dtype=xs.dtype)
        ys = []
        for x in xs.permute(0, 1, 4, 2, 3):
            wide = torch.nn.functional.conv2d(torch.cat([x, h], 1), weight, bias, padding=1)
            i, f, g, o = wide.chunk(4, dim=1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
            ys.append(h)
        return torch.stack(ys).permute(0, 1, 3, 4, 2)

    return torch, run


def test_conv_lstm_is_a_loop_in_torch_in_value_and_gradient():
    torch, run = torch_conv_lstm()
    cell = built("conv_lstm")
    params, xs, weights, _ = drawn(cell, D)
    theirs = jax.tree.map(lambda a: torch.tensor(a, requires_grad=True), (params, xs))
    ys = run(*theirs)
    (ys * torch.tensor(weights)).sum().backward()
    with jax.enable_x64(True):
        found = unroll(cell, params, jnp.asarray(xs))[1]
        loss = jax.jit(lambda params, xs: (unroll(cell, params, xs)[1] * weights).sum())
        gradient = jax.grad(loss, (0, 1))(params, xs)
    np.testing.assert_allclose(found, ys.detach().numpy(), atol=1e-12)
    wanted = jax.tree.map(lambda a: a.grad.numpy(), theirs)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-11), gradient, wanted)


def test_forget_biases_and_peepholes_begin_as_said():
    for bias in (1.0, -0.5):
        params = built(f"conv_lstm:peepholes=True,forget_bias={bias}").init(jax.random.key(0), D)
        assert (params["bias"]["f"] == bias).all()
        assert (params["bias"]["i"] == 0).all()
        assert all((leaf == 0).all() for leaf in jax.tree.leaves(params["peephole"]))
        params = built(f"st_lstm:forget_bias={bias}").init(jax.random.key(0), D)["1"]
        assert (params["bias"]["f"] == bias).all()
        assert (params["bias"]["f_m"] == bias).all()
        assert (params["bias"]["o"] == 0).all()


@pytest.mark.parametrize("spec", ["conv_lstm", "conv_gru"])
def test_recurrent_kernels_keep_a_states_norm(spec):
    params = built(spec).init(jax.random.key(0), D)
    for kernel in params["recurrent"].values():
        assert kernel.shape == (9 * F, F)
        np.testing.assert_allclose(kernel.T @ kernel, np.eye(F), atol=1e-5)


def test_decoupling_is_a_term_beside_the_outputs():
    """It is 1 where both memories' increments are the same, and its gradient is always finite."""
    cell = built("st_lstm:decoupling=True")
    params, xs, *_ = drawn(cell, D)
    ys, terms = cells.apart(cell, unroll(cell, params, jnp.asarray(xs))[1])
    assert ys.shape == (T, B, H, W, F)
    assert terms["decoupling"].shape == (T, B)
    assert ((terms["decoupling"] > 0) & (terms["decoupling"] < 1)).all()
    # Both memories' gates see the inputs alone, through the same kernels.
    alike = jax.tree.map(np.zeros_like, params) | {"adapter": params["adapter"]}
    for layer in "012":
        kernels = params[layer]["input"]
        alike[layer]["input"] = kernels | {"i_m": kernels["i"], "g_m": kernels["g"]}
        alike[layer]["last"] = params[layer]["last"]
    terms = cells.apart(cell, unroll(cell, alike, jnp.asarray(xs))[1])[1]
    np.testing.assert_allclose(terms["decoupling"], 1, atol=1e-5)

    def loss(params, xs):
        return cells.apart(cell, unroll(cell, params, xs)[1])[1]["decoupling"].sum()

    slope = jax.jit(jax.grad(loss))
    blank = jax.tree.map(np.zeros_like, params)
    found = [slope(params, xs), slope(blank, xs), slope(params, np.zeros_like(xs))]
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))
    assert np.abs(found[0]["adapter"]).max() > 0
    plain = built("st_lstm")
    assert cells.apart(plain, ys) == (ys, {})


def test_a_change_spreads_by_the_kernels_reach_per_step():
    """Through the state alone: at step t, t places from where the first input was changed."""
    cell = cells.build_maps("conv_lstm", F, 3)
    params, *_ = drawn(cell, D)
    centre = (np.arange(9 * D) // D == 4)[:, None]
    params["input"] = jax.tree.map(lambda kernel: kernel * centre, params["input"])
    xs = np.random.default_rng(1).standard_normal((3, 1, 7, 7, D)).astype(np.float32)
    other = xs.copy()
    other[0, 0, 3, 3] += 1
    change = np.abs(unroll(cell, params, xs)[1] - unroll(cell, params, other)[1]).max(-1)[:, 0]
    for t in range(3):
        inside = np.zeros((7, 7), bool)
        inside[3 - t : 4 + t, 3 - t : 4 + t] = True
        np.testing.assert_array_equal(change[t] > 0, inside)


def test_what_cannot_run_over_maps_is_refused_in_one_line():
    with pytest.raises(UserError, match=r"^cell 'conv_lstm' runs over maps .* allowed: gru, "):
        cells.from_spec("conv_lstm:peepholes=True", F)
    for spec in ("layer_norm_lstm", "rnn:input_weights=False", "gru:variant=reset_before"):
        with pytest.raises(UserError, match=f"^cell '{spec}' cannot be convolved .* conv_gru, "):
            cells.build_maps(spec, F)
    with pytest.raises(UserError, match="did you mean 'conv_lstm'"):
        cells.build_maps("conv_lstn", F)
    with pytest.raises(UserError, match="no option 'peephole=True'; did you mean 'peepholes'"):
        cells.build_maps("conv_lstm:peephole=True", F)
    with pytest.raises(UserError, match=r"^kernel must be odd and ≥ 1, got 2"):
        cells.build_maps("conv_lstm", F, 2)
    with pytest.raises(UserError, match=r"^cell 'st_lstm' is a stack that has no residual"):
        cells.build_maps("st_lstm", F, layers=2, residual=True)
    for size in ({"features": 0}, {"layers": 0}):
        with pytest.raises(UserError, match=r" must be ≥ 1, got 0"):
            cells.build_maps("conv_lstm", **{"features": F, **size})


@pytest.mark.parametrize("spec", ["conv_lstm", "conv_lstm:peepholes=True", "st_lstm", "min_gru"])
def test_inputs_of_another_width_or_without_maps_are_refused(spec):
    cell = built(spec)
    params = jax.tree.map(np.float32, drawn(cell, D)[0])
    xs = jnp.ones((T, B, H, W, D))
    for width in (D - 1, D + 1):
        with pytest.raises(ValueError, match=f"width must be {D}, .* got {width}"):
            unroll(cell, params, jnp.ones((T, B, H, W, width)))
    with pytest.raises(ValueError, match=r"xs of a cell over maps must be \[T, B, H, W, D\]"):
        unroll(cell, params, jnp.ones((T, B, D)))
    with pytest.raises(UserError, match="strategy 'newton' needs independent places"):
        unroll(cell, params, xs, strategy="newton")
