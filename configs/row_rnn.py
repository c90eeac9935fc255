"""Row RNN: one row per time step, with independent or autoregressive pixels within a row.

    rnngen train --config=configs/row_rnn.py --workdir=runs/rows
        one CPU core, 0.4 min; 1.983 ± 0.003 bits per dimension (seeds 0 to 2)

    rnngen train --config=configs/row_rnn.py:digits_autoregressive --workdir=runs/along
        one CPU core, 1.3 min; 1.750 ± 0.002 bits per dimension (seeds 0 to 2)

    rnngen train --config=configs/row_rnn.py:binary_mnist --workdir=runs/binary_mnist
        one CPU core, 9 min; 87.73 nats per image, 0.161 bits per dimension, static binarisation

    rnngen train --config=configs/row_rnn.py:mnist --workdir=runs/mnist
        one CPU core, 9 min; 740 nats per image, 1.362 bits per dimension, 256 levels

    rnngen train --config=configs/row_rnn.py:binary_fashion_mnist --workdir=runs/binary_fashion
        one CPU core, 8 min; 235.9 nats per image, 0.434 bits per dimension, static binarisation

    rnngen train --config=configs/row_rnn.py:fashion_mnist --workdir=runs/fashion_mnist
        one CPU core, 9 min; 1884 nats per image, 3.466 bits per dimension, 256 levels

Figures are from `rnngen evaluate` on the test split.

`--config=row_rnn` names this file in any folder.
"""

from rnngen_jax import recipes

DIGITS = ("digits", "digits_autoregressive")
PRESETS = (*DIGITS, "binary_mnist", "mnist", "binary_fashion_mnist", "fashion_mnist")


def get_config(arg: str = "digits"):
    config = recipes.begin("row_rnn", arg, PRESETS)
    config.model.update(input_features=64, pixels="scalar", dropout=0.4)
    recipes.adamw(config, learning_rate=5e-3, steps=1000)
    if arg == "digits":
        return config
    config.model.update(within="autoregressive", within_features=96)
    if arg in DIGITS:
        return config

    recipes.idx(config, arg)
    config.model.update(features=256, input_features=256, dropout=0.0)
    recipes.train_for(config, 600)
    recipes.every(config, lines=100, pictures=300)
    return config
