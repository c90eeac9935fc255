"""VQ-GAN: a VQ-VAE whose reconstructions a discriminator and a trained classifier judge.

rnngen train --config=configs/vqgan.py --workdir=runs/vqgan
    one CPU core, min not measured; not run: bits per dimension
"""

from rnngen_jax import recipes

PRESETS = ("digits", "mnist", "fashion_mnist", "cifar10", "folder")


def get_config(arg: str = "digits"):
    config = recipes.begin("vqgan", arg, PRESETS)
    digits = arg == "digits"
    recipes.codebook(config.model, arg)
    recipes.coded_data(config, arg)
    recipes.adamw(config, learning_rate=2e-3, steps=1000 if digits else 1500)
    config.optimizer.weight_decay = 0.01
    recipes.opponent(config, start=300)
    return config
