"""DCGAN: transposed convolutions against convolutions, sized from the image.

    rnngen train --config=configs/dcgan.py --workdir=runs/dcgan
        one CPU core, 3 min; Fréchet 4.54 of 1,000 samples, real images 3.70 (mean of 3 seeds,
        standard error 0.47)

    rnngen train --config=configs/dcgan.py:folder --workdir=runs/my_dcgan
        two CPU cores, about 10 min of 32x32 tiles; no Fréchet distance without a classifier of the
        same images; with --config.data.name=folder:FOLDER

    rnngen train --config=configs/dcgan.py:mnist --workdir=runs/dcgan_mnist
        one CPU core, about 45 min; Fréchet 205 of 5,000 samples, real images 6.8

    rnngen train --config=configs/dcgan.py:fashion_mnist --workdir=runs/dcgan_fashion
        one CPU core, about 45 min; Fréchet 172 of 5,000 samples, real images 3.8

Fréchet distances are in the features of a classifier of the same data (configs/classifier.py),
samples against the test split, from `rnngen evaluate --classifier=FOLDER --samples=NUMBER`. They
are not comparable with other distances.

`--config=dcgan` names this file in any folder.
"""

from rnngen_jax import recipes

PRESETS = ("digits", "mnist", "fashion_mnist", "folder")


def get_config(arg: str = "digits"):
    config = recipes.begin("dcgan", arg, PRESETS)
    recipes.adversarial(config, arg, steps=5000)
    if arg == "digits":
        config.model.stages = 2
    if arg == "folder":
        config.model.features = 32
        config.training.update(batch_size=32, steps=4000)
    return config
