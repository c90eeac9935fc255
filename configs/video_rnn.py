"""Video RNN: one frame per time step; images that move, 10 frames given and 10 to predict.

    rnngen train --config=configs/video_rnn.py --workdir=runs/video
        two CPU cores, 18 min with other jobs running; 122.1 nats per frame (0.688 bits per
        dimension), squared error of 10 predicted frames 8.54 where the last given frame's is 20.30

    rnngen train --config=configs/video_rnn.py:two_digits --workdir=runs/two_digits
        not run; two CPU cores, 5 min; nats per frame of two digits at once

    rnngen train --config=configs/video_rnn.py:mnist --workdir=runs/moving_mnist
        not run; two CPU cores, 60 min; nats per frame of one digit on 32x32

    rnngen train --config=configs/video_rnn.py:two_mnist --workdir=runs/two_mnist
        not run; two CPU cores, 120 min; nats per frame of two digits on 32x32

    rnngen train --config=configs/video_rnn.py:mnist_64 --workdir=runs/mnist_64
        not run; two CPU cores, 120 min; nats per frame of one digit on 64x64

    rnngen train --config=configs/video_rnn.py:two_mnist_64 --workdir=runs/two_mnist_64
        not run; two CPU cores, 120 min; the cross-entropy of Moving MNIST, nats per frame

    rnngen train --config=configs/video_rnn.py:fashion_mnist --workdir=runs/moving_fashion
        not run; two CPU cores, 60 min; nats per frame of one garment on 32x32

`two_mnist_64` is Moving MNIST (Srivastava et al. 2015); its training minimises the cross-entropy
with grey levels as probabilities, as the published figures do, and so has no likelihood.

`--config=video_rnn` names this file in any folder.
"""

from rnngen_jax import recipes

DIGITS = ("digits", "two_digits")
PRESETS = (*DIGITS, "mnist", "two_mnist", "mnist_64", "two_mnist_64", "fashion_mnist")


def get_config(arg: str = "digits"):
    config = recipes.begin("video_rnn", arg, PRESETS)
    config.data.objects = 2 if arg.startswith("two_") else 1
    config.model.update(cell="conv_lstm", maps=True, features=32, layers=2)
    recipes.adamw(config, learning_rate=4e-3, steps=1500)
    config.optimizer.update(weight_decay=0.01, b2=0.99)
    config.training.batch_size = 8
    if arg in DIGITS:
        config.data.name = "moving:digits"
        config.model.update(encoder="patches:size=2", feeding="scheduled:steps=300,context=10")
        recipes.every(config, lines=100, pictures=500)
        config.evaluation.num_images = 200
        return config

    images = "fashion_mnist" if arg.startswith("fashion") else "mnist"
    config.data.name = f"moving:idx:datasets/{images}"
    config.data.validation_fraction = 1 / 6
    config.data.canvas = 64 if arg.endswith("_64") else 32
    config.model.encoder = "patches:size=4"
    if arg == "two_mnist_64":
        config.model.objective = "cross_entropy"
    else:
        config.model.update(readout="logistic_mixture", mixtures=3)
    config.model.feeding = "scheduled:steps=10000,context=10"
    recipes.train_for(config, 10000)
    recipes.every(config, lines=250, pictures=1000)
    config.evaluation.num_images = 200
    return config
