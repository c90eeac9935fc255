"""Row LSTM: a convolutional recurrence over rows (van den Oord et al. 2016).

    rnngen train --config=configs/row_lstm.py --workdir=runs/row_lstm
        one CPU core, 1.3 min; 1.726 ± 0.002 bits per dimension (seeds 0 to 2)

    rnngen train --config=configs/row_lstm.py:binary_mnist --workdir=runs/row_static
        one CPU core, 10 min; 87.09 nats per image, 0.160 bits per dimension, static binarisation

    rnngen train --config=configs/row_lstm.py:dynamic_mnist --workdir=runs/row_dynamic
        one CPU core, 11 min; 87.10 nats per image, 0.160 bits per dimension, dynamic binarisation

    rnngen train --config=configs/row_lstm.py:threshold_mnist --workdir=runs/row_threshold
        one CPU core, 11 min; 63.15 nats per image, 0.116 bits per dimension, thresholded at half
        brightness

    rnngen train --config=configs/row_lstm.py:mnist --workdir=runs/row_mnist
        one CPU core, 11 min; 637 nats per image, 1.173 bits per dimension, 256 levels

    rnngen train --config=configs/row_lstm.py:fashion_mnist --workdir=runs/row_fashion
        one CPU core, 11 min; 1642 nats per image, 3.021 bits per dimension, 256 levels

    rnngen train --config=configs/row_lstm.py:folder --workdir=runs/my_row_lstm
        one CPU core, 17 min with other jobs running; 3.395 ± 0.048 bits per dimension on 646 tiles
        of 32x32 pixels from the two colour photographs that scikit-learn ships (4.1 as PNG and 3.4
        as WebP, one file per tile); with --config.data.name=folder:FOLDER

Figures are from `rnngen evaluate` on the test split. Those on 28×28 images are after one epoch, not
converged.

`--config=row_lstm` names this file in any folder.
"""

from rnngen_jax import recipes

BINARY = ("binary_mnist", "dynamic_mnist", "threshold_mnist")
PRESETS = ("digits", *BINARY, "mnist", "fashion_mnist", "folder")


def get_config(arg: str = "digits"):
    config = recipes.begin("row_lstm", arg, PRESETS)
    recipes.grid(config)
    if arg == "digits":
        return config

    recipes.train_for(config, 1500)
    recipes.every(config, lines=250, pictures=500)
    config.model.dropout = 0.0
    config.optimizer.learning_rate = 5e-3
    config.training.batch_size = 32
    if arg == "folder":
        recipes.folder(config)
        config.model.update(readout="logistic_mixture", mixtures=5)
        config.training.batch_size = 16
    else:
        recipes.idx(config, arg)
    return config
