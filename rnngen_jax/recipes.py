"""Shared by config files: presets' names, recipes for small runs, and the IDX data sets.

The functions fill in a `ConfigDict`; a config's results are listed in its own file.
"""

from collections.abc import Sequence

from ml_collections import ConfigDict

from rnngen_jax import experiment
from rnngen_jax.config import nearest
from rnngen_jax.errors import UserError

# The first word of a preset's name; without any of these, images keep their 256 levels.
BINARISATIONS = {"binary": "static", "dynamic": "dynamic", "threshold": "threshold"}
TWO_LEVELS = "_two_levels"  # the end of a preset's name, of codes at two levels


def begin(model: str, preset: str, presets: Sequence[str]) -> ConfigDict:
    """The default config of a model, for a preset of its config file.

    Raises:
      UserError: `preset` is not one of `presets`.
    """
    if preset not in presets:
        raise UserError(f"{model}:{preset} is not a preset; {nearest(preset, presets)}")
    return experiment.default(model)


def adamw(config: ConfigDict, learning_rate: float, steps: int) -> None:
    """AdamW with decoupled decay, a short warm-up, a half cosine and averaged parameters.

    For thousands of steps on few images, which models would memorise without regularisation.
    """
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = learning_rate
    config.optimizer.schedule = "cosine"
    config.optimizer.weight_decay = 0.1
    config.optimizer.clip_norm = 1.0
    config.training.ema_decay = 0.99
    train_for(config, steps)


def grid(config: ConfigDict) -> None:
    """Two layers over the pixels' grid and AdamW, for the embedded digits."""
    config.model.update(features=32, layers=2, pixels="scalar", dropout=0.3)
    adamw(config, learning_rate=8e-3, steps=1000)


def train_for(config: ConfigDict, steps: int, warmup: int = 50) -> None:
    """Sets the steps and a warm-up of `warmup` steps, or of the same fraction of a shorter run."""
    config.training.steps = steps
    config.optimizer.warmup_fraction = warmup / steps


def idx_data(config: ConfigDict, preset: str) -> None:
    """MNIST or Fashion-MNIST: `[BINARISATION_]mnist|fashion_mnist`.

    Args:
      config: of any model.
      preset: names the data, such as "fashion_mnist" or "dynamic_mnist".
    """
    first, _, rest = preset.partition("_")
    binarised = first in BINARISATIONS
    config.data.name = f"idx:datasets/{rest if binarised else preset}"
    config.data.validation_fraction = 1 / 6  # the last 10,000 of 60,000 images
    if binarised:
        config.data.binarisation = BINARISATIONS[first]


def folder(config: ConfigDict) -> None:
    """The user's own colour images, from --config.data.name=folder:FOLDER.

    A tenth of the training images is for validation; training images are flipped at random.
    """
    config.data.name = "folder:datasets/images"
    config.data.validation_fraction = 0.1
    config.data.flip = True


def idx(config: ConfigDict, preset: str, mixtures: int = 10) -> None:
    """MNIST or Fashion-MNIST, as `idx_data`, and a suitable likelihood.

    Args:
      config: of a model with a field `readout`.
      preset: as for `idx_data`.
      mixtures: components of the logistic mixture over 256 levels.
    """
    idx_data(config, preset)
    if config.data.binarisation != "none":
        config.model.readout = "bernoulli"
    else:
        config.model.readout = "logistic_mixture"
        config.model.mixtures = mixtures


def every(config: ConfigDict, lines: int, pictures: int) -> None:
    """Metrics and validation every `lines` steps, samples and a checkpoint every `pictures`.

    Validation uses 1,000 images.
    """
    config.training.log_every = config.training.validate_every = lines
    config.training.checkpoint_every = config.training.sample_every = pictures
    config.evaluation.num_images = 1000


def adversarial(config: ConfigDict, preset: str, steps: int) -> ConfigDict:
    """Two players with Adam (b1 = 0.5), R1 on real images, and averaged parameters.

    R1 keeps the discriminator's gradients small, so that learning rates several times those of
    Radford et al. (2016) are stable, even on few images.

    Args:
      config: of an adversarial model.
      preset: "digits", "folder", or as for `idx_data`.
      steps: on digits; 6,000 on others.

    Returns:
      The config.
    """
    digits = preset == "digits"
    if preset == "folder":
        folder(config)
    elif not digits:
        idx_data(config, preset)
    config.model.penalty = "r1"
    config.model.penalty_weight = 1.0
    for section in (config.optimizer, config.discriminator):
        section.learning_rate = 1e-3 if digits else 5e-4
        section.b1 = 0.5
    config.training.steps = steps if digits else 6000
    config.training.ema_decay = 0.999
    every(config, lines=500, pictures=1000)
    config.evaluation.num_images = 0
    return config


def codebook(section: ConfigDict, preset: str) -> None:
    """A VQ-VAE's encoder, codebook and decoder.

    Args:
      section: its fields: `config.model` of vqvae, or `config.vqvae` of code_rnn.
      preset: "digits", "mnist", "fashion_mnist", "cifar10" or "folder"; "DATA_two_levels" for a
        second, coarser grid of codes.
    """
    section.levels = 2 if preset.endswith(TWO_LEVELS) else 1
    preset = preset.removesuffix(TWO_LEVELS)
    if preset == "digits":
        section.quantiser = "codebook:codes=8"
        return
    section.update(readout="logistic_mixture", mixtures=3, stages=2)
    if preset in ("cifar10", "folder"):
        section.update(quantiser="codebook:codes=512", features=64, vectors=64, blocks=2)


def opponent(config: ConfigDict, start: int) -> None:
    """A discriminator of reconstructions, with R1 on real images as in `adversarial`.

    Args:
      config: of vqgan.
      start: steps that the decoder is trained without it.
    """
    config.model.update(penalty="r1", penalty_weight=1.0, adversarial_start=start)
    config.discriminator.update(learning_rate=1e-3, b1=0.5)


def coded_data(config: ConfigDict, preset: str) -> None:
    """The data of a preset of vqvae and code_rnn, batches, and cadences.

    Args:
      config: of either model.
      preset: as for `codebook`.
    """
    preset = preset.removesuffix(TWO_LEVELS)
    if preset == "digits":
        return
    if preset == "cifar10":
        config.data.update(name="tfds:cifar10", validation_fraction=0.1, flip=True)
    elif preset == "folder":
        folder(config)
    else:
        idx_data(config, preset)
    every(config, lines=250, pictures=1000)
