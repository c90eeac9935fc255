"""Adversarial models from a generator and a discriminator: their losses and sampler.

Within a training step the discriminator is updated first. With batch norm, real and generated
images pass through it as separate batches, each normalised by its own moments; its running moments
are updated with the real batch first, then with the generated one. The generator's update does not
change the discriminator's state.

`extra` holds what is not trained by gradient: each player's running moments under the player's
name, the power-iteration vectors of spectral normalisation under "spectral", and the values of a
`Schedule` at the last step under "schedule".
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from optax.losses import softmax_cross_entropy_with_integer_labels as cross_entropy

from rnngen_jax import keys
from rnngen_jax.models.adversarial_config import AdversarialConfig
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
from rnngen_jax.ops import adversarial, information, penalties, spectral
from rnngen_jax.ops.augment import augment
from rnngen_jax.ops.batch import paired
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
    modules: Mapping[str, nn.Module] = {"discriminator": judge, "generator": generator}
    loss = adversarial.make(config.loss, config.label_smoothing)
    penalty = penalties.make(config.penalty)

    def init(key: Array) -> tuple[Params, Extra]:
        label = jnp.zeros(1, jnp.int32)
        noise = drawn(keys.per_example(key, label), 1.0)
        first = {} if schedule is None else schedule.at(jnp.int32(0))
        given = {
            "discriminator": (jnp.zeros((1, *spec.shape)), label),
            "generator": (_with_class(noise.vectors, label), label),
        }
        params, extra = {}, {"schedule": first} if first else {}
        for player, module in modules.items():
            found = module.init(keys.named(key, player), *given[player], train=True, **first)
            params[player] = found.pop("params")
            if found:
                extra[player] = found
        if config.spectral:
            extra["spectral"] = spectral.first_vectors(
                params["discriminator"], keys.named(key, "spectral")
            )
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

    def own(params: Params, player: str) -> Any:
        """A player's parameters, including those that it borrows."""
        if shared is None or player == shared[0]:
            return params[player]
        return with_borrowed(params, *shared)

    def generated(
        params: Params, extra: Extra, noise: Noise, label: Array, train: bool
    ) -> tuple[Array, Extra]:
        vectors, weights = _with_class(noise.vectors, label), own(params, "generator")
        how = {"train": train, **extra.get("schedule", {})}
        return _applied(generator, weights, extra, "generator", vectors, label, **how)

    def normalised(params: Params, extra: Extra) -> tuple[Any, Extra]:
        """The discriminator's parameters after spectral normalisation, and the new `extra`."""
        weights = own(params, "discriminator")
        if not config.spectral:
            return weights, extra
        weights, vectors = spectral.divided(weights, extra["spectral"])
        return weights, {**extra, "spectral": vectors}

    def judged(
        weights: Any, extra: Extra, image: Array, label: Array, drop: Array | None
    ) -> tuple[Verdict, Extra]:
        drop = drop if config.dropout else None
        how = {"train": True, "drop": drop, **extra.get("schedule", {})}
        return _applied(judge, weights, extra, "discriminator", image, label, **how)

    def shown(batch: Batch, extra: Extra) -> Array:
        """Real images as shown to the discriminator, in [-1, 1]."""
        image = 2 * scaled(batch["image"], spec.levels) - 1
        return image if schedule is None else schedule.shown(image, **extra["schedule"])

    def discriminator(
        params: Params, extra: Extra, batch: Batch, key: Array, step: Array
    ) -> tuple[Array, Aux]:
        def each(purpose: str) -> Array:
            return keys.per_example(keys.named(key, purpose), batch["index"])

        if schedule is not None:
            extra = {**extra, "schedule": schedule.at(step)}
        label, noise = batch["label"], drawn(each("noise"), 1.0)
        fake, _ = generated(params, extra, noise, label, True)
        real = augment(shown(batch, extra), each("augment/real"), config.augmentation)
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
        value = value - config.information * _informed(of_fake, noise)
        return value, Aux(metrics, after)

    def generator_loss(
        params: Params, extra: Extra, batch: Batch, key: Array, step: Array
    ) -> tuple[Array, Aux]:
        del step

        def each(purpose: str) -> Array:
            return keys.per_example(keys.named(key, purpose), batch["index"])

        label, noise = batch["label"], drawn(each("noise"), 1.0)
        fake, after = generated(params, extra, noise, label, True)
        fake = augment(fake, each("augment/fake"), config.augmentation)
        weights, _ = normalised(params, extra)
        of_fake, _ = judged(weights, extra, fake, label, each("drop/fake"))
        real = of_fake.score
        if loss.reads_real:
            image = augment(shown(batch, extra), each("augment/real"), config.augmentation)
            real = judged(weights, extra, image, label, each("drop/real"))[0].score
        value = loss.generator(real, of_fake.score).mean()
        if of_fake.classes is not None:
            value = value + cross_entropy(of_fake.classes, label).mean()
        told = _informed(of_fake, noise)
        metrics = {"information_nats": told} if config.codes + config.traits else {}
        return value - config.information * told, Aux(metrics, after)

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


def _applied(
    module: nn.Module, params: Any, extra: Extra, player: str, *args: Array, **how: Any
) -> tuple[Any, Extra]:
    """The output of a player's module, and `extra` with the player's new state."""
    state = extra.get(player, {})
    variables = {"params": params, **state}
    if not state or not how["train"]:
        return module.apply(variables, *args, **how), extra
    found, after = module.apply(variables, *args, **how, mutable=list(state))
    return found, {**extra, player: after}


def _informed(verdict: Verdict, noise: Noise) -> Array:
    """Bound on the information of images about InfoGAN's codes, nats (Chen et al. 2016, eq. 5)."""
    total = jnp.float32(0.0)
    if verdict.codes is not None:
        total = total + information.categorical_bound(verdict.codes, noise.code).mean()
    if verdict.traits is not None:
        total = total + information.gaussian_bound(*verdict.traits, noise.traits).mean()
    return total
