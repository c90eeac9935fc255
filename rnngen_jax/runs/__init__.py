"""Runs as a library: train, open, sample, complete, score and evaluate.

The verbs of the command line call it, as can notebooks and other programs:

    import rnngen_jax as rg

    run = rg.load("runs/digits")
    images = run.sample(64, seed=0)  # uint8 [64, 8, 8, 1]
    nats = run.nats(images)  # [64]
"""

from rnngen_jax.runs.evaluating import evaluate
from rnngen_jax.runs.run import Run, load, load_each
from rnngen_jax.runs.training import train
from rnngen_jax.training.outcomes import Outcome

__all__ = ["Outcome", "Run", "evaluate", "load", "load_each", "train"]
