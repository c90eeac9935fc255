"""Layers over pixels against their papers' equations, pixel by pixel or as a convolution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn_layers import applied

from rnngen_jax import cells
from rnngen_jax.cells import base
from rnngen_jax.modules.grid import diagonal_bilstm, row_lstm
from rnngen_jax.modules.grid.conv import ConvBlock, GatedConv
from rnngen_jax.modules.grid.diagonal_bilstm import DiagonalBiLSTM
from rnngen_jax.modules.grid.parts import FirstConv, Head
from rnngen_jax.modules.grid.row_lstm import RowLSTM
from rnngen_jax.ops import products
from rnngen_jax.recurrence import choices, sequential

H, W, B, F, D = 4, 5, 2, 4, 8
SHAPES = [(H, W, 3), (W, H, 3), (H, W, 1)]


def groups(features, channels):
    """The channel of each feature: the shares [0, 1/C), [1/C, 2/C), ... of all of them."""
    return np.array([channels * n // features for n in range(features)])


def mask_b(sources, targets, channels):
    """Features depend on those of their own and of earlier channels."""
    return groups(sources, channels)[:, None] <= groups(targets, channels)


def a_map(height, width, features=D, seed=1):
    return np.random.default_rng(seed).standard_normal((height, width, B, features))


def close(got, wanted):
    np.testing.assert_allclose(got, wanted, rtol=1e-9, atol=1e-10)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def relu(x):
    return np.maximum(x, 0)


def lstm(params, mask, x, h, state):
    """One pixel, from its inputs, the states h of its neighbours, and the previous (h, c)."""
    w, u, b = params["input"], params["recurrent"], params["bias"]
    a = {gate: x @ (w[gate] * mask) + h @ u[gate] + b[gate] for gate in "ifgo"}
    c = sigmoid(a["f"]) * state[1] + sigmoid(a["i"]) * np.tanh(a["g"])
    return sigmoid(a["o"]) * np.tanh(c), c


def min_gru(params, mask, x, h, state):
    z, n = (x @ (params["input"][g] * mask) + params["bias"][g] for g in "zn")
    return (1 - sigmoid(z)) * state[0] + sigmoid(z) * n, 0.0


CELLS = {"lstm": lstm, "min_gru": min_gru}


def at(x, row, column):
    """`x[row, column]`, 0 outside."""
    inside = 0 <= row < x.shape[0] and 0 <= column < x.shape[1]
    return x[row, column] if inside else np.zeros_like(x[0, 0])


def seen(x, row, column, taps):
    return np.concatenate([at(x, row + up, column + aside) for up, aside in taps], axis=-1)


def taps_mask(taps, channels):
    own = mask_b(D, F, channels)
    return np.concatenate([own if tap == (0, 0) else np.ones_like(own) for tap in taps])


def out(params, x, y, channels):
    dense = params["out"]["dense"]
    return x + y @ (dense["kernel"] * mask_b(F, D, channels)) + dense["bias"]


@pytest.mark.parametrize(("height", "width", "channels"), SHAPES)
@pytest.mark.parametrize("cell", CELLS)
def test_row_lstm_takes_its_state_from_the_row_above(cell, height, width, channels):
    radius = 2 if channels == 1 else 1
    x = a_map(height, width)
    layer = RowLSTM(
        cells.from_spec(cell, F), radius, learned=True, width=D, columns=width, channels=channels
    )
    params, (_, y) = applied(layer, None, x)
    aside = range(-radius, radius + 1)
    taps = [(0, n) for n in range(-radius, 1)]
    if cell == "min_gru":
        taps = [(-1, n) for n in aside] + taps
    inner, first = params["recurrent"]["cell"]["cell"], params["recurrent"]["cell"]["carry"]
    mask = taps_mask(taps, channels)
    # Row i of the image is row i + 1 here; row 0 is the learned carry.
    h, c = np.zeros((2, height + 1, width, B, F))
    h[0] = first["0"]
    c[0] = first.get("1", 0.0)
    for i in range(height):
        for j in range(width):
            neighbours = seen(h, i, j, [(0, n) for n in aside])
            inputs = seen(x, i, j, taps)
            h[i + 1, j], c[i + 1, j] = CELLS[cell](
                inner, mask, inputs, neighbours, (h[i, j], c[i, j])
            )
    close(y, out(params, x, h[1:], channels))


@pytest.mark.parametrize("in_line", [1, B])
@pytest.mark.parametrize(("height", "width", "channels"), SHAPES)
@pytest.mark.parametrize("cell", CELLS)
def test_diagonal_bilstm_takes_its_states_from_the_left_the_right_and_above(
    cell, height, width, channels, in_line, monkeypatch
):
    # Concatenates `in_line` images along the diagonals.
    monkeypatch.setattr(diagonal_bilstm, "_CPU_PLACES", height * B // in_line)
    x = a_map(height, width)
    layer = DiagonalBiLSTM(
        cells.from_spec(cell, F), learned=True, width=D, columns=width, channels=channels
    )
    params, (_, y) = applied(layer, None, x)
    taps = [(0, 0)] if cell == "lstm" else [(0, 0), (0, -1), (-1, 0)]

    def over(side, x, mask):
        inner, first = params[side]["cell"], params[side]["carry"]
        # Column j of the image is column j + 1 here; column 0 is the learned carry.
        h, c = np.zeros((2, height, width + 1, B, F))
        h[:, 0] = first["0"]
        c[:, 0] = first.get("1", 0.0)
        for i in range(height):
            for j in range(width):
                left, above = h[i, j], h[i - 1, j + 1] if i else np.zeros((B, F))
                h[i, j + 1], c[i, j + 1] = CELLS[cell](
                    inner,
                    mask,
                    seen(x, i, j, taps),
                    np.concatenate([left, above], axis=-1),
                    (left, c[i, j]),
                )
        return h[:, 1:]

    left = over("left", x, taps_mask(taps, channels))
    right = over("right", x[:, ::-1], 1.0)[:, ::-1]
    below = np.concatenate([np.zeros_like(right[:1]), right[:-1]])
    close(y, out(params, x, left + below, channels))


@pytest.mark.parametrize("layer", [RowLSTM, DiagonalBiLSTM])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_tpus_program_is_equal_in_value_and_gradient(layer, cell, monkeypatch):
    """Features first: neighbours, edges, resets and learned carries."""
    sizes = {"learned": True, "width": D, "columns": W, "channels": 3}
    sizes |= {"radius": 1} if layer is RowLSTM else {}
    module, x = layer(cells.from_spec(cell, F), **sizes), a_map(H, W)
    params, _ = applied(module, None, x)

    def solved():
        def loss(params, x):
            _, y = module.apply({"params": params}, None, x)
            return jnp.sin(y).sum(), y

        with jax.enable_x64(True):
            return jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))(params, x)

    wanted, calls = solved(), []
    for part in (base, products, sequential, row_lstm, diagonal_bilstm):
        monkeypatch.setattr(part, "compiled_for", lambda: "tpu")
    monkeypatch.setattr(choices, "_LANES", 1)
    run = sequential.columns
    monkeypatch.setattr(
        sequential, "columns", lambda *given, **options: calls.append(1) or run(*given, **options)
    )
    jax.tree.map(close, solved(), wanted)
    assert len(calls) == (1 if layer is RowLSTM else 2)


def convolution(x, kernel, padding):
    """A map `[H, W, B, D]` with a kernel `[h, w, D, F]`."""
    with jax.enable_x64(True):
        y = jax.lax.conv_general_dilated(
            jnp.moveaxis(x, 2, 0),
            kernel,
            (1, 1),
            padding,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return np.moveaxis(np.asarray(y), 0, 2)


@pytest.mark.parametrize(("channels", "radius"), [(3, 1), (1, 2)])
def test_pixel_cnns_block_is_a_masked_convolution(channels, radius):
    x = a_map(H, W)
    params, (_, y) = applied(ConvBlock(F, radius, width=D, columns=W, channels=channels), None, x)
    narrow, conv = params["narrow"]["dense"], params["conv"]
    inner = relu(relu(x) @ (narrow["kernel"] * mask_b(D, F, channels)) + narrow["bias"])
    side = 2 * radius + 1
    middle = side * side // 2
    kernel = np.zeros((side * side, F, F))
    kernel[: middle + 1] = conv["kernel"].reshape(middle + 1, F, F)
    kernel[middle] *= mask_b(F, F, channels)
    kernel = kernel.reshape(side, side, F, F)
    found = convolution(inner, kernel, [(radius, radius)] * 2) + conv["bias"]
    close(y, out(params, x, relu(found), channels))


def gated(both):
    a, b = both[..., :F], both[..., F:]
    return np.tanh(a) * sigmoid(b)


@pytest.mark.parametrize(("channels", "radius"), [(3, 1), (1, 2)])
def test_the_gated_layer_is_two_masked_convolutions(channels, radius):
    above, x = a_map(H, W), a_map(H, W, seed=2)
    layer = GatedConv(F, radius, width=D, columns=W, channels=channels)
    params, (above_out, y) = applied(layer, above, x)
    vertical, horizontal = params["vertical"], params["horizontal"]
    give, rest = params["give"]["dense"], params["vertical_out"]["dense"]
    side = 2 * radius + 1
    kernel = vertical["kernel"].reshape(radius + 1, side, D, 2 * F)
    found = convolution(above, kernel, [(radius, 0), (radius, radius)]) + vertical["bias"]
    close(above_out, gated(found) @ rest["kernel"] + rest["bias"])
    kernel = np.array(horizontal["kernel"].reshape(1, radius + 1, D, 2 * F))
    kernel[0, -1, :, :F] *= mask_b(D, F, channels)
    kernel[0, -1, :, F:] *= mask_b(D, F, channels)
    own = convolution(x, kernel, [(0, 0), (radius, 0)]) + horizontal["bias"]
    both = own + found @ give["kernel"] + give["bias"]
    close(y, out(params, x, gated(both), channels))


@pytest.mark.parametrize("encoding", ["onehot", "scalar"])
def test_the_first_convolution_sees_earlier_channels_alone_of_the_pixel_itself(encoding):
    levels, channels = 5, 3
    rng = np.random.default_rng(1)
    context = rng.integers(0, levels + 1, (H, W, B, 2 * channels))
    own = rng.integers(0, levels + 1, (H, W, B, channels))
    params, y = applied(FirstConv(D, channels, levels, encoding), context, own)

    def part(weights, values):
        if encoding == "onehot":
            return sum(table[values[..., k]] for k, table in enumerate(weights["table"]))
        inside = values < levels
        scaled = np.where(inside, values / (levels - 1) * 2 - 1, 0.0)
        return np.concatenate([scaled, inside], axis=-1) @ weights["kernel"]

    expected = part(params["before"], context) + params["bias"]
    for channel in range(channels - 1):
        later = groups(D, channels) > channel
        expected = expected + later * part(params[f"own_{channel}"], own[..., [channel]])
    close(y, expected)


@pytest.mark.parametrize("hidden", [0, 5])
def test_the_head_keeps_channels_apart(hidden):
    channels, size = 3, 4
    x = a_map(H, W)
    params, raw = applied(Head(channels, size, hidden), x)
    y = relu(x)
    if hidden:
        dense = params["hidden"]["dense"]
        y = relu(y @ (dense["kernel"] * mask_b(D, hidden, channels)) + dense["bias"])
    dense, sources = params["raw"]["dense"], groups(y.shape[-1], channels)
    for channel in range(channels):
        outputs = slice(channel * size, (channel + 1) * size)
        known = sources <= channel
        expected = y[..., known] @ dense["kernel"][known, outputs] + dense["bias"][outputs]
        close(raw[..., channel, :], expected)
