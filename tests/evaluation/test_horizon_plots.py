"""Plots of errors of predicted frames: what they draw, and where."""

import importlib.util

import numpy as np
import pytest
from PIL import Image

from rnngen_jax.errors import UserError
from rnngen_jax.evaluation import horizon_plots

CONTEXT, HORIZON = 2, 3
NAMES = ("mse", "mse_copy_last", "mse_teacher_forced", "psnr")


def seed(number):
    """A seed's `forecast`, of five frames, as evaluation.json has it."""
    rng = np.random.default_rng(number)
    found = {"context": CONTEXT, "horizon": HORIZON}
    for name in (*NAMES, "nats_per_frame"):
        length = CONTEXT + HORIZON if name == "nats_per_frame" else HORIZON
        found |= {name: rng.random(length).tolist(), f"{name}_error": rng.random(length).tolist()}
    return found


def test_an_interval_is_over_sequences_or_over_seeds():
    one, two = seed(0), seed(1)
    mean, half = horizon_plots.curve([one], "mse")
    np.testing.assert_allclose(mean, one["mse"])
    np.testing.assert_allclose(half, 1.96 * np.array(one["mse_error"]))
    mean, half = horizon_plots.curve([one, two], "mse")
    np.testing.assert_allclose(mean + half, np.maximum(one["mse"], two["mse"]))
    np.testing.assert_allclose(mean - half, np.minimum(one["mse"], two["mse"]))


def test_each_figure_is_drawn_at_its_frames(tmp_path):
    pytest.importorskip("matplotlib")
    found = seed(0)
    mse, psnr, nats = horizon_plots.figure_of([found], "toy").axes
    assert [axes.get_title() for axes in (mse, psnr)] == ["MSE, summed over a frame", "PSNR, dB"]
    labels = [text.get_text() for text in mse.get_legend().get_texts()]
    assert labels == ["predicted", "given the true frames", "last given frame"]
    for axes, name, frames in ((mse, "mse", [3, 4, 5]), (nats, "nats_per_frame", range(1, 6))):
        line = axes.get_lines()[0]
        np.testing.assert_array_equal(line.get_xdata(), frames)
        np.testing.assert_allclose(line.get_ydata(), found[name])
        band = axes.collections[0].get_paths()[0].vertices[:, 1]
        assert band.max() == pytest.approx(
            np.max(np.array(found[name]) + 1.96 * np.array(found[f"{name}_error"]))
        )
    assert list(nats.get_lines()[1].get_xdata()) == [2.5, 2.5]  # between given and predicted
    horizon_plots.write_plot(tmp_path / "p.png", [found, seed(1)], "toy")
    with Image.open(tmp_path / "p.png") as picture:
        assert picture.size == (3 * 360, 340)


def test_without_matplotlib_the_flag_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"--plot needs matplotlib \(pip install rnngen_jax\[plots"):
        horizon_plots.require_plots("--plot")
