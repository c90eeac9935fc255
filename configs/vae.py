"""Variational autoencoder."""

from rnngen_jax import experiment
from rnngen_jax.errors import UserError

PRESETS = ("digits", "binary_mnist")


def get_config(arg: str = "digits"):
    if arg not in PRESETS:
        raise UserError(f"vae.py:{arg} is not a preset; allowed: {', '.join(PRESETS)}.")
    config = experiment.default("vae")
    config.model.latents = 16
    config.model.features = 32
    config.model.kernel = 4
    config.model.hidden = 256
    config.model.dropout = 0.2
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 2e-3
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_steps = 50
    config.optimizer.weight_decay = 0.1
    config.training.steps = 2000
    config.training.ema_decay = 0.99
    if arg == "digits":
        return config
    config.data.name = "idx:datasets/mnist"
    config.data.binarisation = "static"
    config.data.validation_fraction = 1 / 6  # the last 10,000 of 60,000 images
    config.model.readout = "bernoulli"
    config.model.latents = 40
    config.model.features = 24
    config.model.hidden = 400
    config.model.dropout = 0.1
    config.optimizer.weight_decay = 0.01
    config.training.batch_size = 128
    config.training.steps = 24000
    config.training.log_every = config.training.validate_every = 500
    config.training.checkpoint_every = config.training.sample_every = 6000
    config.evaluation.num_images = 2000
    return config
