"""`predict` and `evaluate` of a tiny run over moving digits."""

import numpy as np
import pytest
from PIL import Image
from tiny_runs import evaluated, rnngen

import rnngen_jax as rg

CONFIG = """
from rnngen_jax import experiment

def get_config():
    config = experiment.default("video_rnn")
    config.data.update(name="moving:digits", objects=1, context=3, horizon=2)
    config.model.update(features=8, input_features=8, encoder="patches:size=4")
    config.model.readout = "logistic_mixture"
    config.training.update(steps=2, batch_size=8, validate_every=0, sample_every=0)
    config.evaluation.num_images = 20
    return config
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("video")
    (root / "tiny.py").write_text(CONFIG)
    assert rnngen("train", f"--config={root}/tiny.py", f"--workdir={root}/run") == 0
    return root / "run"


@pytest.fixture(scope="module")
def opened(run):
    return rg.load(run)


def test_evaluate_has_the_figures_of_predicted_frames(run, opened, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    plot = tmp_path / "horizon.png"
    record = evaluated(run, "--num=12", "--protocol=openstl", f"--plot={plot}")
    assert plot.stat().st_size > 10_000
    metrics, (forecast,) = record["metrics"], record["forecast"]
    frames, _ = opened.dataset.splits["test"].read(np.arange(12))
    truth = frames[:, 3:5] / 16
    made = opened.predict(frames[:, :3], 2)
    error = np.square(np.float64(made) - truth).sum((2, 3, 4))
    assert metrics["mse"] == pytest.approx(error.mean(), rel=1e-4)
    np.testing.assert_allclose(forecast["mse"], error.mean(0), rtol=1e-4)
    copied = np.square(frames[:, 2:3] / 16 - truth).sum((2, 3, 4)).mean()
    assert metrics["mse_copy_last"] == pytest.approx(copied, rel=1e-5)
    assert sum(forecast["nats_per_frame"]) == pytest.approx(metrics["nats_per_image"], rel=1e-5)
    assert (
        record["protocol"] | {"frames": "openstl", "context": 3, "horizon": 2} == record["protocol"]
    )
    said = capsys.readouterr().out
    assert f"mse:                {metrics['mse']:.4f} ± {metrics['mse_error']:.4f}" in said


def test_predictions_are_those_of_the_library(run, opened, tmp_path, capsys):
    out = tmp_path / "p.npz"
    given = ("--context=4", "--horizon=3", "--num=2")
    assert rnngen("predict", f"--workdir={run}", *given, f"--out={out}") == 0
    assert "1 known frames of 2 sequences" in capsys.readouterr().out
    with np.load(out) as arrays:
        frames, made = arrays["frames"], arrays["prediction"]
        assert (arrays["levels"], arrays["context"]) == (17, 4)
    assert made.shape == (2, 1, 3, 16, 16, 1)
    np.testing.assert_array_equal(made[:, 0], opened.predict(frames[:, :4], 3))
    # One's own sequences, of another length, and drawn futures that differ.
    longer = {"frames": np.tile(frames, (1, 2, 1, 1, 1)), "levels": np.int32(17)}
    np.savez(tmp_path / "own.npz", **longer)
    own = (f"--input={tmp_path}/own.npz", "--context=4", "--horizon=3", "--futures=2")
    assert rnngen("predict", f"--workdir={run}", *own, f"--out={out}") == 0
    with np.load(out) as arrays:
        drawn = arrays["prediction"]
    assert (drawn.shape, drawn.dtype) == ((2, 2, 3, 16, 16, 1), np.uint8)
    assert (drawn[:, 0] != drawn[:, 1]).any()
    np.testing.assert_array_equal(drawn[:, 1], opened.predict(frames[:, :4], 3, drawn=True, seed=1))


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Animations that a model of 16x16 pixels cannot go on with."""
    folder = tmp_path_factory.mktemp("clips")
    for name, num, size in (("one", 1, 16), ("long", 4000, 1), ("cut", 3, 16), ("wide", 3, 17)):
        frames = [Image.new("L", (size, min(size, 16)), 17 * (n % 16)) for n in range(num)]
        frames[0].save(folder / f"{name}.gif", save_all=True, append_images=frames[1:])
    whole = (folder / "cut.gif").read_bytes()
    (folder / "cut.gif").write_bytes(whole[: len(whole) // 2])
    return folder


@pytest.mark.parametrize("ending", ["gif", "webp", "png"])
def test_a_clip_of_ones_own_goes_on(run, tmp_path, ending):
    """Rows: what is given and true, the prediction, and how far it is; missing frames are blue."""
    clip = [Image.fromarray(np.full((16, 16), 17 * n, np.uint8)) for n in range(6)]
    clip[0].save(tmp_path / "clip.gif", save_all=True, append_images=clip[1:], duration=100)
    out = tmp_path / f"out.{ending}"
    given = (f"--input={tmp_path}/clip.gif", "--context=4", "--horizon=3")
    assert rnngen("predict", f"--workdir={run}", *given, f"--out={out}") == 0
    with Image.open(out) as picture:
        frames = getattr(picture, "n_frames", 1)
        picture.seek(frames - 1)
        last = np.asarray(picture.convert("RGB"))
    assert frames == (1 if ending == "png" else 7)
    cell = 48 + 2
    assert last.shape[0] == 3 * cell + 2
    at = -2 - 24  # the middle of the last column: the frame after the clip's end
    assert tuple(last[2 + 24, at]) == (64, 96, 192)
    assert tuple(last[2 + 24 + cell, at]) != (64, 96, 192)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--context=6",), "--context must be ≤ 5, the frames of --split=test, got 6"),
        (("--context=0",), "--context must be ≥ 1, got 0"),
        (("--horizon=0",), "--horizon must be ≥ 1, got 0"),
        (("--futures=-1",), "--futures must be ≥ 1, or 0 for the expected frames, got -1"),
        (("--temperature=0.5",), "--temperature=0.5 has no effect without drawn futures"),
        (("--input=none.gif",), "--input=none.gif: there is no such file or folder"),
        (("--horizon=9999", "--out=a.png"), "The number of frames in 'a.png' must be ≤ 10000, by"),
        (("--horizon=99999",), "The bytes of pixels of 'predicted.gif' must be ≤ 268435456, by"),
        (("--input=one.gif",), "one.gif: is a single image; a sequence must have ≥ 2 frames"),
        (("--input=long.gif",), "long.gif: a sequence must have ≤ 1000 frames, got 4000"),
        (("--input=cut.gif",), "cut.gif: is truncated, damaged or not a GIF"),
        (("--input=wide.gif",), "--input=wide.gif: 17x16 grey; the model's images are 16x16 grey"),
        (("--out=a.jpg",), "--out must be a file that ends in .gif, .webp, .png or .npz"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(run, clips, monkeypatch, capsys, flags, said):
    monkeypatch.chdir(clips)
    before = sorted(clips.iterdir())
    assert rnngen("predict", f"--workdir={run}", *flags) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert sorted(clips.iterdir()) == before


def test_a_model_of_still_images_predicts_nothing(runs, capsys):
    assert rnngen("predict", f"--workdir={runs}/pixel") == 2
    assert "pixel_rnn is no model of sequences" in capsys.readouterr().err
    assert rnngen("evaluate", f"--workdir={runs}/pixel", "--protocol=vpn") == 2
    assert "--protocol=vpn has no effect with pixel_rnn" in capsys.readouterr().err
