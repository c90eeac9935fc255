"""Runs of a tiny config through the command line, for the tests of verbs."""

import json
import subprocess
import sys

from rnngen_jax import main

CONFIG = """
from rnngen_jax import experiment

def get_config(arg="pixel_rnn"):
    name, _, labels = arg.partition("-")
    config = experiment.default(name)
    config.model.features = 8
    config.model.class_conditional = labels == "labels"
    config.training.update(seed=3, steps=4, batch_size=8, steps_per_call=2, log_every=2)
    config.training.update(validate_every=4, checkpoint_every=4, sample_every=4, num_samples=4)
    config.evaluation.num_images = 20
    return config
"""

# Sizes of a model that change how much is computed, not what.
SIZES = {
    "features": 8,
    "layers": 1,
    "input_features": 8,
    "steps": 2,
    "latents": 2,
    "hidden": 8,
}


def sizes_of(name):
    """`SIZES` of a config by its file's name; presets over maps read no width of inputs."""
    return {k: v for k, v in SIZES.items() if (name, k) != ("video_rnn", "input_features")}


def rnngen(*arguments):
    return main.run(["rnngen", *map(str, arguments)])


def python(code):
    """Runs code in a process of its own, which must end well; its stdout."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def tree(folder):
    """Every file with its content."""
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def evaluated(workdir, *flags):
    """What `evaluate` writes of a run."""
    assert rnngen("evaluate", f"--workdir={workdir}", *flags) == 0
    return json.loads((workdir / "evaluation.json").read_text())
