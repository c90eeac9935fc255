"""Runs of a tiny config through the command line, for the tests of verbs."""

import json

from rnngen_jax import main

CONFIG = """
from rnngen_jax import experiment

def get_config(arg="pixel_rnn"):
    name, _, labels = arg.partition("-")
    config = experiment.default(name)
    config.model.features = 8
    config.model.class_conditional = labels == "labels"
    config.training.seed = 3
    config.training.steps = 4
    config.training.batch_size = 8
    config.training.steps_per_call = 2
    config.training.log_every = 2
    config.training.validate_every = 4
    config.training.checkpoint_every = 4
    config.training.sample_every = 4
    config.training.num_samples = 4
    config.evaluation.num_images = 20
    return config
"""


def rnngen(*arguments):
    return main.run(["rnngen", *map(str, arguments)])


def tree(folder):
    """Every file with its content."""
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def evaluated(workdir, *flags):
    """What `evaluate` writes of a run."""
    assert rnngen("evaluate", f"--workdir={workdir}", *flags) == 0
    return json.loads((workdir / "evaluation.json").read_text())
