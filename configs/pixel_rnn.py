"""Pixel RNN: one pixel per time step, any cell, sampled pixel by pixel.

    rnngen train --config=configs/pixel_rnn.py --workdir=runs/digits
        one CPU core, 1.2 min; 1.753 ± 0.005 bits per dimension (seeds 0 to 2)

    rnngen train --config=configs/pixel_rnn.py:binary_mnist --workdir=runs/pixel_binary_mnist
        one CPU core, 5 min; 91.46 nats per image, 0.168 bits per dimension, static binarisation

Figures are from `rnngen evaluate` on the test split.

`--config=pixel_rnn` names this file in any folder.
"""

from rnngen_jax import recipes

PRESETS = ("digits", "binary_mnist")


def get_config(arg: str = "digits"):
    config = recipes.begin("pixel_rnn", arg, PRESETS)
    config.model.update(pixels="scalar", dropout=0.3)
    recipes.adamw(config, learning_rate=5e-3, steps=1000)
    if arg == "digits":
        return config
    recipes.idx(config, arg)
    config.model.update(above=2, dropout=0.0)
    recipes.train_for(config, 400)
    recipes.every(config, lines=100, pictures=200)
    return config
