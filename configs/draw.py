"""DRAW: a recurrent VAE that draws an image step by step, with attention or without.

    rnngen train --config=configs/draw.py --workdir=runs/draw
        one CPU core, 2 min; at most 2.171 bits per dimension, IW-100 2.131 (without attention, with
        --config.model.read_size=0 --config.model.write_size=0, at most 2.092, IW-100 2.039)

    rnngen train --config=configs/draw.py:binary_mnist --workdir=runs/draw_binary
        one CPU core, 24 min; at most 87.69 nats per image, static binarisation

    rnngen train --config=configs/draw.py:binary_mnist_whole --workdir=runs/draw_whole
        one CPU core, 41 min; at most 91.06 nats per image, static binarisation (measured when the
        first canvas still learned more slowly, which without attention makes no difference on
        digits)

    rnngen train --config=configs/draw.py:fashion_mnist --workdir=runs/draw_fashion
        one CPU core, 34 min; with --config.training.steps=6000 (20 min) at most 1935.3 nats per
        image, 256 levels

    rnngen train --config=configs/draw.py:paper --workdir=runs/draw_paper
        for a GPU; not run yet: no time in min and no figure in nats

Figures are from `rnngen evaluate` on the test split: ELBOs, which are lower bounds; IW-K is from
`--iw_samples=K`.

Runs shorter than the preset used --config.optimizer.warmup_steps=50.

`--config=draw` names this file in any folder.
"""

from rnngen_jax import recipes

PRESETS = ("digits", "binary_mnist", "binary_mnist_whole", "fashion_mnist", "paper")


def get_config(arg: str = "digits"):
    config = recipes.begin("draw", arg, PRESETS)
    config.model.update(features=128, steps=8, latents=8)
    config.model.read_size = config.model.write_size = 4
    recipes.adamw(config, learning_rate=2e-3, steps=1000)
    if arg == "digits":
        return config

    recipes.idx(config, "fashion_mnist" if arg == "fashion_mnist" else "binary_mnist", mixtures=1)
    config.model.update(features=256, steps=16, latents=32)
    config.model.read_size = config.model.write_size = 5
    config.optimizer.update(weight_decay=0.01, clip_norm=0.1)
    recipes.train_for(config, 10_000)
    recipes.every(config, lines=500, pictures=5000)
    if arg == "fashion_mnist":  # clothes fill the image and have textures
        config.model.read_size = config.model.write_size = 12
    if arg == "binary_mnist_whole":  # reads and writes the whole image at every step
        config.model.read_size = config.model.write_size = 0
    if arg == "paper":  # Gregor et al. 2015, table 3
        config.model.update(steps=64, latents=100, read_size=2)
        recipes.train_for(config, 250_000)
        recipes.every(config, lines=1000, pictures=10_000)
    return config
