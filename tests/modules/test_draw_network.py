"""DRAW's network against the paper's equations in float64, step by step, its LSTM written out."""

import jax
import numpy as np
import pytest

from rnngen_jax import cells
from rnngen_jax.modules.draw import Draw
from rnngen_jax.ops import likelihoods
from rnngen_jax.shapes import ImageSpec

T, B, Z, F = 3, 2, 2, 4

# Images, filters per side of the read and write windows, whether conditional, the readout.
SETTINGS = [
    (ImageSpec(4, 5, 1, levels=2), 2, 3, False, "bernoulli"),
    (ImageSpec(3, 4, 3, levels=5, classes=3), 2, 1, True, "categorical"),
    (ImageSpec(3, 3, 3, levels=5, classes=3), 0, 2, True, "categorical"),
    (ImageSpec(3, 4, 1, levels=3), 3, 0, False, "categorical"),
]


def network(setting):
    spec, read_size, write_size, conditional, readout = setting
    likelihood = likelihoods.make(readout, spec.levels, 1)
    cell = cells.build("lstm", F, learned=True)
    return Draw(
        encoder=cell,
        decoder=cell,
        spec=spec,
        latents=Z,
        size=likelihood.size,
        mean=likelihood.mean,
        read_size=read_size,
        write_size=write_size,
        conditional=conditional,
    )


def inputs_of(setting):
    """Images, labels and noise."""
    rng, spec = np.random.default_rng(1), setting[0]
    image = rng.integers(0, spec.levels, (B, *spec.shape))
    return image, np.array([2, 0]), rng.standard_normal((T, B, Z))


def drawn_params(net, setting, seed=0):
    image, label, noise = inputs_of(setting)
    shapes = jax.eval_shape(
        lambda: net.init(jax.random.key(0), image, label, noise, method=net.infer)
    )["params"]
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: 0.5 * rng.standard_normal(leaf.shape), shapes)


def infer(net):
    return jax.jit(lambda p, *given: net.apply({"params": p}, *given, method=net.infer))


def draw(net):
    return jax.jit(lambda p, *given: net.apply({"params": p}, *given, method=net.draw))


def linear(params, x):
    return x @ params["kernel"] + params["bias"]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x):
    return np.exp(x) / np.exp(x).sum(-1, keepdims=True)


def lstm(params, x, state):
    """One step of one cell for one image: its inputs, and (h, c) before."""
    w, u, b = params["input"], params["recurrent"], params["bias"]
    a = {gate: x @ w[gate] + state[0] @ u[gate] + b[gate] for gate in "ifgo"}
    c = sigmoid(a["f"]) * state[1] + sigmoid(a["i"]) * np.tanh(a["g"])
    return sigmoid(a["o"]) * np.tanh(c), c


class Grid:
    """The filters of one window, from a linear map of h (eqs. 19-26)."""

    def __init__(self, raw, height, width, size):
        g_x, g_y, log_variance, log_stride, log_intensity = raw
        stride = (max(height, width) - 1) / max(size - 1, 1) * np.exp(log_stride)
        self.intensity, centre = np.exp(log_intensity), {}
        centre["x"], centre["y"] = (width + 1) / 2 * (g_x + 1), (height + 1) / 2 * (g_y + 1)
        number = np.arange(1, size + 1) - size / 2 - 0.5
        self.banks = {}
        for axis, pixels in (("x", width), ("y", height)):
            away = np.arange(1, pixels + 1) - (centre[axis] + number * stride)[:, None]
            bank = np.exp(-(away**2) / (2 * np.exp(log_variance)))
            self.banks[axis] = bank / bank.sum(-1, keepdims=True)
        half = (size - 1) / 2 * stride
        top, left = centre["y"] - 1 - half, centre["x"] - 1 - half
        self.box = [top, left, top + 2 * half, left + 2 * half]

    def read(self, image):
        patch = np.einsum("nh,hwc,mw->nmc", self.banks["y"], image, self.banks["x"])
        return self.intensity * patch

    def write(self, patch):
        return np.einsum("nh,nmc,mw->hwc", self.banks["y"], patch, self.banks["x"]) / self.intensity


