"""`digits`: the embedded UCI optical digits, 8×8 pixels, 17 grey levels, ten classes.

The 1,797 images are in a fixed random order, split into 1,297 for training, 200 for validation and
300 for testing. digits.LICENSE.md gives their origin.
"""

import importlib.resources

import numpy as np

from rnngen_jax.data.base import SPLITS, DataConfig
from rnngen_jax.data.source import Source, from_arrays, no_argument


def load_source(argument: str, config: DataConfig) -> Source:
    """The digits with their own three splits; `config.validation_fraction` is not used.

    Raises:
      UserError: an argument was given.
    """
    no_argument(argument, "digits")
    file = importlib.resources.files("rnngen_jax.data") / "digits.npz"
    with file.open("rb") as opened, np.load(opened, allow_pickle=False) as stored:
        arrays = {name: (stored[f"{name}_images"], stored[f"{name}_labels"]) for name in SPLITS}
    return from_arrays(arrays, levels=17, where="digits", classes=10)
