"""Models of latent variables through the command line: what `train` and `evaluate` say of them."""

import json

import numpy as np
import pytest
from tiny_runs import evaluated, rnngen, tree

CONFIG = """
from rnngen_jax import experiment

def get_config(arg="vae"):
    config = experiment.default(arg)
    config.model.update(features=4, latents=3)
    if arg == "vae":
        config.model.update(hidden=8, kernel=2)
    else:
        config.model.update(cell="rnn", latent="deterministic")
        config.model.update(attention="dot", decoder="autoregressive")
    config.training.update(seed=3, steps=2, batch_size=8, steps_per_call=2, log_every=2)
    config.training.update(validate_every=2, checkpoint_every=2, sample_every=0)
    config.evaluation.update(batch_size=40, num_images=50)
    return config
"""
LATENTS = {"reconstruction_nats", "mean_squared_error", "active_units"}
LIKELIHOOD = {
    f"{name}{error}" for name in ("nats_per_image", "bits_per_dim") for error in ("", "_error")
}


@pytest.fixture(scope="module")
def latent_runs(tmp_path_factory):
    """A VAE, two seeds of it, and a deterministic autoencoder, each trained two steps."""
    root = tmp_path_factory.mktemp("latents")
    (root / "tiny.py").write_text(CONFIG)
    train = ("train", f"--config={root}/tiny.py")
    assert rnngen(*train, f"--workdir={root}/vae") == 0
    assert rnngen(*train, f"--workdir={root}/both", "--config.training.seeds=2") == 0
    code = f"--config={root}/tiny.py:rnn_autoencoder"
    assert rnngen("train", code, f"--workdir={root}/code") == 0
    return root


def last_validation(workdir):
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return [line for line in lines if line["split"] == "validation"][-1]


def test_a_vae_is_measured_by_its_bound(latent_runs, capsys):
    workdir = latent_runs / "vae"
    validation = last_validation(workdir)
    assert LATENTS | {"kl", "nats_per_image", "bits_per_dim"} <= set(validation)
    capsys.readouterr()
    record = evaluated(workdir, "--split=validation", "--num=50")
    printed = capsys.readouterr().out
    metrics, latents = record["metrics"], record["latents"]
    assert set(metrics) == LATENTS | LIKELIHOOD | {"kl"}
    for name in set(metrics) & set(validation):  # the same images, and the same draws
        assert metrics[name] == pytest.approx(validation[name], rel=1e-5)
    bound = metrics["reconstruction_nats"] + metrics["kl"]
    assert metrics["nats_per_image"] == pytest.approx(bound, rel=1e-5)
    assert record["num_images"] == record["protocol"]["num_images"] == 50
    assert record["protocol"]["likelihood"] == "ELBO"
    assert len(latents) == 1
    assert {name: np.shape(value) for name, value in latents[0].items()} == {
        "variance": (1, 3),
        "kl": (1, 3),
    }
    assert np.sum(latents[0]["kl"]) == pytest.approx(metrics["kl"], rel=1e-6)
    active = (np.array(latents[0]["variance"]) > 0.01).sum()
    assert metrics["active_units"] == active
    assert f"{metrics['kl']:.4f} nats" in printed
    assert f"{active} of 3" in printed
    assert f"{metrics['mean_squared_error']:.5f}" in printed
    assert "ELBO, a bound of the likelihood, 17 levels, not binarised, 50 images" in printed


def test_the_importance_weighted_bound_stands_beside_the_elbo(latent_runs, capsys):
    workdir = latent_runs / "vae"
    own = evaluated(workdir)
    capsys.readouterr()
    record = evaluated(workdir, "--iw_samples=5")
    printed = capsys.readouterr().out
    assert record["protocol"] == {**own["protocol"], "likelihood": "IW-5"}
    metrics = record["metrics"]
    assert set(metrics) == LATENTS | LIKELIHOOD | {"kl", "elbo_nats_per_image"}
    assert metrics["elbo_nats_per_image"] == pytest.approx(own["metrics"]["nats_per_image"])
    assert metrics["nats_per_image"] < metrics["elbo_nats_per_image"]
    for name in LATENTS | {"kl"}:  # of the ELBO, as before
        assert metrics[name] == own["metrics"][name]
    assert f"{metrics['elbo_nats_per_image']:.4f} nats" in printed
    assert "IW-5, a bound of the likelihood" in printed
    assert record["num_images"] == 300