def by_hand(setting, params, image, label, noise):
    """One image in the order of the paper: all values after each step, and the last canvas."""
    spec, read_size, write_size, conditional, readout = setting
    height, width, channels = spec.shape
    x = image / (spec.levels - 1)
    known = np.eye(spec.classes)[label] if conditional else np.zeros(0)
    canvas, seen = 10 * params["blank"], params["seen"]
    state = {
        part: (params[part]["carry"]["0"], params[part]["carry"]["1"])
        for part in ("encoder", "decoder")
    }
    steps = []
    for epsilon in noise:
        raw = canvas.reshape(height, width, channels, -1)
        if readout == "bernoulli":
            expected = sigmoid(raw[..., 0])
        else:
            expected = softmax(raw) @ np.linspace(0, 1, spec.levels)
        both = [x, x - expected]  # (3)
        step = {}
        if read_size:  # (4, 17, 27)
            grid = Grid(linear(params["read_window"], seen), height, width, read_size)
            both, step["read"] = [grid.read(part) for part in both], grid.box
        given = np.concatenate([known, *(part.ravel() for part in both), seen])
        state["encoder"] = lstm(params["encoder"]["cell"], given, state["encoder"])  # (5)
        step["mean"], step["log_scale"] = np.split(
            linear(params["posterior"], state["encoder"][0]), 2
        )  # (1, 2)
        z = step["z"] = step["mean"] + np.exp(step["log_scale"]) * epsilon  # (6)
        given = np.concatenate([known, z])
        state["decoder"] = lstm(params["decoder"]["cell"], given, state["decoder"])  # (7)
        seen = state["decoder"][0]
        added = linear(params["write"], seen)
        if write_size:  # (18, 28, 29)
            grid = Grid(linear(params["write_window"], seen), height, width, write_size)
            added = grid.write(added.reshape(write_size, write_size, -1))
            step["write"] = grid.box
        canvas = canvas + added.reshape(canvas.shape)  # (8)
        step["canvas"] = canvas.reshape(height, width, channels, -1)
        steps.append(step)
    return steps


def close(got, wanted):
    np.testing.assert_allclose(got, wanted, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_inference_and_drawing_are_the_papers_equations(setting):
    net = network(setting)
    params, (image, label, noise) = drawn_params(net, setting), inputs_of(setting)
    with jax.enable_x64(True):
        trace, raw = infer(net)(params, image, label, noise)
        redrawn, last = draw(net)(params, trace.latents, label)
    for b in range(B):
        steps = by_hand(setting, params, image[b], label[b], noise[:, b])
        for t, step in enumerate(steps):
            close(trace.posterior.mean[t, b], step["mean"])
            close(trace.posterior.log_scale[t, b], step["log_scale"])
            close(trace.latents[t, b], step["z"])
            close(redrawn.canvases[t, b], step["canvas"])
            for part in ("read", "write"):
                boxes = getattr(redrawn, part)
                assert (boxes is None) == (part not in step)
                if boxes is not None:
                    close(boxes[t, b], step[part])
        close(raw[b], steps[-1]["canvas"])
    # Decoding the inferred latents ends at the same canvas.
    np.testing.assert_array_equal(redrawn.latents, trace.latents)
    close(last, raw)
    np.testing.assert_array_equal(redrawn.canvases[-1], last)


def test_each_step_has_noise_of_its_own_and_nothing_looks_ahead():
    setting = SETTINGS[1]
    net = network(setting)
    image, label, noise = inputs_of(setting)
    params, noise = jax.tree.map(np.float32, (drawn_params(net, setting), noise))
    run, redraw = infer(net), draw(net)
    trace, _ = run(params, image, label, noise)
    canvases = redraw(params, trace.latents, label)[0].canvases
    for t in range(T):
        other = noise.copy()
        other[t] += 1.0
        changed, _ = run(params, image, label, other)
        # The posterior of step t is computed before its noise, and the next ones after it.
        for before, after in zip(trace.posterior, changed.posterior, strict=True):
            np.testing.assert_array_equal(after[: t + 1], before[: t + 1])
            assert (np.abs(after[t + 1 :] - before[t + 1 :]).max((1, 2)) > 1e-6).all()
        np.testing.assert_array_equal(changed.latents[:t], trace.latents[:t])
        moved = changed.latents[t] - trace.latents[t]
        np.testing.assert_allclose(moved, np.exp(trace.posterior.log_scale[t]), rtol=1e-4)
        redrawn = redraw(params, changed.latents, label)[0].canvases
        np.testing.assert_array_equal(redrawn[:t], canvases[:t])
        assert (np.abs(redrawn[t:] - canvases[t:]).max((1, 2, 3, 4, 5)) > 1e-5).all()


def test_it_starts_with_windows_over_the_image_and_a_posterior_near_the_prior():
    setting = SETTINGS[1]
    net, (image, label, noise) = network(setting), inputs_of(setting)
    noise = np.float32(noise)
    variables = net.init(jax.random.key(0), image, label, noise, method=net.infer)
    params = variables["params"]
    trace, _ = infer(net)(params, image, label, noise)
    redrawn, _ = draw(net)(params, trace.latents, label)
    np.testing.assert_allclose(redrawn.read[0], [[-0.5, 0, 2.5, 3]] * B, atol=1e-5)
    assert np.abs(trace.posterior.log_scale).max() < 0.5
    np.testing.assert_array_equal(params["blank"], 0.0)
