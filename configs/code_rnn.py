"""Code RNN: a recurrent prior over the codes of a VQ-VAE, which makes it generate.

    rnngen train --config=configs/code_rnn.py --workdir=runs/codes
        one CPU core, 3 min for both stages with other jobs running; at most 2.080 ± 0.009 bits per
        dimension, 2.388 under a unigram prior; mean ± standard error over seeds 0, 1 and 2

    rnngen train --config=configs/code_rnn.py:mnist --workdir=runs/codes_mnist
        one CPU core, 20 min for both stages with other jobs running; at most 715.8 ± 1.7 nats per
        image, 1.317 bits per dimension, 256 levels; 1.524 under a unigram prior

    rnngen train --config=configs/code_rnn.py:fashion_mnist --workdir=runs/codes_fashion
        one CPU core, 20 min for both stages with other jobs running; at most 1907.0 ± 5.3 nats per
        image, 3.509 bits per dimension, 256 levels; 3.693 under a unigram prior

    rnngen train --config=configs/code_rnn.py:cifar10 --workdir=runs/codes_cifar
        one GPU, min not measured; not run: bits per dimension; needs CIFAR-10 from TFDS

    rnngen train --config=configs/code_rnn.py:folder --workdir=runs/my_codes
        one CPU core, min not measured; not run: bits per dimension; with
        --config.data.name=folder:FOLDER

    rnngen train --config=configs/code_rnn.py:digits_two_levels --workdir=runs/codes2
        one CPU core, 8 min for both stages with other jobs running; at most 2.211 ± 0.018 bits per
        dimension, 2.449 under a unigram prior; two levels of codes, seed 0

    rnngen train --config=configs/code_rnn.py:mnist_two_levels --workdir=runs/codes2_mnist
        one CPU core, min not measured; not run: bits per dimension, 256 levels

Without a tokenizer, one is trained first in WORKDIR/tokenizer, with config.vqvae and as many steps.
--config.tokenizer=RUN takes a run of configs/vqvae.py on the same data. Either way the tokenizer is
kept in the checkpoints, which need its folder no more.

Figures are from `rnngen evaluate` on the test split: bounds, under this prior.

`--config=code_rnn` names this file in any folder.
"""

from rnngen_jax import recipes

TWO = ("digits_two_levels", "mnist_two_levels")
PRESETS = ("digits", "mnist", "fashion_mnist", "cifar10", "folder", *TWO)


def get_config(arg: str = "digits"):
    config = recipes.begin("code_rnn", arg, PRESETS)
    recipes.codebook(config.vqvae, arg)
    recipes.coded_data(config, arg)
    recipes.adamw(config, learning_rate=2e-3, steps=1000 if arg.startswith("digits") else 1500)
    config.optimizer.weight_decay = 0.01
    config.model.dropout = 0.3 if arg.startswith("digits") else 0.0
    return config
