"""Torch's DRAW against the equations, ours against torch's, and the suite's table."""

import functools

import jax
import numpy as np
import pytest

from rnngen_jax.benchmarks.problem import Settings, Shape
from rnngen_jax.benchmarks.suites import draw
from rnngen_jax.benchmarks.textbook_draw import from_torch, to_torch, torch_draw
from rnngen_jax.benchmarks.timing import Timing
from rnngen_jax.errors import RunError

SHAPE = Shape(3, 2, 6, 4)  # images of 6 by 6 pixels, larger than a write window of 5 by 5 filters
KEY = jax.random.key(3)


@pytest.fixture(autouse=True)
def few_latents(monkeypatch):
    monkeypatch.setattr(draw, "LATENTS", 3)


# Compiled once for all tests.
ours = functools.cache(draw.ours)


@functools.cache
def both(kind):
    pytest.importorskip("torch")
    sizes = draw.sizes(kind, SHAPE)
    own = ours(sizes)
    return sizes, own, torch_draw(own.params["model"], sizes, own.images[..., 0])


@pytest.fixture
def kept(monkeypatch):
    """The suite with one kind of network, compiled once for all tests."""
    monkeypatch.setattr(draw, "ours", ours)
    monkeypatch.setattr(draw, "KINDS", {"attention": draw.KINDS["attention"]})


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm(params, state, x):
    p, (h, c) = params["cell"], state
    a = {g: x @ p["input"][g] + h @ p["recurrent"][g] + p["bias"][g] for g in "ifgo"}
    c = sigmoid(a["f"]) * c + sigmoid(a["i"]) * np.tanh(a["g"])
    return sigmoid(a["o"]) * np.tanh(c), c


def dense(params, x):
    return x @ params["kernel"] + params["bias"]


def window(raw, side, size):
    """F_Y and F_X `[N, S]` and γ from one image's five window parameters, filter by filter."""
    g_x, g_y = ((side + 1) / 2 * (raw[n] + 1) for n in (0, 1))
    variance, stride, gamma = np.exp(raw[2:]) * [1, (side - 1) / (size - 1), 1]
    banks = np.zeros((2, size, side))
    for bank, centre in zip(banks, (g_y, g_x), strict=True):
        for i in range(size):
            mean = centre + (i + 1 - size / 2 - 0.5) * stride
            bank[i] = np.exp(-((np.arange(1, side + 1) - mean) ** 2) / (2 * variance))
            bank[i] /= bank[i].sum()
    return *banks, gamma


def bound(params, sizes, image, noise):
    """The negative bound in nats of one image `[S, S]` for noise `[T, Z]`, and the last canvas."""
    canvas, seen = 10 * params["blank"][..., 0], params["seen"]
    states = {n: tuple(params[n]["carry"][part] for part in "01") for n in ("encoder", "decoder")}
    nats = 0.0
    for epsilon in noise:
        error = image - sigmoid(canvas)
        patches = [image, error]
        if sizes.read:
            rows, columns, gamma = window(
                dense(params["read_window"], seen), sizes.side, sizes.read
            )
            patches = [gamma * rows @ patch @ columns.T for patch in patches]
        inputs = np.concatenate([*(patch.ravel() for patch in patches), seen])
        states["encoder"] = lstm(params["encoder"], states["encoder"], inputs)
        mean, log_scale = np.split(dense(params["posterior"], states["encoder"][0]), 2)
        nats += (0.5 * (mean**2 + np.exp(2 * log_scale) - 1) - log_scale).sum()
        z = mean + np.exp(log_scale) * epsilon
        states["decoder"] = lstm(params["decoder"], states["decoder"], z)
        seen = states["decoder"][0]
        added = dense(params["write"], seen).reshape(2 * (sizes.write or sizes.side,))
        if sizes.write:
            rows, columns, gamma = window(
                dense(params["write_window"], seen), sizes.side, sizes.write
            )
            added = rows.T @ added @ columns / gamma
        canvas = canvas + added
    p = sigmoid(canvas)
    return nats - np.log(np.where(image == 1, p, 1 - p)).sum(), canvas


@pytest.mark.parametrize("kind", draw.KINDS)
def test_networks_are_the_equations_and_agree(kind):
    sizes, own, torch = both(kind)
    params = jax.tree.map(np.float64, own.params["model"])
    noise = own.noise(KEY)
    images = own.images[..., 0].astype(np.float64)
    wanted = np.mean([bound(params, sizes, images[n], noise[:, n])[0] for n in range(sizes.batch)])
    assert float(torch.gradient(noise)[0]) == pytest.approx(wanted, rel=1e-5)
    assert float(own.gradient(KEY)[0]) == pytest.approx(wanted, rel=1e-5)
    draw.check("here", own, torch, KEY)


