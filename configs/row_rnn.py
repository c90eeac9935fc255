"""Row RNN: each row one time step; its values independent given the rows above, or not.

    rnngen train --config=configs/row_rnn.py --workdir=runs/rows
        one CPU core, 0.4 min; 1.983 ± 0.003 bits per dimension (seeds 0 to 2)

    rnngen train --config=configs/row_rnn.py:digits_autoregressive --workdir=runs/along
        one CPU core, 1.3 min; 1.750 ± 0.002 bits per dimension (seeds 0 to 2)

    rnngen train --config=configs/row_rnn.py:binary_mnist --workdir=runs/binary_mnist
        one CPU core, 9 min; 87.73 nats per image, 0.161 bits per dimension, static binarisation

    rnngen train --config=configs/row_rnn.py:mnist --workdir=runs/mnist
        one CPU core, 9 min; 740 nats per image, 1.362 bits per dimension, 256 levels

    rnngen train --config=configs/row_rnn.py:binary_fashion_mnist --workdir=runs/binary_fashion
        one CPU core, 8 min; 235.9 nats per image, 0.434 bits per dimension, static binarisation

    rnngen train --config=configs/row_rnn.py:fashion_mnist --workdir=runs/fashion_mnist
        one CPU core, 9 min; 1884 nats per image, 3.466 bits per dimension, 256 levels

The figures are what `rnngen evaluate` then gives on the test split.
"""

from rnngen_jax import experiment
from rnngen_jax.errors import UserError

PRESETS = (
    "digits",
    "digits_autoregressive",
    "binary_mnist",
    "mnist",
    "binary_fashion_mnist",
    "fashion_mnist",
)


def get_config(arg: str = "digits"):
    if arg not in PRESETS:
        raise UserError(f"row_rnn.py:{arg} is not a preset; allowed: {', '.join(PRESETS)}.")
    config = experiment.default("row_rnn")
    config.model.cell = "gru"
    config.model.features = 128
    config.model.input_features = 64
    config.model.pixels = "scalar"
    config.model.dropout = 0.4
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 5e-3
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_steps = 50
    config.optimizer.weight_decay = 0.1
    config.optimizer.clip_norm = 1.0
    config.training.steps = 1000
    config.training.ema_decay = 0.99
    if arg == "digits":
        return config
    config.model.within = "autoregressive"
    config.model.within_features = 96
    if arg == "digits_autoregressive":
        return config

    config.data.name = f"idx:datasets/{arg.removeprefix('binary_')}"
    config.data.validation_fraction = 1 / 6  # the last 10,000 of 60,000 images
    config.model.features = 256
    config.model.input_features = 256
    config.model.dropout = 0.0
    config.training.steps = 600
    config.training.log_every = config.training.validate_every = 100
    config.training.checkpoint_every = config.training.sample_every = 300
    config.evaluation.num_images = 1000
    if arg.startswith("binary_"):
        config.data.binarisation = "static"
        config.model.readout = "bernoulli"
    else:
        config.model.readout = "logistic_mixture"
        config.model.mixtures = 10
    return config
