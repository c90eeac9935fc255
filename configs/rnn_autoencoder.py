"""Recurrent autoencoder."""

from rnngen_jax import experiment
from rnngen_jax.errors import UserError

PRESETS = ("digits",)


def get_config(arg: str = "digits"):
    if arg not in PRESETS:
        raise UserError(f"rnn_autoencoder.py:{arg} is not a preset; allowed: {', '.join(PRESETS)}.")
    config = experiment.default("rnn_autoencoder")
    config.model.dropout = 0.2
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 3e-3
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_steps = 50
    config.optimizer.weight_decay = 0.1
    config.training.steps = 2000
    config.training.ema_decay = 0.99
    return config
