"""A classifier, trained and evaluated once, is the judge of what generators draw."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from tiny_runs import evaluated, rnngen, tree

from rnngen_jax import data
from rnngen_jax.data.base import DataConfig
from rnngen_jax.errors import UserError
from rnngen_jax.evaluation import (
    classifying,
    fidelity,
    inception,
    inputs,
    neighbours,
    pictures,
)
from rnngen_jax.evaluation.likelihood import EvaluationConfig
from rnngen_jax.evaluation.validation import collapse
from rnngen_jax.runs import evaluating, judging, load

CONFIG = """
from rnngen_jax import experiment

def get_config(arg="classifier"):
    config = experiment.default(arg)
    if arg == "classifier":
        config.model.update(features=4, kernel=2, hidden=6)
    elif arg == "mlp_gan":
        config.model.hidden = 8
    else:
        config.model.update(features=4, kernel=2, latents=3, hidden=8)
    config.training.update(seed=3, steps=2, batch_size=8, steps_per_call=2, log_every=2)
    config.training.update(validate_every=2, checkpoint_every=2, sample_every=0)
    config.evaluation.update(num_images=50, num_samples=40)
    return config
"""
STATIC = "--config.data.binarisation=static"
FIRST = ["frechet", "precision", "recall", "confidence", "missing_classes"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A judge, two seeds of a GAN that it validates, and a VAE."""
    root = tmp_path_factory.mktemp("judged")
    (root / "tiny.py").write_text(CONFIG)
    config = f"--config={root}/tiny.py"
    assert rnngen("train", config, f"--workdir={root}/judge") == 0
    assert rnngen("evaluate", f"--workdir={root}/judge") == 0
    judged = f"--config.evaluation.classifier={root}/judge"
    two = "--config.training.seeds=2"
    assert rnngen("train", f"{config}:mlp_gan", f"--workdir={root}/gan", judged, two) == 0
    assert rnngen("train", f"{config}:vae", f"--workdir={root}/vae", judged) == 0
    return root


@pytest.fixture
def judge(root, tmp_path):
    return shutil.copytree(root / "judge", tmp_path / "judge")


def recorded(folder):
    return json.loads((folder / "evaluation.json").read_text())


def validations(folder):
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [line for line in lines if line["split"] == "validation"]


def features(folder, images):
    """What a trained classifier makes of images, all at once."""
    run = load(folder)
    return fidelity.Features(*map(np.asarray, run.model.classify(run.params, run.extra, images)))


def split(name, num=None):
    return inputs.read_split(data.load(DataConfig()), name, num)


def test_a_classifier_is_scored_by_evaluate(judge, capsys):
    record = evaluated(judge)
    images, labels = split("test")
    right = features(judge, images).logits.argmax(1) == labels
    assert set(record["metrics"]) == {"accuracy", "cross_entropy"}
    assert record["metrics"]["accuracy"] == pytest.approx(right.mean(), abs=1e-12)
    assert record["digest"] == load(judge).digest.hex()
    assert f"accuracy:       {right.mean():.4f}" in capsys.readouterr().out
    assert next(iter(validations(judge)[0])) in ("step", "split", "cross_entropy")


def test_a_judge_is_what_its_evaluations_say(judge):
    """Its accuracies are those of these parameters, of whichever splits have been measured."""
    data_set = data.load(DataConfig())
    first = judging.open_judge(judge, data_set, "--classifier")
    assert first.accuracy == {"test": recorded(judge)["metrics"]["accuracy"]}
    train = evaluated(judge, "--split=train")
    evaluated(judge, "--checkpoint=latest")
    second = judging.open_judge(judge, data_set, "--classifier")
    assert second.accuracy == {**first.accuracy, "train": train["metrics"]["accuracy"]}
    assert second.name == f"digits-classifier-{load(judge).digest.hex()[:8]}"


