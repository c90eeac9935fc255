"""PixelCNN, the convolutional baseline; gated with the preset `gated`.

    rnngen train --config=configs/pixel_cnn.py --workdir=runs/pixel_cnn
        one CPU core, 0.7 min; 1.772 ± 0.003 bits per dimension (seeds 0 to 2)

    rnngen train --config=configs/pixel_cnn.py:gated --workdir=runs/gated_pixel_cnn
        one CPU core, 2.3 min; 1.758 ± 0.003 bits per dimension (seeds 0 to 2)

The figures are what `rnngen evaluate` then gives on the test split of the digits.
"""

from rnngen_jax import experiment
from rnngen_jax.errors import UserError

PRESETS = ("digits", "gated")


def get_config(arg: str = "digits"):
    if arg not in PRESETS:
        raise UserError(f"pixel_cnn.py:{arg} is not a preset; allowed: {', '.join(PRESETS)}.")
    config = experiment.default("pixel_cnn")
    config.model.features = 32
    config.model.layers = 2
    config.model.gated = arg == "gated"
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
