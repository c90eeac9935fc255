"""Losses of a discriminator and of what makes its images, whatever that is.

With batch norm, real and made images pass through the discriminator as separate batches, each
normalised by its own moments; its running moments are updated with the real batch first, then with
the other one.

In `extra`, the discriminator's running moments are under "discriminator", and the power-iteration
vectors of spectral normalisation under "spectral".
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from flax import linen as nn
from jax import Array
from optax.losses import softmax_cross_entropy_with_integer_labels as cross_entropy

from rnngen_jax import keys
from rnngen_jax.models.adversarial_config import DiscriminatorConfig
from rnngen_jax.models.base import Batch, Extra, Params
from rnngen_jax.modules.adversarial import Discriminator, Verdict
from rnngen_jax.ops import adversarial, penalties, spectral
from rnngen_jax.ops.augment import augment
from rnngen_jax.ops.batch import paired

PLAYER = "discriminator"


class Judged(NamedTuple):
    """A player's loss.

    Attributes:
      value: the mean over the batch.
      verdict: the discriminator's, of the made images.
      extra: after the update; the generator's changes nothing of the discriminator.
      metrics: of the discriminator's loss.
    """

    value: Array
    verdict: Verdict
    extra: Extra
    metrics: dict[str, Array]


class AdversarialLosses(NamedTuple):
    """The two players' losses, of real and made images `[B, H, W, C]` in [-1, 1].

    Attributes:
      init: `init(key, image, label, **scheduled) -> (params, extra)` of the discriminator.
      discriminator: `discriminator(params, extra, real, fake, batch, key) -> Judged`.
      generator: `generator(params, extra, real, fake, batch, key) -> Judged`; differentiable with
        respect to the made images.
    """

    init: Callable[..., tuple[Any, Extra]]
    discriminator: Callable[..., Judged]
    generator: Callable[..., Judged]


def adversarial_losses(
    config: DiscriminatorConfig,
    judge: Discriminator,
    own: Callable[[Params], Any] = lambda params: params[PLAYER],
) -> AdversarialLosses:
    """Builds the losses.

    Args:
      config: the choices of discriminator and losses.
      judge: the discriminator.
      own: `own(params)`, the discriminator's parameters.
    """
    loss = adversarial.make(config.loss, config.label_smoothing)
    penalty = penalties.make(config.penalty)

    def init(key: Array, *given: Array, **scheduled: Array) -> tuple[Any, Extra]:
        found = judge.init(keys.named(key, PLAYER), *given, train=True, **scheduled)
        weights = found.pop("params")
        extra = {PLAYER: found} if found else {}
        if config.spectral:
            extra["spectral"] = spectral.first_vectors(weights, keys.named(key, "spectral"))
        return weights, extra

    def normalised(params: Params, extra: Extra) -> tuple[Any, Extra]:
        """The discriminator's parameters after spectral normalisation, and the new `extra`."""
        weights = own(params)
        if not config.spectral:
            return weights, extra
        weights, vectors = spectral.divided(weights, extra["spectral"])
        return weights, {**extra, "spectral": vectors}

    def judged(
        weights: Any, extra: Extra, image: Array, label: Array, drop: Array | None
    ) -> tuple[Verdict, Extra]:
        drop = drop if config.dropout else None
        how = {"train": True, "drop": drop, **extra.get("schedule", {})}
        return applied(judge, weights, extra, PLAYER, image, label, **how)

    def discriminator(
        params: Params, extra: Extra, real: Array, fake: Array, batch: Batch, key: Array
    ) -> Judged:
        def each(purpose: str) -> Array:
            return keys.per_example(keys.named(key, purpose), batch["index"])

        label = batch["label"]
        real = augment(real, each("augment/real"), config.augmentation)
        fake = jax.lax.stop_gradient(fake)
        fake = augment(fake, each("augment/fake"), config.augmentation)
        weights, extra = normalised(params, extra)
        drops = each("drop/real"), each("drop/fake")
        if config.discriminator_norm == "batch":
            of_real, after = judged(weights, extra, real, label, drops[0])
            of_fake, after = judged(weights, after, fake, label, drops[1])
        else:  # scores do not depend on the rest of the batch: one batch of pairs
            pairs = paired((real, label, drops[0]), (fake, label, drops[1]))
            both, after = judged(weights, extra, *pairs)
            of_real, of_fake = (jax.tree.map(lambda a, n=n: a[n::2], both) for n in range(2))

        def critic(images: Array) -> Array:
            return judged(weights, extra, images, label, None)[0].score

        value = loss.discriminator(of_real.score, of_fake.score).mean()
        metrics = {"discriminator_accuracy": (of_real.score > of_fake.score).mean()}
        if config.penalty != "none":
            metrics["penalty"] = penalty(critic, real, fake, each("penalty")).mean()
            value = value + config.penalty_weight * metrics["penalty"]
        if of_real.classes is not None:
            metrics["class_nats"] = cross_entropy(of_real.classes, label).mean()
            value = value + metrics["class_nats"]
        return Judged(value, of_fake, after, metrics)

    def generator(
        params: Params, extra: Extra, real: Array, fake: Array, batch: Batch, key: Array
    ) -> Judged:
        def each(purpose: str) -> Array:
            return keys.per_example(keys.named(key, purpose), batch["index"])

        label = batch["label"]
        fake = augment(fake, each("augment/fake"), config.augmentation)
        weights, _ = normalised(params, extra)
        of_fake, _ = judged(weights, extra, fake, label, each("drop/fake"))
        score = of_fake.score
        if loss.reads_real:
            real = augment(real, each("augment/real"), config.augmentation)
            score = judged(weights, extra, real, label, each("drop/real"))[0].score
        value = loss.generator(score, of_fake.score).mean()
        if of_fake.classes is not None:
            value = value + cross_entropy(of_fake.classes, label).mean()
        return Judged(value, of_fake, extra, {})

    return AdversarialLosses(init, discriminator, generator)


def applied(
    module: nn.Module, params: Any, extra: Extra, player: str, *args: Array, **how: Any
) -> tuple[Any, Extra]:
    """The output of a player's module, and `extra` with the player's new state."""
    state = extra.get(player, {})
    variables = {"params": params, **state}
    if not state or not how["train"]:
        return module.apply(variables, *args, **how), extra
    found, after = module.apply(variables, *args, **how, mutable=list(state))
    return found, {**extra, player: after}
