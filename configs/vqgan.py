"""VQ-GAN: a VQ-VAE whose reconstructions a discriminator and a trained classifier judge.

    rnngen train --config=configs/vqgan.py --workdir=runs/vqgan
        one CPU core, 3 min with other jobs running; at most 2.517 ± 0.015 bits per dimension,
        perplexity 7.4 of 8 codes

    rnngen train --config=configs/vqgan.py:mnist --workdir=runs/vqgan_mnist
        one CPU core, min not measured; not run: bits per dimension, 256 levels

    rnngen train --config=configs/vqgan.py:fashion_mnist --workdir=runs/vqgan_fashion
        one CPU core, min not measured; not run: bits per dimension, 256 levels

    rnngen train --config=configs/vqgan.py:cifar10 --workdir=runs/vqgan_cifar
        one GPU, min not measured; not run: bits per dimension; needs CIFAR-10 from TFDS

    rnngen train --config=configs/vqgan.py:folder --workdir=runs/my_vqgan
        one CPU core, min not measured; not run: bits per dimension; with
        --config.data.name=folder:FOLDER

With a classifier of the same images (configs/classifier.py), --config.perceptual=RUN and
--config.model.perceptual_weight=1.0 add the perceptual loss. Figures are from `rnngen evaluate` on
the test split: bounds, with all codes equally likely. Train a prior over the codes with
configs/code_rnn.py and --config.tokenizer=RUN.

`--config=vqgan` names this file in any folder.
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
    recipes.opponent(config, start=300 if digits else 500)
    return config
