"""DRAW."""

from rnngen_jax import experiment
from rnngen_jax.errors import UserError

PRESETS = ("digits", "binary_mnist", "binary_mnist_no_attention")


def get_config(arg: str = "digits"):
    if arg not in PRESETS:
        raise UserError(f"draw.py:{arg} is not a preset; allowed: {', '.join(PRESETS)}.")
    config = experiment.default("draw")
    config.model.features = 128
    config.model.steps = 8
    config.model.latents = 8
    config.model.read_size = config.model.write_size = 4
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 2e-3
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_steps = 50
    config.optimizer.weight_decay = 0.1
    config.optimizer.clip_norm = 0.1
    config.training.steps = 2000
    config.training.ema_decay = 0.99
    if arg == "digits":
        return config
    config.data.name = "idx:datasets/mnist"
    config.data.binarisation = "static"
    config.data.validation_fraction = 1 / 6  # the last 10,000 of 60,000 images
    config.model.readout = "bernoulli"
    config.model.features = 256
    config.model.steps = 16
    config.model.latents = 32
    config.model.read_size = config.model.write_size = 5
    config.optimizer.weight_decay = 0.01
    config.training.batch_size = 64
    config.training.steps = 20000
    config.training.log_every = config.training.validate_every = 500
    config.training.checkpoint_every = config.training.sample_every = 5000
    config.evaluation.num_images = 2000
    if arg == "binary_mnist_no_attention":
        config.model.read_size = config.model.write_size = 0
    return config
