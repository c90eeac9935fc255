"""The discriminator around a body: class conditioning and output heads."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from rnngen_jax import keys
from rnngen_jax.modules.dense import Dense
from rnngen_jax.modules.pixels import Table
from rnngen_jax.ops import dropout
from rnngen_jax.ops.gaussians import Gaussian


class Verdict(NamedTuple):
    """A discriminator's outputs.

    Attributes:
      score: the logit of being real, `[B]`.
      classes: logits of the class, `[B, K]`; `None` without an auxiliary classifier.
      codes: logits of InfoGAN's category, `[B, K]`, or `None`.
      traits: q of InfoGAN's continuous codes, over `[B, N]`, or `None`.
    """

    score: Array
    classes: Array | None
    codes: Array | None
    traits: Gaussian | None


class Discriminator(nn.Module):
    """A body that computes features, and linear heads.

    Attributes:
      body: `[B, H, W, C]` images in [-1, 1] to features `[B, F]`.
      classes: number of classes; 0 for an unconditional model.
      conditioning: "concat" gives the class to the body as one more channel (Mirza and Osindero
        2014), "projection" adds the features' product with the class's vector to the score (Miyato
        and Koyama 2018, eq. 4), "auxiliary" predicts it (Odena et al. 2017), which the
        discriminator learns from real images only.
      codes, traits: numbers of InfoGAN's categories and continuous codes to predict.
    """

    body: nn.Module
    classes: int = 0
    conditioning: str = "projection"
    codes: int = 0
    traits: int = 0

    @nn.compact
    def __call__(
        self,
        image: Array,
        label: Array,
        *,
        train: bool,
        drop: Array | None = None,
        **scheduled: Array,
    ) -> Verdict:
        """Scores images.

        Args:
          image: float32 `[B, H, W, C]` in [-1, 1].
          label: int `[B]`.
          train: whether batch norm takes the batch's own moments.
          drop: one key per image for dropout, `[B]`, or `None` for none.
          scheduled: further keyword arguments of the body.
        """
        if self.classes and self.conditioning == "concat":
            size, height, width, _ = image.shape
            shown = Table(self.classes, height * width, name="class_map")(label)
            image = jnp.concatenate([image, shown.reshape(size, height, width, 1)], axis=-1)
        features = self.body(image, train=train, drop=drop, **scheduled)
        score = Dense(1, name="score")(features)[:, 0]
        guess = None
        if self.classes and self.conditioning == "projection":
            towards = Table(self.classes, features.shape[-1], name="class_vector")(label)
            score = score + jnp.sum(features * towards, axis=-1)
        if self.classes and self.conditioning == "auxiliary":
            guess = Dense(self.classes, name="class")(features)
        codes = Dense(self.codes, name="code")(features) if self.codes else None
        traits = None
        if self.traits:
            mean, log_scale = (
                Dense(self.traits, name=name)(features) for name in ("trait", "trait_log_scale")
            )
            traits = Gaussian(mean, log_scale)
        return Verdict(score, guess, codes, traits)


def dropped(x: Array, drop: Array | None, name: str, rate: float) -> Array:
    """Dropout of `[B, ...]` with one key per image; `drop` is `[B]`, or `None` for none."""
    if drop is None or not rate:
        return x
    each = jax.vmap(lambda key: keys.named(key, name))(drop)
    return x * dropout.mask(each, x[0].size, rate).reshape(x.shape)


def without(params: Any, player: str, names: tuple[str, ...]) -> Any:
    """A player's parameters without the modules of these names."""
    kept = {name: leaf for name, leaf in _shelf(params, player).items() if name not in names}
    return {**params, "body": kept} if player == "discriminator" else kept


def with_borrowed(params: dict[str, Any], owner: str, names: tuple[str, ...]) -> Any:
    """The other player's parameters, completed by the owner's modules as constants.

    Args:
      params: both players' parameters, by player.
      owner: the player that has these modules.
      names: the modules' names.
    """
    (player,) = params.keys() - {owner}
    lent = {name: _shelf(params[owner], owner)[name] for name in names}
    whole = {**_shelf(params[player], player), **jax.lax.stop_gradient(lent)}
    return {**params[player], "body": whole} if player == "discriminator" else whole


def _shelf(params: Any, player: str) -> Any:
    """The dict that holds the modules that players can share."""
    return params["body"] if player == "discriminator" else params
