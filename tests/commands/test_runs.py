"""A tiny run from end to end through the command line, and what the verbs refuse of it."""

import datetime
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from tiny_runs import evaluated, rnngen, tree

from rnngen_jax.evaluation import pictures

REFUSED = {
    "sample --label=3": "not class-conditional",
    "complete --label=3": "not class-conditional",
    "sample --checkpoint=7": "there is no checkpoint '7'",
    "evaluate --checkpoint=newest": "allowed: best, latest, 4",
    "complete --mask=lowre": "did you mean 'lower'",
    "complete --mask=none.png": "no such file",
    "complete --mask=wrong.png": "is 5x5 pixels; the model's images are 8x8",
    "complete --input=none": "no such file or folder",
    "complete --input=wrong.png": "5x5 grey; the model's images are 8x8 grey",
    "sample --out=a/b.png": "cannot write",
    "sample --num=10001": "--num must be ≤ 10000 for images of this size in 'new.png', got",
    "complete --num=10 --completions=1001": "--num times --completions must be ≤ 10000 for images",
}


def test_a_run_leaves_what_other_tools_rely_on(pixel):
    assert json.loads((pixel / "config.json").read_text())["model"]["features"] == 8
    lines = [json.loads(line) for line in (pixel / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], line["split"]) for line in lines] == [
        (2, "train"),
        (4, "train"),
        (4, "validation"),
    ]
    assert lines[-1]["bits_per_dim"] == pytest.approx(
        lines[-1]["nats_per_image"] / 64 / np.log(2), rel=1e-6
    )
    with Image.open(pixel / "samples" / "step_00000004.png") as image:
        assert image.size == (2 * 50 + 2, 2 * 50 + 2)
    assert (pixel / "checkpoints" / "4").is_dir()


def test_evaluate_needs_only_the_workdir(pixel, capsys):
    record = evaluated(pixel, "--split=validation")
    metrics, protocol = record.pop("metrics"), record.pop("protocol")
    assert set(record.pop("versions")) >= {"jax", "flax", "rnngen_jax"}
    assert len(bytes.fromhex(record.pop("digest"))) == 8
    assert datetime.datetime.fromisoformat(record.pop("time")).tzinfo is datetime.UTC
    assert record.pop("format") == 2
    assert record.pop("num_images") == record.pop("split_images") == 200
    assert record == {"step": 4, "dataset": "digits", "split": "validation"}
    assert protocol == {
        "likelihood": "exact",
        "dataset": "digits",
        "levels": 17,
        "binarisation": "none",
        "split": "validation",
        "num_images": 200,
    }
    assert metrics["bits_per_dim"] == pytest.approx(metrics["nats_per_image"] / 64 / np.log(2))
    assert 1 < metrics["bits_per_dim"] < np.log2(17) + 1
    out = capsys.readouterr().out
    assert f"{metrics['bits_per_dim']:.4f} ± {metrics['bits_per_dim_error']:.4f}" in out
    assert "exact likelihood, 17 levels, not binarised, 200 images" in out
    assert out.splitlines()[-1] == str(pixel / "evaluation.json")


