"""Variational autoencoder: a convolutional encoder and decoder.

    rnngen train --config=configs/vae.py --workdir=runs/vae
        one CPU core, 1 min; at most 2.018 bits per dimension, IW-1000 1.951

    rnngen train --config=configs/vae.py:learned_prior --workdir=runs/vae_prior
        one CPU core, min not measured; not run: bits per dimension; a recurrent prior over the
        latents, trained with the model

    rnngen train --config=configs/vae.py:binary_mnist --workdir=runs/vae_binary
        one CPU core, 20 min; at most 92.39 nats per image, static binarisation; IW-1000 86.2 on
        the first 1,000 images

    rnngen train --config=configs/vae.py:mnist --workdir=runs/vae_mnist
        one CPU core, about 25 min; with --config.training.steps=3000 (6 min) at most 772.2 nats per
        image, 256 levels

    rnngen train --config=configs/vae.py:fashion_mnist --workdir=runs/vae_fashion
        one CPU core, about 25 min; with --config.training.steps=3000 (6 min) at most 1885.5 nats
        per image, 256 levels

    rnngen train --config=configs/vae.py:folder --workdir=runs/my_vae
        one CPU core, 10 min with other jobs running; at most 5.417 ± 0.083 bits per dimension on
        the tiles of configs/row_lstm.py:folder, reconstructed with a squared error of 0.0043; with
        --config.data.name=folder:FOLDER

`--config=vae` names this file in any folder.

Figures are from `rnngen evaluate` on the test split: ELBOs, which are lower bounds; IW-K is from
`--iw_samples=K`. Runs shorter than the preset used --config.optimizer.warmup_steps=50.
"""

from rnngen_jax import recipes

DIGITS = ("digits", "learned_prior")
PRESETS = (*DIGITS, "binary_mnist", "mnist", "fashion_mnist", "folder")


def get_config(arg: str = "digits"):
    config = recipes.begin("vae", arg, PRESETS)
    config.model.update(latents=16, dropout=0.2)
    recipes.adamw(config, learning_rate=2e-3, steps=1000)
    if arg == "learned_prior":
        config.model.prior = "recurrent"
    if arg in DIGITS:
        return config

    config.model.dropout = 0.0
    config.optimizer.weight_decay = 0.01
    if arg == "folder":
        recipes.folder(config)
        config.model.update(readout="logistic_mixture", latents=64)
        config.training.batch_size = 32
        recipes.train_for(config, 3000)
        recipes.every(config, lines=250, pictures=1000)
        return config
    recipes.idx(config, arg, mixtures=1)
    config.model.update(latents=40, features=24, hidden=400)
    config.training.batch_size = 100
    recipes.train_for(config, 12000)
    recipes.every(config, lines=500, pictures=2000)
    return config
