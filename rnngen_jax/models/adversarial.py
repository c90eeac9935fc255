"""Adversarial models from a generator and a discriminator: their losses and sampler.

Within a training step the discriminator is updated first. The generator's update does not change
the discriminator's state.

`extra` holds what is not trained by gradient: the discriminator's (`models.adversarial_losses`),
the generator's running moments under "generator", and the values of a `Schedule` at the last step
under "schedule".
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from rnngen_jax import keys
from rnngen_jax.models.adversarial_config import AdversarialConfig
from rnngen_jax.models.adversarial_losses import adversarial_losses, applied
from rnngen_jax.models.base import (
    Aux,
    Batch,
    Extra,
    Model,
    Params,
    Scalar,
    require_classes,
    sampler,
)
from rnngen_jax.modules.adversarial import Discriminator, Verdict, with_borrowed, without
from rnngen_jax.modules.latent import scaled
from rnngen_jax.ops import information
from rnngen_jax.shapes import ImageSpec


class Noise(NamedTuple):
    """Random inputs of the generator.

    Attributes:
      vectors: `[B, S, Z']`, each ending with InfoGAN's codes.
      code: int `[B]`, InfoGAN's category; zeros without one.
      traits: `[B, N]`, its continuous codes.
    """

    vectors: Array
    code: Array
    traits: Array


class Schedule(NamedTuple):
    """Values that change during training, as a function of the step alone.

    The discriminator's update computes them; the generator's update and the sampler use the values
    of the discriminator's last update.

    Attributes:
      at: `at(step) -> {name: array}`, keyword arguments of the generator and the body.
      shown: `shown(image, **at(step)) -> image`, real images as shown to the discriminator, both
        `[B, H, W, C]` in [-1, 1].
    """

    at: Callable[[Array], dict[str, Array]]
    shown: Callable[..., Array]


def adversarial_model(
    name: str,
    config: AdversarialConfig,
    spec: ImageSpec,
    generator: nn.Module,
    body: nn.Module,
    steps: int = 1,
    schedule: Schedule | None = None,
    shared: tuple[str, tuple[str, ...]] | None = None,
) -> Model:
    """Builds a model from a generator and a discriminator's body.

    Args:
      name: the model's name.
      config: the fields that adversarial models share.
      spec: the images.
      generator: `generator(noise [B, S, Z'], label [B], train) -> images` in [-1, 1].
      body: the discriminator's, as in `modules.adversarial.Discriminator`.
      steps: noise vectors per image, S.
      schedule: values that change during training; `None` for none.
      shared: a player, and the names of its modules that the other player uses too, where they have
        the same shapes. Only that player trains them.

    Raises:
      UserError: a conditional model of images without classes.
    """
    require_classes(config.class_conditional, spec)
    judge = Discriminator(
        body,
        classes=spec.classes if config.class_conditional else 0,
        conditioning=config.conditioning,
        codes=config.codes,
        traits=config.traits,
    )

    def own(params: Params, player: str) -> Any:
        """A player's parameters, including those that it borrows."""
        if shared is None or player == shared[0]:
            return params[player]
        return with_borrowed(params, *shared)

    losses = adversarial_losses(config, judge, lambda params: own(params, "discriminator"))

    def init(key: Array) -> tuple[Params, Extra]:
        label = jnp.zeros(1, jnp.int32)
        noise = drawn(keys.per_example(key, label), 1.0)
        first = {} if schedule is None else schedule.at(jnp.int32(0))
        image = jnp.zeros((1, *spec.shape))
        judging, extra = losses.init(key, image, label, **first)
        given = _with_class(noise.vectors, label), label
        found = generator.init(keys.named(key, "generator"), *given, train=True, **first)
        params = {"discriminator": judging, "generator": found.pop("params")}
        if found:
            extra["generator"] = found
        if first:
            extra["schedule"] = first
        if shared is not None:
            (other,) = params.keys() - {shared[0]}
            params[other] = without(params[other], other, shared[1])
        return params, extra

    def drawn(each: Array, temperature: Scalar) -> Noise:
        """Noise from one key per image, `[B]`."""

        def one(key: Array) -> Noise:
            shape = (steps, config.noise)
            if config.noise_kind == "normal":
                vectors = temperature * jax.random.normal(keys.named(key, "noise"), shape)
            else:
                vectors = jax.random.uniform(keys.named(key, "noise"), shape, minval=-1)
                vectors = temperature * vectors
            code = jax.random.randint(keys.named(key, "code"), (), 0, max(config.codes, 1))
            traits = jax.random.uniform(keys.named(key, "traits"), (config.traits,), minval=-1)
            parts = [jax.nn.one_hot(code, config.codes), traits]
            wide = jnp.broadcast_to(jnp.concatenate(parts), (steps, config.codes + config.traits))
            return Noise(jnp.concatenate([vectors, wide], axis=-1), code, traits)

        return jax.vmap(one)(each)

    def _with_class(vectors: Array, label: Array) -> Array:
        if not config.class_conditional:
            return vectors
        told = jax.nn.one_hot(label, spec.classes)[:, None]
        told = jnp.broadcast_to(told, (*vectors.shape[:2], spec.classes))
        return jnp.concatenate([vectors, told], axis=-1)

    def generated(
        params: Params, extra: Extra, noise: Noise, label: Array, train: bool
    ) -> tuple[Array, Extra]:
        vectors, weights = _with_class(noise.vectors, label), own(params, "generator")
        how = {"train": train, **extra.get("schedule", {})}
        return applied(generator, weights, extra, "generator", vectors, label, **how)

    def shown(batch: Batch, extra: Extra) -> Array:
        """Real images as shown to the discriminator, in [-1, 1]."""
        image = 2 * scaled(batch["image"], spec.levels) - 1
        return image if schedule is None else schedule.shown(image, **extra["schedule"])

    def noise_of(batch: Batch, key: Array) -> Noise:
        return drawn(keys.per_example(keys.named(key, "noise"), batch["index"]), 1.0)

    def discriminator(
        params: Params, extra: Extra, batch: Batch, key: Array, step: Array
    ) -> tuple[Array, Aux]:
        if schedule is not None:
            extra = {**extra, "schedule": schedule.at(step)}
        noise = noise_of(batch, key)
        fake, _ = generated(params, extra, noise, batch["label"], True)
        found = losses.discriminator(params, extra, shown(batch, extra), fake, batch, key)
        value = found.value - config.information * _informed(found.verdict, noise)
        return value, Aux(found.metrics, found.extra)

    def generator_loss(
        params: Params, extra: Extra, batch: Batch, key: Array, step: Array
    ) -> tuple[Array, Aux]:
        del step
        noise = noise_of(batch, key)
        fake, after = generated(params, extra, noise, batch["label"], True)
        found = losses.generator(params, extra, shown(batch, extra), fake, batch, key)
        told = _informed(found.verdict, noise)
        metrics = {"information_nats": told} if config.codes + config.traits else {}
        return found.value - config.information * told, Aux(metrics, after)

    def sample(
        params: Params, extra: Extra, key: Array, label: Array, temperature: Scalar
    ) -> Array:
        noise = drawn(jax.random.split(key, label.shape[0]), temperature)
        image, _ = generated(params, extra, noise, label, False)
        level = jnp.round((image + 1) / 2 * (spec.levels - 1))
        return jnp.clip(level, 0, spec.levels - 1).astype(jnp.uint8)

    return Model(
        name,
        spec,
        config.class_conditional,
        init,
        {"discriminator": discriminator, "generator": generator_loss},
        sample=sampler(sample),
    )


def _informed(verdict: Verdict, noise: Noise) -> Array:
    """Bound on the information of images about InfoGAN's codes, nats (Chen et al. 2016, eq. 5)."""
    total = jnp.float32(0.0)
    if verdict.codes is not None:
        total = total + information.categorical_bound(verdict.codes, noise.code).mean()
    if verdict.traits is not None:
        total = total + information.gaussian_bound(*verdict.traits, noise.traits).mean()
    return total