def test_an_evaluation_of_a_part_of_a_split_is_no_accuracy_of_a_judge(judge):
    data_set = data.load(DataConfig())
    whole = judging.open_judge(judge, data_set, "--classifier").accuracy
    part = evaluated(judge, "--num=7")
    assert part["metrics"]["accuracy"] != whole["test"]
    evaluated(judge, "--split=train", "--num=1296")
    assert judging.open_judge(judge, data_set, "--classifier").accuracy == whole
    (judge / "evaluations.jsonl").write_text(json.dumps(part) + "\n")
    with pytest.raises(UserError, match=unknown_accuracy(judge)) as error:
        judging.open_judge(judge, data_set, "--classifier")
    assert "\n" not in str(error.value)
    whole_again = evaluated(judge, "--num=300")  # all there are
    found = judging.open_judge(judge, data_set, "--classifier").accuracy
    assert found == {"test": whole_again["metrics"]["accuracy"]} == whole


def unknown_accuracy(judge):
    return (
        "has not been evaluated on the whole test split, so its accuracy is unknown; "
        f"run rnngen evaluate --workdir={judge} first."
    )


def test_other_parameters_than_the_evaluated_are_refused(root, judge, tmp_path, capsys):
    other = ("--config.training.seed=4", f"--workdir={tmp_path}/other")
    assert rnngen("train", f"--config={root}/tiny.py", *other) == 0
    shutil.rmtree(judge / "checkpoints")
    shutil.copytree(tmp_path / "other" / "checkpoints", judge / "checkpoints")
    capsys.readouterr()
    assert rnngen("evaluate", f"--workdir={root}/gan", f"--classifier={judge}") == 2
    error = capsys.readouterr().err
    assert unknown_accuracy(judge) in error
    assert error.count("\n") == 1
    evaluated(judge)
    evaluated(root / "gan", f"--classifier={judge}", "--samples=4", "--seed_index=0")


def test_training_is_validated_by_the_judge(root):
    for run, before in (("gan", 0), ("vae", 6)):
        (line,) = validations(root / run)
        names = [
            name for name in list(line)[2:] if "seed" not in name and "standard_error" not in name
        ]
        assert names[before:] == [*FIRST, *(f"class_share/{k}" for k in range(10))]
    gan, vae = validations(root / "gan")[0], validations(root / "vae")[0]
    assert gan["frechet"] == pytest.approx((gan["frechet/seed_3"] + gan["frechet/seed_4"]) / 2)
    assert sum(vae[f"class_share/{k}"] for k in range(10)) == pytest.approx(1)
    meta = root / "gan" / "checkpoints"
    assert [path.name for path in meta.iterdir() if path.name.isdecimal()] == ["2"]
    assert (
        rnngen(
            "evaluate",
            f"--workdir={root}/gan",
            "--checkpoint=best",
            f"--classifier={root}/judge",
            "--samples=4",
        )
        == 0
    )


def test_samples_are_judged_beside_the_likelihood(root, tmp_path, capsys):
    own = evaluated(root / "vae")
    flags = (f"--classifier={root}/judge", "--samples=70", "--seed=5", "--temperature=0.9")
    capsys.readouterr()
    record = evaluated(root / "vae", *flags)
    printed = capsys.readouterr().out
    section = record.pop("samples")
    assert record.pop("time") >= own.pop("time")
    assert record == own
    metrics, baseline = section.pop("metrics"), section.pop("baseline")
    (missing,) = section.pop("missing")
    assert len(missing) == metrics["missing_classes"] > 0
    assert f"{collapse(missing)}\n" in printed
    stored = recorded(root / "judge")
    name = f"digits-classifier-{stored['digest'][:8]}"
    assert section == {
        "classifier": name,
        "digest": stored["digest"],
        "accuracy": {"test": stored["metrics"]["accuracy"]},
        "split": "test",
        "num_samples": 70,
        "num_real": 300,
        "num_baseline": 70,
        "seed": 5,
        "temperature": 0.9,
    }
    out = tmp_path / "s.npz"
    drawn = ("--num=70", "--seed=5", "--temperature=0.9", f"--out={out}")
    assert rnngen("sample", f"--workdir={root}/vae", *drawn) == 0
    with np.load(out) as arrays:
        images = arrays["image"]
    real = features(root / "judge", split("test")[0])
    want = fidelity.compare(real, features(root / "judge", images)).metrics()
    assert metrics == pytest.approx(want, rel=1e-3, abs=1e-5)
    assert set(baseline) == set(metrics)
    assert baseline["frechet"] < metrics["frechet"]
    assert name in printed
    row = f"{metrics['frechet']:>10.4f} {baseline['frechet']:>10.4f}"
    assert f"frechet            {row}\n" in printed
    assert "baseline:       70 real images in the samples' place\n" in printed
    assert "FID" not in printed + json.dumps(record)


