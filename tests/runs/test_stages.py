"""A prior that is learned over codes of a frozen part: trained, drawn from, and coded in stages."""

import json
import math
import pathlib
import sys

import jax
import numpy as np
import pytest
from tiny_runs import evaluated, rnngen

import rnngen_jax as rg
from rnngen_jax import models
from rnngen_jax.evaluation import codec, sampling
from rnngen_jax.shapes import ImageSpec

CONFIG = """
from rnngen_jax import experiment

def get_config():
    config = experiment.default("staged_toy")
    config.optimizer.learning_rate = 0.1
    config.training.steps, config.training.batch_size = 40, 16
    config.training.log_every = config.training.validate_every = 20
    config.training.checkpoint_every = 20
    config.training.sample_every = 0
    return config
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run of images that are each of one of the frozen distributions, mostly of the first."""
    root = tmp_path_factory.mktemp("staged")
    (root / "tiny.py").write_text(CONFIG)
    with pytest.MonkeyPatch.context() as patch:
        toys = str(pathlib.Path(__file__).parent / "toys")
        patch.setattr(models, "__path__", [*models.__path__, toys])
        model = models.build("staged_toy", {}, ImageSpec(4, 4, levels=17))
        _, extra = model.init(jax.random.key(0))
        rng = np.random.default_rng(0)
        p = np.asarray(jax.nn.softmax(extra["tokenizer"]), np.float64)
        codes = np.where(rng.random(200) < 0.8, 0, 3)
        images = np.stack([rng.choice(17, 16, p=p[c] / p[c].sum()) for c in codes])
        images = images.reshape(-1, 4, 4).astype(np.uint8)
        np.savez(root / "data.npz", image=images, levels=17)
        flags = (f"--config={root}/tiny.py", f"--config.data.name=npz:{root}/data.npz")
        assert rnngen("train", *flags, f"--workdir={root}/run") == 0
        yield root
    sys.modules.pop("rnngen_jax.models.staged_toy", None)


def test_what_is_frozen_stays_and_the_prior_learns(made):
    early, late = (rg.load(made / "run", step) for step in (20, 40))
    np.testing.assert_array_equal(early.extra["tokenizer"], late.extra["tokenizer"])
    assert np.abs(late.params["model"]["logits"]).max() > 0
    images, _ = late.dataset.splits["train"].read(np.arange(150))
    assert late.nats(images).mean() < early.nats(images).mean()
    # What there is to learn is how frequent each code is.
    codes = late.encode(images).reshape(-1).astype(int)
    np.testing.assert_array_equal(codes, early.encode(images).reshape(-1).astype(int))
    shares = np.bincount(codes, minlength=5) / len(codes)
    p = np.asarray(jax.nn.softmax(late.params["model"]["logits"]))
    assert p.argmax() == shares.argmax()
    record = evaluated(made / "run")
    assert record["protocol"]["likelihood"] == "two-stage bound"
    assert record["metrics"]["kl"] > 0


def test_samples_come_from_the_learned_prior(made):
    """The latents that `prior_sampler` gives are those that samples are drawn from."""
    run = rg.load(made / "run")
    draw = sampling.prior_sampler(run.model)
    latents = draw(run.params, run.extra, jax.random.key(3), 640, None, 1.0)
    p = np.asarray(jax.nn.softmax(run.params["model"]["logits"]))
    shares = np.bincount(latents.reshape(-1).astype(int), minlength=5) / 640
    np.testing.assert_allclose(shares, p, atol=4 * 0.5 / np.sqrt(640))
    images = run.sample(640, seed=3)
    expected = run.decode(latents)
    # Each image's mean is near to the mean of its code's distribution.
    error = images.mean((1, 2, 3)) / 16 - expected.mean((1, 2, 3))
    assert np.abs(error).mean() < 0.1


@pytest.mark.parametrize("num", [1, 4, 11])
def test_stages_are_coded_one_after_the_other(made, num):
    run = rg.load(made / "run")
    images = run.sample(num, seed=5)
    encoder, decoder = (codec.coder(run.model, run.params, run.extra, 4) for _ in range(2))
    streams = encoder.encode(images, None)
    back, _ = decoder.decode(streams, num, codec.digests(images, None, 4))
    np.testing.assert_array_equal(back, images)
    bits = run.nats(images).sum() / math.log(2)
    coded = 8 * sum(map(len, streams))
    assert bits - 8 * len(streams) <= coded <= 1.01 * bits + 64 * len(streams)
    two = codec.coder(run.model, run.params, run.extra, 4, jax.devices()[:2])
    assert two.encode(images, None) == streams
    np.testing.assert_array_equal(two.decode(streams, num)[0], images)


def test_the_verbs_compress_and_give_back(made, tmp_path):
    run = f"--workdir={made}/run"
    assert rnngen("compress", run, "--num=9", f"--out={tmp_path}/a.rnn") == 0
    files = (f"--input={tmp_path}/a.rnn", f"--out={tmp_path}/a.npz")
    assert rnngen("decompress", run, *files) == 0
    opened = rg.load(made / "run")
    images, _ = opened.dataset.splits["test"].read(np.arange(9))
    with np.load(tmp_path / "a.npz") as arrays:
        np.testing.assert_array_equal(arrays["image"], images)


def test_its_programs_compile_for_eight_devices_and_what_is_frozen_stays_there(made, tmp_path):
    """Training step, evaluation and sampler: a device's work, and what crosses the network."""
    given = (f"--config={made}/tiny.py", "--items=4,4,1,17,0,200", "--topology=cpu:8")
    assert rnngen("compile", *given, f"--out={tmp_path}/pod.json") == 0
    found = json.loads((tmp_path / "pod.json").read_text())["programs"]
    assert set(found) == {"train", "evaluate", "sample"}
    for each in found.values():
        assert each["flops_per_device"] == pytest.approx(each["flops_one_device"], rel=0.02)
        assert each["unknown_loops"] == 0
    crossing = found["train"]["collectives"]
    # The prior's 5 logits, the loss and its metric, but none of the tokenizer's 85 numbers.
    assert crossing == {"all-reduce": {"count": 1, "bytes": 4 * (5 + 2)}}
    assert found["evaluate"]["collectives"] == found["sample"]["collectives"] == {}
