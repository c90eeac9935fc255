"""MLP GAN: a generator and a discriminator of dense layers.

Fréchet distances are measured as in configs/dcgan.py.

    rnngen train --config=configs/mlp_gan.py --workdir=runs/mlp_gan
        one CPU core, 1 min; Fréchet 3.86 of 1,000 samples, real images 3.70 (mean of 3 seeds,
        standard error 0.40)

    rnngen train --config=configs/mlp_gan.py:mnist --workdir=runs/mlp_gan_mnist
        one CPU core, 7 min; Fréchet 221 of 5,000 samples, real images 6.8

    rnngen train --config=configs/mlp_gan.py:fashion_mnist --workdir=runs/mlp_gan_fashion
        one CPU core, 7 min; Fréchet 114 of 5,000 samples, real images 3.8

`--config=mlp_gan` names this file in any folder.
"""

from rnngen_jax import recipes

PRESETS = ("digits", "mnist", "fashion_mnist")


def get_config(arg: str = "digits"):
    return recipes.adversarial(recipes.begin("mlp_gan", arg, PRESETS), arg, steps=5000)