def test_every_seed_of_a_gan_is_judged(root, capsys):
    judged = (f"--classifier={root}/judge", "--samples=20", "--split=validation")
    alone = [evaluated(root / "gan", *judged, f"--seed_index={r}") for r in range(2)]
    capsys.readouterr()
    record = evaluated(root / "gan", *judged)
    assert record["metrics"] == {}
    assert record["protocol"]["likelihood"] is None
    section = record["samples"]
    each = [run["samples"]["metrics"]["frechet"] for run in alone]
    assert each[0] != each[1]
    got = [section["metrics"][f"frechet/seed_{s}"] for s in (3, 4)]
    assert got == pytest.approx(each, rel=1e-5)
    assert section["metrics"]["frechet"] == pytest.approx(np.mean(each), rel=1e-5)
    assert section["num_real"] == 200
    assert section["baseline"] == pytest.approx(alone[0]["samples"]["baseline"], rel=1e-6)
    error = section["metrics"]["frechet/standard_error"]
    assert f" ± {error:.4f}" in capsys.readouterr().out
    whole = evaluated(root / "gan", f"--classifier={root}/judge", "--seed_index=0")["samples"]
    assert whole["num_samples"] == whole["num_real"] == 300


def test_neighbours_stand_beside_samples(root, tmp_path):
    picture, out = tmp_path / "near.png", tmp_path / "s.npz"
    evaluated(root / "vae", f"--neighbours={picture}", "--seed=5")
    assert rnngen("sample", f"--workdir={root}/vae", "--num=16", "--seed=5", f"--out={out}") == 0
    with np.load(out) as arrays:
        samples = arrays["image"]
    train = split("train")[0]
    away = np.square(samples[:, None].astype(float) - train).sum((2, 3, 4))
    found = train[np.argsort(away, axis=1, kind="stable")[:, :3]]
    want = pictures.tile(pictures.to_pixels(neighbours.picture_rows(samples, found), 17))
    with Image.open(picture) as image:
        np.testing.assert_array_equal(np.asarray(image), want)


def test_samples_by_the_inception_network(root, tmp_path, capsys, monkeypatch):
    """A stand-in with as many classes; the figures are those of its features, less the classes'."""

    def classify(image):
        flat = np.float32(image).reshape(len(image), -1)
        return flat[:, 10:30], np.tile(flat, 16)[:, :1008]

    def opened(path, levels, channels):
        assert (path, levels, channels) == ("weights.pth", 17, 1)
        return inception.Inception("FID", "6726825d", classify)

    monkeypatch.setattr(judging, "open_inception", opened)
    run = shutil.copytree(root / "gan", tmp_path / "gan")
    flags = ("--inception=weights.pth", "--samples=40", "--seed_index=1", "--seed=2")
    assert rnngen("evaluate", f"--workdir={run}", *flags) == 0
    record = json.loads((run / "evaluation.json").read_text())
    assert "samples" not in record
    section = record["inception"]
    first = load(run, seed_index=1)
    sample = classifying.sampler(first.model, first.dataset)
    drawn = sample(first.params, first.extra, 40, 2, 1.0)
    real, _ = first.dataset.splits["test"].read(np.arange(first.dataset.splits["test"].num))
    want = fidelity.compare(*(fidelity.Features(*classify(images)) for images in (real, drawn)))
    want = {name: value for name, value in want.metrics().items() if name in section["metrics"]}
    assert section["metrics"] == pytest.approx(want, rel=1e-6)
    assert list(want) == list(section["baseline"]) == [*judging.DISTANCES]
    assert section["inception"] == "FID"
    assert section["resize"] == inception.RESIZE
    assert (section["num_samples"], section["num_real"], section["num_baseline"]) == (40, 300, 40)
    printed = capsys.readouterr().out
    assert "judge:          FID, images resized bilinear to 299x299" in printed
    assert "class shares" not in printed
    assert f"{section['metrics']['frechet']:.4f}" in printed