def test_every_evaluation_is_kept(pixel, config):
    """Of the same parameters with one digest, of others with another."""
    first = evaluated(pixel, "--num=5")
    second = evaluated(pixel, "--num=6", "--split=validation")
    flags = (f"--config={config}", f"--workdir={pixel}", "--config.training.steps=6")
    assert rnngen("train", *flags) == 0
    third = evaluated(pixel, "--num=5", "--checkpoint=latest")
    lines = (pixel / "evaluations.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [first, second, third]
    assert [record["num_images"] for record in (first, second, third)] == [5, 6, 5]
    assert first["digest"] == second["digest"] != third["digest"]


def test_figures_are_told_where_they_cannot_be_written(pixel, capsys):
    (pixel / "evaluations.jsonl").mkdir()
    assert rnngen("evaluate", f"--workdir={pixel}", "--num=5") == 1
    out, err = capsys.readouterr()
    assert "bits per dim:   " in out
    assert err == f"error: {pixel}/evaluations.jsonl: Is a directory.\n"
    assert not (pixel / "evaluation.json").exists()


def test_a_folder_of_any_name(pixel, tmp_path):
    for name in ("two words", "größe 图", "two\nlines", "-dash"):
        run = shutil.copytree(pixel, tmp_path / name)
        assert evaluated(run, "--num=3")["step"] == 4
        assert rnngen("doctor", f"--workdir={run}") == 0


def test_the_batch_size_does_not_change_the_evaluation(pixel):
    values = []
    for size in (7, 300):
        path = pixel / "config.json"
        settings = json.loads(path.read_text())
        settings["evaluation"]["batch_size"] = size
        path.write_text(json.dumps(settings))
        values.append(evaluated(pixel)["metrics"])
    assert values[0] == pytest.approx(values[1], rel=1e-6)


def test_samples_depend_on_seed_and_temperature_alone(pixel, tmp_path, capsys):
    def draw(*flags):
        out = tmp_path / "s.npz"
        assert rnngen("sample", f"--workdir={pixel}", f"--out={out}", *flags) == 0
        assert capsys.readouterr().out == f"{out}\n"
        with np.load(out) as stored:
            assert sorted(stored) == ["image", "levels"]
            assert stored["levels"] == 17
            return stored["image"]

    images = draw("--num=70")
    assert images.shape == (70, 8, 8, 1)
    assert images.dtype == np.uint8
    assert images.max() < 17
    np.testing.assert_array_equal(draw("--num=5"), images[:5])
    assert (draw("--num=5", "--seed=1") != images[:5]).any()
    assert (draw("--num=5", "--temperature=0.5") != images[:5]).any()
    frozen = draw("--num=5", "--temperature=1e-6")
    np.testing.assert_array_equal(frozen, np.broadcast_to(frozen[:1], frozen.shape))


def test_classes_go_round_unless_one_is_given(row, tmp_path):
    out = tmp_path / "s.npz"
    assert rnngen("sample", f"--workdir={row}", "--num=12", f"--out={out}") == 0
    with np.load(out) as stored:
        np.testing.assert_array_equal(stored["label"], np.arange(12) % 10)
    assert rnngen("sample", f"--workdir={row}", "--num=3", "--label=7", f"--out={out}") == 0
    with np.load(out) as stored:
        np.testing.assert_array_equal(stored["label"], [7, 7, 7])


def test_samples_as_pictures(pixel, tmp_path):
    assert rnngen("sample", f"--workdir={pixel}", "--num=9", f"--out={tmp_path}/g.png") == 0
    with Image.open(tmp_path / "g.png") as image:
        assert image.size == (152, 152)
    assert rnngen("sample", f"--workdir={pixel}", "--num=3", f"--out={tmp_path}/singles/") == 0
    assert len(os.listdir(tmp_path / "singles")) == 3


@pytest.mark.parametrize("mask", ["lower", "upper", "centre", "random", "image"])
def test_completions_keep_the_known_pixels(pixel, tmp_path, mask):
    if mask == "image":
        picture = np.zeros((8, 8), np.uint8)
        picture[::2] = 255
        Image.fromarray(picture).save(tmp_path / "m.png")
        mask = tmp_path / "m.png"
    out = tmp_path / "c.npz"
    flags = (f"--workdir={pixel}", f"--mask={mask}", "--num=4", "--completions=2")
    assert rnngen("complete", *flags, f"--out={out}") == 0
    with np.load(out) as stored:
        image, known, completed = stored["image"], stored["known"], stored["completed"]
    assert completed.shape == (4, 2, 8, 8, 1)
    for k in range(2):
        np.testing.assert_array_equal(completed[:, k][known], image[known])
    assert (completed[:, 0] != completed[:, 1]).any()
    assert (completed[:, 0][~known] != image[~known]).any()
    assert rnngen("complete", *flags, f"--out={tmp_path}/c.png") == 0
    with Image.open(tmp_path / "c.png") as stored:
        want = pictures.completions(image, known, completed, 17)
        np.testing.assert_array_equal(np.asarray(stored), want)


def test_own_samples_can_be_completed(row, tmp_path, capsys):
    drawn = tmp_path / "s.npz"
    assert rnngen("sample", f"--workdir={row}", "--num=6", f"--out={drawn}") == 0
    flags = (f"--workdir={row}", f"--input={drawn}", "--num=3", "--completions=1")
    assert rnngen("complete", *flags, f"--out={tmp_path}/c.npz") == 0
    with np.load(drawn) as first, np.load(tmp_path / "c.npz") as second:
        np.testing.assert_array_equal(second["image"], first["image"][:3])
    assert rnngen("sample", f"--workdir={row}", "--num=2", f"--out={tmp_path}/singles/") == 0
    flags = (f"--workdir={row}", f"--input={tmp_path}/singles", f"--out={tmp_path}/d.png")
    assert rnngen("complete", *flags) == 2
    assert "give --label, 0 to 9" in capsys.readouterr().err
    assert rnngen("complete", *flags, "--label=2") == 0


@pytest.mark.parametrize("words", REFUSED)
def test_what_does_not_fit_the_run_is_refused(pixel, tmp_path, monkeypatch, capsys, words):
    monkeypatch.chdir(tmp_path)
    Image.new("L", (5, 5)).save("wrong.png")
    (tmp_path / "a").write_text("a file")
    before = tree(tmp_path)
    out = [] if "--out" in words or "evaluate" in words else ["--out=new.png"]
    assert rnngen(*words.split(), f"--workdir={pixel}", *out) == 2
    printed = capsys.readouterr()
    assert REFUSED[words] in printed.err
    assert len(printed.err.strip().splitlines()) <= 2
    assert tree(tmp_path) == before


@pytest.mark.parametrize("label", ["10", "-1", "x", "1.5"])
def test_a_class_that_is_none_is_refused(row, tmp_path, capsys, label):
    assert rnngen("sample", f"--workdir={row}", f"--label={label}", f"--out={tmp_path}/a.png") == 2
    assert "--label must be a class in [0, 9]" in capsys.readouterr().err
    assert not (tmp_path / "a.png").exists()


def test_a_run_of_another_config_is_left_alone(pixel, config, capsys):
    before = tree(pixel)
    flags = (f"--config={config}", f"--workdir={pixel}")
    assert rnngen("train", *flags, "--config.model.features=9", "--config.training.seed=1") == 2
    err = capsys.readouterr().err
    assert "model.features: 8 -> 9" in err
    assert "training.seed: 3 -> 1" in err
    assert "another --workdir" in err
    assert tree(pixel) == before


def test_a_run_goes_on_when_the_place_of_its_data_is_spelt_otherwise(
    config, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    image = np.arange(40 * 16, dtype=np.uint8).reshape(40, 4, 4)
    np.savez("a.npz", image=image)
    np.savez("b.npz", image=image)

    def train(name, steps):
        flags = (f"--config.data.name=npz:{name}", f"--config.training.steps={steps}")
        return rnngen("train", f"--config={config}", "--workdir=run", *flags)

    assert train("a.npz", 2) == 0
    assert train(f"{tmp_path}/a.npz", 4) == 0
    assert (tmp_path / "run" / "checkpoints" / "4").is_dir()
    assert json.loads((tmp_path / "run/config.json").read_text())["data"]["name"] == (
        f"npz:{tmp_path}/a.npz"
    )
    assert train("./a.npz", 4) == 0
    capsys.readouterr()
    assert train("b.npz", 4) == 2
    assert "data.name: 'npz:./a.npz' -> 'npz:b.npz'" in capsys.readouterr().err


def test_a_checkpoint_of_another_model_is_refused(pixel, row, capsys):
    shutil.rmtree(pixel / "checkpoints")
    shutil.copytree(row / "checkpoints", pixel / "checkpoints")
    before = tree(pixel)
    for verb in ("evaluate", "sample", "complete"):
        out = [] if verb == "evaluate" else [f"--out={pixel}/new.png"]
        assert rnngen(verb, f"--workdir={pixel}", *out) == 2
        assert "belongs to another model" in capsys.readouterr().err
    assert tree(pixel) == before


def test_a_run_goes_on_to_more_steps(pixel, config, capsys):
    flags = (f"--config={config}", f"--workdir={pixel}", "--config.training.steps=6")
    assert rnngen("train", *flags) == 0
    assert "going on from step 4" in capsys.readouterr().out
    assert json.loads((pixel / "config.json").read_text())["training"]["steps"] == 6
    assert (pixel / "samples" / "step_00000006.png").exists()
    with Image.open(pixel / "samples" / "training.gif") as film:
        assert film.n_frames == 2
    assert evaluated(pixel, "--checkpoint=latest")["step"] == 6


def test_training_that_cannot_start_leaves_no_config(pixel, config, tmp_path, capsys):
    # The tests have eight devices.
    odd = ("--config.training.batch_size=9",)
    assert rnngen("train", f"--config={config}", f"--workdir={tmp_path}/new", *odd) == 2
    assert "9" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
    before = tree(pixel)
    settings = json.loads((pixel / "config.json").read_text())
    settings["model"]["features"] = 16  # checkpoints of another model than config.json says
    (pixel / "config.json").write_text(json.dumps(settings))
    flags = ("--config.model.features=16", "--config.training.steps=8")
    assert rnngen("train", f"--config={config}", f"--workdir={pixel}", *flags) == 2
    assert json.loads((pixel / "config.json").read_text()) == settings
    (pixel / "config.json").write_bytes(before[pathlib.Path("config.json")])
    assert tree(pixel) == before


def test_doctor_reads_the_machine_the_data_and_the_checkpoints(pixel, config, capsys):
    assert rnngen("doctor", f"--config={config}", f"--workdir={pixel}") == 0
    out = capsys.readouterr().out
    for expected in ("jax ", "device 0", "GiB memory", "1297 train, 200 validation, 300 test"):
        assert expected in out
    assert "checkpoint 4: sound" in out
    largest = max((pixel / "checkpoints" / "4").rglob("*"), key=lambda p: p.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)
    assert rnngen("doctor", f"--workdir={pixel}") == 1
    assert "! checkpoint 4: " in capsys.readouterr().out
    assert rnngen("doctor", f"--config={config}", "--config.data.name=folder:none") == 1
    assert "! data folder:none" in capsys.readouterr().out


def test_prepare_makes_a_data_set_once(config, tmp_path, capsys):
    flags = ("--input=digits", "--name=copy", f"--data_dir={tmp_path}/data")
    assert rnngen("prepare", *flags) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"{tmp_path}/data/copy"
    before = tree(tmp_path)
    assert rnngen("prepare", *flags) == 2
    assert "exists already" in capsys.readouterr().err
    assert tree(tmp_path) == before
    name = f"--config.data.name=tfds:{tmp_path}/data/copy"
    assert rnngen("doctor", f"--config={config}", name) == 0
    assert "1297 train, 200 validation, 300 test" in capsys.readouterr().out


def test_a_process_number_that_is_none_is_refused(config, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "127.0.0.1:1")
    monkeypatch.setenv("JAX_PROCESS_ID", "first")
    assert rnngen("train", f"--config={config}", f"--workdir={tmp_path}/w") == 2
    assert "JAX_PROCESS_ID must be an integer ≥ 0, got 'first'" in capsys.readouterr().err
    assert not (tmp_path / "w").exists()


@pytest.mark.slow
def test_two_processes_train_one_run(config, runs, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {
        "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
        "JAX_NUM_PROCESSES": "2",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=1",
    }
    command = [sys.executable, "-m", "rnngen_jax.main", "train", f"--config={config}"]
    processes = [
        subprocess.Popen(
            [*command, f"--workdir={tmp_path}/w"],
            env={**os.environ, **shared, "JAX_PROCESS_ID": str(number)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    printed = [process.communicate(timeout=240) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], printed
    assert "pictures: " in printed[0][0]
    assert "pictures: " not in printed[1][0]

    def losses(folder):
        lines = (folder / "metrics.jsonl").read_text().splitlines()
        return [json.loads(line)["bits_per_dim"] for line in lines]

    assert losses(tmp_path / "w") == pytest.approx(losses(runs / "pixel"), rel=1e-5)


def test_what_stands_in_the_way_of_a_run_that_has_begun_leaves_its_config(config, tmp_path, capsys):
    (tmp_path / "samples").write_text("no folder")
    assert rnngen("train", f"--config={config}", f"--workdir={tmp_path}") == 1
    error = capsys.readouterr().err
    assert error.startswith("error: step 4: cannot write")
    assert error.count("\n") == 1
    assert (tmp_path / "config.json").exists()
    (tmp_path / "samples").unlink()
    assert rnngen("train", f"--config={config}", f"--workdir={tmp_path}") == 0


def test_a_checkpoint_whose_folder_was_renamed(pixel, tmp_path, capsys):
    folder = pixel
    (folder / "checkpoints" / "4").rename(folder / "checkpoints" / "9")
    before = tree(folder)
    for step in ("9", "9" * 5000):
        arguments = (f"--workdir={folder}", f"--checkpoint={step}", f"--out={tmp_path / 'a.png'}")
        assert rnngen("sample", *arguments) == 2
    error = capsys.readouterr().err
    assert "it is of step 4" in error
    assert "there is no checkpoint" in error
    assert tree(folder) == before


def test_metrics_that_are_a_folder_change_nothing(config, pixel, capsys):
    folder = pixel
    (folder / "metrics.jsonl").unlink()
    (folder / "metrics.jsonl").mkdir()
    before = tree(folder)
    more = "--config.training.steps=8"
    assert rnngen("train", f"--config={config}", more, f"--workdir={folder}") == 1
    assert "Is a directory" in capsys.readouterr().err
    assert tree(folder) == before
