"""Diagonal BiLSTM: two recurrences over diagonals (van den Oord et al. 2016).

    rnngen train --config=configs/diagonal_bilstm.py --workdir=runs/diagonal_bilstm
        one CPU core, 6 min; 1.719 bits per dimension

The figure is what `rnngen evaluate` then gives on the test split of the digits (seed 0; the
standard error over its 300 images is 0.014).
"""

from rnngen_jax import experiment
from rnngen_jax.errors import UserError

PRESETS = ("digits",)


def get_config(arg: str = "digits"):
    if arg not in PRESETS:
        raise UserError(f"diagonal_bilstm.py:{arg} is not a preset; allowed: {', '.join(PRESETS)}.")
    config = experiment.default("diagonal_bilstm")
    config.model.features = 32
    config.model.layers = 2
    config.model.pixels = "scalar"
    config.model.dropout = 0.3
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 8e-3
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_steps = 50
    config.optimizer.weight_decay = 0.1
    config.optimizer.clip_norm = 1.0
    config.training.steps = 1000
    config.training.ema_decay = 0.99
    return config