JUDGE = "--classifier=ROOT/judge"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["gan"], "mlp_gan has neither a likelihood nor latents; give --classifier=FOLDER"),
        (["gan", "--neighbours=OUT/a.png"], "give --classifier=FOLDER"),
        (
            ["gan", "--inception=none.pth"],
            "--inception=none.pth: there is no such file; give",
        ),
        (["gan", "--classifier=none"], "none holds no run: there is no config.json. Give the --wo"),
        (["gan", "--classifier=ROOT/vae"], "must hold a run of classifier, got vae"),
        (["vae", "--samples=5"], "--samples=5 has no effect without --classifier"),
        (["vae", "--seed=5"], "--seed=5 has no effect without"),
        (["gan", JUDGE, "--samples=3"], "--samples must be ≥ 4, got 3"),
        (["gan", JUDGE, "--samples=999999999"], "images of this size in 'memory'"),
        (["gan", JUDGE, "--temperature=0"], "--temperature must be in [1e-06, 1e+06], got 0.0"),
        (
            ["gan", JUDGE, "--neighbours=a.jpg"],
            "--neighbours must be a file that ends in .png, got",
        ),
        (["judge", JUDGE], "classifier cannot draw samples"),
        (["judge", "--iw_samples=2"], "classifier has no likelihood here"),
    ],
)
def test_what_cannot_be_judged_is_said_in_one_line(root, tmp_path, capsys, arguments, expected):
    run, *flags = [a.replace("ROOT", str(root)).replace("OUT", str(tmp_path)) for a in arguments]
    before = tree(root / run)
    assert rnngen("evaluate", f"--workdir={root / run}", *flags) == 2
    error = capsys.readouterr().err
    assert expected in error
    assert error.count("\n") == 1
    assert tree(root / run) == before
    assert tree(tmp_path) == {}


def test_a_judge_of_grey_images_does_not_judge_binary_ones(root, tmp_path, capsys):
    config = f"--config={root}/tiny.py:vae"
    flags = (config, f"--workdir={tmp_path}/run", STATIC)
    judged = f"--config.evaluation.classifier={root}/judge"
    assert rnngen("train", *flags, judged) == 2
    error = capsys.readouterr().err
    assert "config.evaluation.classifier=" in error
    assert "17 levels, binarisation=none), the run of digits (8x8x1, 2 levels" in error
    assert "--config.data.name=digits --config.data.binarisation=static." in error
    assert not (tmp_path / "run").exists()
    mine = (f"--config={root}/tiny.py", f"--workdir={tmp_path}/judge", STATIC)
    assert rnngen("train", *mine) == 0
    evaluated(tmp_path / "judge")
    static = data.load(DataConfig(binarisation="static"))
    judge = judging.open_judge(f"{tmp_path}/judge", static, "--classifier")
    assert judge.spec == static.spec
    assert judge.name.startswith("digits-static-classifier-")


def test_the_config_checks_the_number_of_samples():
    with pytest.raises(UserError, match="num_samples must be ≥ 4, got 3"):
        EvaluationConfig(num_samples=3)


def test_of_several_processes_the_first_alone_records_and_prints(
    root, tmp_path, monkeypatch, capsys
):
    """What the second does, alone here: the figures, and neither records, pictures nor lines."""
    monkeypatch.setattr("jax.process_index", lambda: 1)
    before = tree(root / "vae")
    flags = (f"--workdir={root}/vae", "--num=20", f"--neighbours={tmp_path}/near.png")
    assert rnngen("evaluate", *flags) == 0
    assert evaluating.evaluate(load(root / "vae"), num=20)["num_images"] == 20
    assert capsys.readouterr().out == ""
    assert tree(root / "vae") == before
    assert tree(tmp_path) == {}
