"""GRU-GAN: a recurrent cell over a sequence of noise, then convolutions, against convolutions.

    rnngen train --config=configs/gru_gan.py --workdir=runs/gru_gan
        one CPU core, 3 min; Fréchet 5.40 of 1,000 samples, real images 3.70 (mean of 3 seeds,
        standard error 0.35)

    rnngen train --config=configs/gru_gan.py:mnist --workdir=runs/gru_gan_mnist
        one CPU core, about 50 min; Fréchet 223 of 5,000 samples, real images 6.8

    rnngen train --config=configs/gru_gan.py:fashion_mnist --workdir=runs/gru_gan_fashion
        one CPU core, about 50 min; Fréchet 53 of 5,000 samples, real images 3.8

Fréchet distances are measured as in configs/dcgan.py.

`--config=gru_gan` names this file in any folder.
"""

from rnngen_jax import recipes

PRESETS = ("digits", "mnist", "fashion_mnist")


def get_config(arg: str = "digits"):
    config = recipes.begin("gru_gan", arg, PRESETS)
    recipes.adversarial(config, arg, steps=2000)
    config.model.channels = 32
    return config