def test_torch_gradient_is_that_of_the_loss():
    sizes, own, torch = both("attention")
    noise = own.noise(KEY)
    found = torch.gradients(torch.gradient(noise)[1])
    rng, images = np.random.default_rng(0), own.images[..., 0]
    params = jax.tree.map(np.float64, own.params["model"])
    way = jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape), params)

    def loss(far):
        moved = jax.tree.map(lambda leaf, step: leaf + far * step, params, way)
        nats = [bound(moved, sizes, images[n], noise[:, n])[0] for n in range(sizes.batch)]
        return np.mean(nats) / sizes.side**2

    slope = (loss(1e-5) - loss(-1e-5)) / 2e-5
    products = jax.tree.map(lambda g, step: (g * step).sum(), found, way)
    assert jax.tree.reduce(lambda a, b: a + b, products) == pytest.approx(slope, rel=1e-4)


@pytest.mark.parametrize("kind", draw.KINDS)
def test_parameters_come_back_from_torch(kind):
    sizes = draw.sizes(kind, SHAPE)
    params = ours(sizes).params["model"]
    jax.tree.map(np.testing.assert_array_equal, from_torch(to_torch(params)), params)


def test_both_draw_binary_images_from_the_prior():
    sizes, own, _ = both("attention")
    for canvas, certain in ((50.0, 1), (-50.0, 0)):
        params = dict(own.params["model"], blank=np.full((6, 6, 1), canvas, np.float32))
        torch = torch_draw(params, sizes, own.images[..., 0])
        drawn = torch.sample().numpy()
        assert drawn.shape == (2, 6, 6)
        assert (drawn == certain).all()
    drawn = np.stack([np.asarray(own.sample(jax.random.key(n))) for n in range(4)])
    assert drawn.shape == (4, 2, 6, 6, 1)
    assert set(drawn.ravel()) == {0, 1}


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ("write_window", "bound of torch LSTMCell, bmm differ from ours by"),
        ("gradients", r"gradients of torch LSTMCell, bmm for \['seen'\] differ from ours by 0.01 "),
        ("decode", "expected images of torch LSTMCell, bmm differ from ours by"),
    ],
)
def test_a_wrong_network_stops_the_bench(monkeypatch, kept, part, message):
    def wrong(params, sizes, images):
        if part in params:
            params = {**params, part: jax.tree.map(lambda leaf: 0.9 * leaf, params[part])}
            return torch_draw(params, sizes, images)
        right = torch_draw(params, sizes, images)

        def gradients(found):
            params = right.gradients(found)
            return {**params, "seen": 1.01 * params["seen"]}

        changed = {"gradients": gradients, "decode": lambda z: 0.9 * right.decode(z)}
        return right._replace(**{part: changed[part]})

    pytest.importorskip("torch")
    monkeypatch.setattr(draw, "torch_draw", wrong)
    with pytest.raises(RunError, match=f"attention 3,2,6,4: {message}"):
        next(draw.run(Settings(1, (SHAPE,)), None))


def test_work_is_timed_beside_each_other(monkeypatch, kept):
    pytest.importorskip("torch")
    seconds = iter([{"ours": 0.5, draw.TORCH: 2.0}, {"ours": 0.25, draw.TORCH: 0.1}])

    def interleaved(calls, rounds):
        assert rounds == 3
        taken = next(seconds)
        for call in calls.values():
            call()
        return {name: Timing(*[taken[name]] * 3) for name in calls}

    monkeypatch.setattr(draw, "interleaved", interleaved)
    found = list(draw.run(Settings(3, (SHAPE,)), None))
    cases = [f"attention {work} 3,2,6,4" for work in ("gradient", "sample")]
    assert [record.case for record in found] == np.repeat(cases, 2).tolist()
    assert [record.contender for record in found] == 2 * ["ours", draw.TORCH]
    assert [record.values["ratio"] for record in found] == pytest.approx([1, 4, 1, 0.4])
    assert [record.values["images/s"] for record in found] == pytest.approx([4, 1, 8, 20])
    assert draw.notes(found)[1:] == [
        "gradient: torch / ours: median 4, lowest 4",
        "sample: torch / ours: median 0.4, lowest 0.4",
    ]


def test_ours_is_timed_alone_without_torch(monkeypatch, kept):
    monkeypatch.setattr(draw.torch_nn, "missing", lambda: "torch is not installed")
    found = list(draw.run(Settings(1, (SHAPE,)), None))
    assert [record.contender for record in found] == ["ours", "ours"]
    assert draw.notes(found)[1:] == []


def test_windows_have_no_more_filters_than_pixels():
    assert draw.sizes("attention", Shape(9, 8, 28, 7)) == (9, 8, 28, 7, 3, 2, 5)
    assert draw.sizes("attention", Shape(9, 8, 1, 7))[-2:] == (1, 1)
    assert draw.sizes("no attention", Shape(9, 8, 28, 7))[-2:] == (0, 0)
