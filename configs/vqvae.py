"""VQ-VAE: images as grids of codes, with any quantiser.

    rnngen train --config=configs/vqvae.py --workdir=runs/vqvae
        one CPU core, 1 min with other jobs running; at most 2.409 ± 0.015 bits per dimension,
        perplexity 7.3 of 8 codes

    rnngen train --config=configs/vqvae.py:mnist --workdir=runs/vqvae_mnist
        one CPU core, 11 min with other jobs running; at most 844.7 ± 1.6 nats per image, 1.554 bits
        per dimension, 256 levels; perplexity 45.7 of 64 codes

    rnngen train --config=configs/vqvae.py:fashion_mnist --workdir=runs/vqvae_fashion
        one CPU core, min not measured; not run: bits per dimension, 256 levels

    rnngen train --config=configs/vqvae.py:cifar10 --workdir=runs/vqvae_cifar
        one GPU, min not measured; not run: bits per dimension; needs CIFAR-10 from TFDS

    rnngen train --config=configs/vqvae.py:folder --workdir=runs/my_vqvae
        one CPU core, min not measured; not run: bits per dimension; with
        --config.data.name=folder:FOLDER

    rnngen train --config=configs/vqvae.py:digits_two_levels --workdir=runs/vqvae2
        one CPU core, 4 min with other jobs running; at most 2.463 ± 0.015 bits per dimension,
        perplexity 7.6 of 8 codes at the top and 7.8 at the bottom

    rnngen train --config=configs/vqvae.py:mnist_two_levels --workdir=runs/vqvae2_mnist
        one CPU core, min not measured; not run: bits per dimension, 256 levels

Figures are from `rnngen evaluate` on the test split: bounds, with all codes equally likely. Train a
prior over the codes with configs/code_rnn.py and --config.tokenizer=RUN.

`--config=vqvae` names this file in any folder.
"""

from rnngen_jax import recipes

TWO = ("digits_two_levels", "mnist_two_levels")
PRESETS = ("digits", "mnist", "fashion_mnist", "cifar10", "folder", *TWO)


def get_config(arg: str = "digits"):
    config = recipes.begin("vqvae", arg, PRESETS)
    recipes.codebook(config.model, arg)
    recipes.coded_data(config, arg)
    recipes.adamw(config, learning_rate=2e-3, steps=1000 if arg.startswith("digits") else 1500)
    config.optimizer.weight_decay = 0.01
    return config