def test_seeds_are_measured_one_by_one(latent_runs):
    alone = [
        evaluated(latent_runs / "both", "--num=50", "--iw_samples=2", f"--seed_index={r}")
        for r in range(2)
    ]
    record = evaluated(latent_runs / "both", "--num=50", "--iw_samples=2")
    assert record["protocol"] == {**alone[0]["protocol"], "seeds": 2}
    for name in alone[0]["metrics"]:
        each = [run["metrics"][name] for run in alone]
        got = [record["metrics"][f"{name}/seed_{s}"] for s in (3, 4)]
        assert got == pytest.approx(each, rel=1e-5)
        assert record["metrics"][name] == pytest.approx(np.mean(each), rel=1e-5)
    assert len(record["latents"]) == 2
    for r in range(2):
        for name, values in alone[r]["latents"][0].items():
            np.testing.assert_allclose(record["latents"][r][name], values, rtol=1e-5)
    assert alone[0]["latents"] != alone[1]["latents"]


def test_a_deterministic_code_is_measured_by_what_it_rebuilds(latent_runs, capsys):
    workdir = latent_runs / "code"
    validation = last_validation(workdir)
    capsys.readouterr()
    record = evaluated(workdir, "--split=validation", "--num=50")
    printed = capsys.readouterr().out
    assert set(record["metrics"]) == LATENTS
    for name, value in record["metrics"].items():
        assert value == pytest.approx(validation[name], rel=1e-5)
    assert record["protocol"]["likelihood"] is None
    assert [list(arrays) for arrays in record["latents"]] == [["variance"]]
    assert np.shape(record["latents"][0]["variance"]) == (8, 3)
    assert "no likelihood, 17 levels" in printed
    assert "KL" not in printed
    assert "of 24" in printed
    # The checkpoint of the least reconstruction_nats is the best.
    assert rnngen("evaluate", f"--workdir={workdir}", "--checkpoint=best") == 0


@pytest.mark.parametrize(
    ("run", "arguments", "expected"),
    [
        ("code", ["evaluate", "--iw_samples=5"], "no likelihood here; its latents have no prior"),
        ("code", ["sample"], "rnn_autoencoder cannot draw samples"),
        ("code", ["complete"], "rnn_autoencoder cannot complete images"),
        (
            "vae",
            ["evaluate", "--iw_samples=-1"],
            "--iw_samples must be ≥ 1, or 0 for the ELBO, got -1",
        ),
        ("vae", ["evaluate", "--num=-1"], "--num must be ≥ 1, or 0 for all, got -1"),
        ("pixel", ["evaluate", "--iw_samples=5"], "--iw_samples=5: the likelihood of pixel_rnn is"),
    ],
)
def test_what_a_model_cannot_do_is_said_in_one_line(
    request, latent_runs, tmp_path, capsys, run, arguments, expected
):
    workdir = request.getfixturevalue("pixel") if run == "pixel" else latent_runs / run
    before = tree(workdir)
    verb, *flags = arguments
    flags += [] if verb == "evaluate" else [f"--out={tmp_path}/new.png"]
    assert rnngen(verb, f"--workdir={workdir}", *flags) == 2
    error = capsys.readouterr().err
    assert expected in error
    assert error.count("\n") == 1
    assert tree(workdir) == before
    assert not (tmp_path / "new.png").exists()


def test_posterior_collapse_shows(latent_runs, tmp_path):
    """Where the divergence is dear, no latent variable is in use; where it is cheap, some are."""
    active = {}
    for beta in (50.0, 0.01):
        workdir = tmp_path / str(beta)
        flags = (
            f"--config.model.beta={beta}",
            "--config.optimizer.learning_rate=0.01",
            "--config.training.steps=60",
            "--config.training.steps_per_call=30",
            "--config.training.log_every=30",
            "--config.training.validate_every=60",
            "--config.training.checkpoint_every=60",
            "--config.training.batch_size=32",
        )
        config = f"--config={latent_runs}/tiny.py"
        assert rnngen("train", config, f"--workdir={workdir}", *flags) == 0
        active[beta] = last_validation(workdir)
    assert active[50.0]["active_units"] == 0
    assert active[50.0]["kl"] < 0.1
    assert active[0.01]["active_units"] >= 2
    assert active[0.01]["kl"] > 1
