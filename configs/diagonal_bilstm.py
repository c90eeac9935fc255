"""Diagonal BiLSTM: two recurrences over diagonals (van den Oord et al. 2016).

    rnngen train --config=configs/diagonal_bilstm.py --workdir=runs/diagonal_bilstm
        one CPU core, 2 min; 1.720 ± 0.004 bits per dimension (seeds 0 to 2)

    rnngen train --config=configs/diagonal_bilstm.py:binary_mnist --workdir=runs/diagonal_mnist
        one CPU core, 52 min; 81.27 ± 0.20 nats per image (over images), static binarisation

    rnngen train --config=configs/diagonal_bilstm.py:cifar10 --workdir=runs/cifar10
        for a GPU; not run yet: no time in min and no figure in bits per dimension. TFDS
        prepares the data: `tfds build cifar10 --file_format=array_record`

Figures are from `rnngen evaluate` on the test split.

`--config=diagonal_bilstm` names this file in any folder.
"""

from rnngen_jax import recipes

PRESETS = ("digits", "binary_mnist", "cifar10")


def get_config(arg: str = "digits"):
    config = recipes.begin("diagonal_bilstm", arg, PRESETS)
    recipes.grid(config)
    if arg == "digits":
        return config

    config.model.dropout = 0.0
    config.optimizer.learning_rate = 5e-3
    config.training.batch_size = 32
    config.evaluation.num_images = 1000
    if arg == "binary_mnist":
        recipes.idx(config, arg)
        config.model.layers = 1
        recipes.train_for(config, 12000)
        config.training.ema_decay = 0.999
        recipes.every(config, lines=500, pictures=1000)
        return config
    config.data.update(name="tfds:cifar10", validation_fraction=0.1, flip=True)
    config.model.update(features=96, layers=6, readout="logistic_mixture", mixtures=10, remat=8)
    config.optimizer.learning_rate = 1e-3
    recipes.train_for(config, 100_000, warmup=1000)
    config.training.update(ema_decay=0.999, log_every=100)
    config.training.validate_every = config.training.checkpoint_every = 2000
    config.training.sample_every = 10_000
    return config
