"""Pixel RNN: each pixel one time step, any cell, sampled pixel by pixel.

    rnngen train --config=configs/pixel_rnn.py --workdir=runs/digits
        one CPU core, 1.2 min; 1.753 ± 0.005 bits per dimension (seeds 0 to 2)

    rnngen train --config=configs/pixel_rnn.py:binary_mnist --workdir=runs/pixel_binary_mnist
        one CPU core, 5 min; 91.46 nats per image, 0.168 bits per dimension, static binarisation

The figures are what `rnngen evaluate` then gives on the test split.
"""

from rnngen_jax import experiment
from rnngen_jax.errors import UserError

PRESETS = ("digits", "binary_mnist")


def get_config(arg: str = "digits"):
    if arg not in PRESETS:
        raise UserError(f"pixel_rnn.py:{arg} is not a preset; allowed: {', '.join(PRESETS)}.")
    config = experiment.default("pixel_rnn")
    config.model.cell = "gru"
    config.model.features = 128
    config.model.input_features = 64
    config.model.pixels = "scalar"
    config.model.dropout = 0.3
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 5e-3
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_steps = 50
    config.optimizer.weight_decay = 0.1
    config.optimizer.clip_norm = 1.0
    config.training.steps = 1000
    config.training.ema_decay = 0.99
    if arg == "binary_mnist":
        config.data.name = "idx:datasets/mnist"
        config.data.binarisation = "static"
        config.data.validation_fraction = 1 / 6  # the last 10,000 of 60,000 images
        config.model.readout = "bernoulli"
        config.model.above = 2
        config.model.dropout = 0.0
        config.training.steps = 400
        config.training.log_every = config.training.validate_every = 100
        config.training.checkpoint_every = config.training.sample_every = 200
        config.evaluation.num_images = 1000
    return config
