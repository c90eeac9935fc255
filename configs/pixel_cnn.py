"""PixelCNN, the convolutional baseline; preset `gated` is Gated PixelCNN.

    rnngen train --config=configs/pixel_cnn.py --workdir=runs/pixel_cnn
        one CPU core, 0.7 min; 1.772 ± 0.003 bits per dimension (seeds 0 to 2)

    rnngen train --config=configs/pixel_cnn.py:gated --workdir=runs/gated_pixel_cnn
        one CPU core, 2.3 min; 1.758 ± 0.003 bits per dimension (seeds 0 to 2)

Figures are from `rnngen evaluate` on the test split of the digits.

`--config=pixel_cnn` names this file in any folder.
"""

from rnngen_jax import recipes

PRESETS = ("digits", "gated")


def get_config(arg: str = "digits"):
    config = recipes.begin("pixel_cnn", arg, PRESETS)
    recipes.grid(config)
    config.model.gated = arg == "gated"
    return config
