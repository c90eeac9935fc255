"""What adversarial generators share: their losses, from a generator and a discriminator.

Within a training step the discriminator takes its turns first. Real and generated images go
through it as batches of their own, so that with batch norm each is normalised by its own moments;
the running moments take in the real ones first, then the generated. The generator's turn leaves the
discriminator's state as it is.

What is not trained by gradient, `extra`, has the running moments of either player under its name,
the power iterations of spectral normalisation under "spectral", and the shares of a growing network
under "fade".
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from optax.losses import softmax_cross_entropy_with_integer_labels as cross_entropy

from rnngen_jax import keys
from rnngen_jax.config import require, require_choice
from rnngen_jax.errors import UserError
from rnngen_jax.models.base import (
    Aux,
    Batch,
    Extra,
    Model,
    Params,
    labels_for,
    require_classes,
    require_dropout,
)
from rnngen_jax.modules.adversarial import (
    PLAYERS,
    Discriminator,
    Verdict,
    with_borrowed,
    without,
)
from rnngen_jax.modules.dcgan import faded
from rnngen_jax.modules.latent import scaled
from rnngen_jax.ops import adversarial, information, penalties, spectral
from rnngen_jax.ops.augment import augment, require_policy
from rnngen_jax.shapes import ImageSpec

CONDITIONINGS = ("concat", "projection", "auxiliary")
NOISES = ("normal", "uniform")
NORMS = ("none", "batch", "conditional_batch")


@dataclass(frozen=True)
class AdversarialConfig:
    """Choices that all adversarial models have.

    Attributes:
      noise: size Z of a noise vector.
      noise_kind: "normal", or "uniform" in [-1, 1].
      loss: "minimax", "non_saturating", "least_squares", "hinge", "wasserstein" or "relativistic".
      label_smoothing: real images count as real by 1 less this.
      penalty: on the gradient of the discriminator's score: "none", "wgan_gp", "r1", "r2", "r1_r2"
        or "dragan".
      penalty_weight: its weight.
      spectral: the discriminator's kernels are divided by their largest singular value.
      norm: of the generator's layers: "none", "batch", or "conditional_batch" by class.
      discriminator_norm: of the discriminator's: "none" or "batch".
      dropout: rate in the discriminator.
      slope: of LeakyReLU below 0, in both players; 0 is ReLU.
      augmentation: of all that the discriminator sees, differentiable: "color", "translation",
        "cutout" and "flip", comma between; empty for none.
      class_conditional: the generator is told the class, beside its noise.
      conditioning: how the discriminator is: "concat", "projection" or "auxiliary".
      codes: categories of an InfoGAN code, 0 for none.
      traits: continuous InfoGAN codes.
      information: weight of what the codes' images tell of them.
    """

    PLAYERS: ClassVar[tuple[str, ...]] = PLAYERS

    noise: int = 100
    noise_kind: str = "normal"
    loss: str = "non_saturating"
    label_smoothing: float = 0.0
    penalty: str = "none"
    penalty_weight: float = 10.0
    spectral: bool = False
    norm: str = "none"
    discriminator_norm: str = "none"
    dropout: float = 0.0
    slope: float = 0.2
    augmentation: str = ""
    class_conditional: bool = False
    conditioning: str = "projection"
    codes: int = 0
    traits: int = 0
    information: float = 1.0

    def __post_init__(self) -> None:
        at = "config.model."
        require(self.noise >= 1, f"{at}noise", self.noise, "1 or more")
        require_choice(f"{at}noise_kind", self.noise_kind, NOISES)
        adversarial.make(self.loss, self.label_smoothing)
        penalties.make(self.penalty)
        require_choice(f"{at}norm", self.norm, NORMS)
        require_choice(f"{at}discriminator_norm", self.discriminator_norm, NORMS[:2])
        require_choice(f"{at}conditioning", self.conditioning, CONDITIONINGS)
        require_policy(self.augmentation)
        require_dropout(self.dropout)
        require(0 <= self.slope < 1, f"{at}slope", self.slope, "0 or more, below 1")
        for name in ("codes", "traits"):
            require(getattr(self, name) >= 0, f"{at}{name}", getattr(self, name), "0 or more")
        require(self.codes != 1, f"{at}codes", self.codes, "0, or 2 or more")
        for name in ("penalty_weight", "information"):
            require(getattr(self, name) >= 0, f"{at}{name}", getattr(self, name), "0 or more")
        self._refuse_together()
        self._refuse_unread()

    def require_private(self) -> None:
        """Raises a `UserError` for choices with which a private discriminator would keep no secret.

        Its gradient is taken of one image at a time, and all else must not see images or classes.
        """
        whole = "looks at the whole batch"
        reasons = {
            "loss": (("relativistic",), "shows real images to the generator"),
            "penalty": (("dragan",), whole),
            "norm": (NORMS[1:], whole),
            "discriminator_norm": (NORMS[1:], whole),
            "class_conditional": ((True,), "shows the images' classes to the generator"),
        }
        for name, (values, why) in reasons.items():
            given = getattr(self, name)
            if given in values:
                raise UserError(
                    f"config.model.{name}={given!r} does not fit a private discriminator, since it "
                    f"{why}; choose another, or set config.discriminator.private_noise=0."
                )

    def _refuse_together(self) -> None:
        """Raises a `UserError` for choices that contradict each other."""
        if self.penalty != "none" and self.discriminator_norm == "batch":
            raise UserError(
                f"config.model.penalty={self.penalty!r} is of the gradient of each image's own "
                "score, and with config.model.discriminator_norm='batch' a score depends on other "
                "images; set that to 'none'."
            )
        if self.norm == "conditional_batch" and not self.class_conditional:
            raise UserError(
                "config.model.norm='conditional_batch' needs classes; set "
                "config.model.class_conditional, or norm to 'batch'."
            )

    def _refuse_unread(self) -> None:
        """Raises a `UserError` where a field is set that the other choices leave unread."""
        read = {
            "penalty_weight": (self.penalty != "none", "penalty"),
            "conditioning": (self.class_conditional, "class_conditional"),
            "information": (self.codes + self.traits > 0, "codes or traits"),
        }
        for name, (does, choice) in read.items():
            default = type(self).__dataclass_fields__[name].default
            if not does and getattr(self, name) != default:
                raise UserError(
                    f"config.model.{name}={getattr(self, name)!r} has no effect without {choice}; "
                    f"leave it at {default!r}."
                )


class Noise(NamedTuple):
    """What images are generated from.

    Attributes:
      vectors: `[B, S, Z']`, with InfoGAN's codes at the end of each.
      code: int `[B]`, InfoGAN's category; zeros without one.
      traits: `[B, N]`, its continuous codes.
    """

    vectors: Array
    code: Array
    traits: Array


def adversarial_model(
    name: str,
    config: AdversarialConfig,
    spec: ImageSpec,
    generator: nn.Module,
    body: nn.Module,
    steps: int = 1,
    fade: Callable[[Array], Array] | None = None,
    shared: tuple[str, tuple[str, ...]] | None = None,
) -> Model:
    """The model of a generator and a discriminator.

    Args:
      name: of the model.
      config: the common choices.
      spec: the images.
      generator: `generator(noise [B, S, Z'], label [B], train, fade) -> images` in [-1, 1].
      body: the discriminator's, as in `modules.adversarial.Discriminator`.
      steps: noise vectors S of an image.
      fade: `fade(step) -> [n]`, the shares of a growing network's resolutions.
      shared: a player, and the names of its modules that the other one uses as they are, with the
        same shapes. That player alone trains them.

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
        share = {} if fade is None else {"fade": fade(jnp.int32(0))}
        given = {
            "discriminator": (jnp.zeros((1, *spec.shape)), label),
            "generator": (_with_class(noise.vectors, label), label),
        }
        params, extra = {}, dict(share)
        for player, module in modules.items():
            found = module.init(keys.named(key, player), *given[player], train=True, **share)
            params[player] = found.pop("params")
            if found:
                extra[player] = found
        if config.spectral:
            extra["spectral"] = spectral.first_vectors(
                params["discriminator"], keys.named(key, "spectral")
            )
        if shared is not None:
            (other,) = set(PLAYERS) - {shared[0]}
            params[other] = without(params[other], other, shared[1])
        return params, extra

    def drawn(each: Array, temperature: Array | float) -> Noise:
        """Noise from one key an image."""

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
        """A player's parameters, what it borrows included."""
        if shared is None or player == shared[0]:
            return params[player]
        return with_borrowed(params, *shared)

    def generated(
        params: Params, extra: Extra, noise: Noise, label: Array, train: bool
    ) -> tuple[Array, Extra]:
        vectors, weights = _with_class(noise.vectors, label), own(params, "generator")
        how = {"train": train, "fade": extra.get("fade")}
        return _applied(generator, weights, extra, "generator", vectors, label, **how)

    def normalised(params: Params, extra: Extra) -> tuple[Any, Extra]:
        """The discriminator's parameters as they are used, and power iteration's vectors."""
        weights = own(params, "discriminator")
        if not config.spectral:
            return weights, extra
        weights, vectors = spectral.divided(weights, extra["spectral"])
        return weights, {**extra, "spectral": vectors}

    def judged(
        weights: Any, extra: Extra, image: Array, label: Array, drop: Array | None
    ) -> tuple[Verdict, Extra]:
        how = {"train": True, "drop": drop if config.dropout else None, "fade": extra.get("fade")}
        return _applied(judge, weights, extra, "discriminator", image, label, **how)

    def shown(batch: Batch, extra: Extra) -> Array:
        """Real images as the discriminator sees them, in [-1, 1]."""
        image = 2 * scaled(batch["image"], spec.levels) - 1
        return image if fade is None else faded(image, extra["fade"])

    def discriminator(
        params: Params, extra: Extra, batch: Batch, key: Array, step: Array
    ) -> tuple[Array, Aux]:
        def each(purpose: str) -> Array:
            return keys.per_example(keys.named(key, purpose), batch["index"])

        if fade is not None:
            extra = {**extra, "fade": fade(step)}
        label, noise = batch["label"], drawn(each("noise"), 1.0)
        fake, _ = generated(params, extra, noise, label, True)
        real = augment(shown(batch, extra), each("augment/real"), config.augmentation)
        fake = jax.lax.stop_gradient(fake)
        fake = augment(fake, each("augment/fake"), config.augmentation)
        weights, extra = normalised(params, extra)
        of_real, after = judged(weights, extra, real, label, each("drop/real"))
        of_fake, after = judged(weights, after, fake, label, each("drop/fake"))

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
        params: Params,
        extra: Extra,
        key: Array,
        num: int,
        label: Array | None = None,
        temperature: Array | float = 1.0,
    ) -> Array:
        label = labels_for(label, num)
        noise = drawn(jax.random.split(key, num), temperature)
        image, _ = generated(params, extra, noise, label, False)
        level = jnp.round((image + 1) / 2 * (spec.levels - 1))
        return jnp.clip(level, 0, spec.levels - 1).astype(jnp.uint8)

    return Model(
        name,
        spec,
        config.class_conditional,
        init,
        {"discriminator": discriminator, "generator": generator_loss},
        sample=sample,
    )


def _applied(
    module: nn.Module, params: Any, extra: Extra, player: str, *args: Array, **how: Any
) -> tuple[Any, Extra]:
    """What a player's module gives, and `extra` with its state after that."""
    state = extra.get(player, {})
    variables = {"params": params, **state}
    if not state or not how["train"]:
        return module.apply(variables, *args, **how), extra
    found, after = module.apply(variables, *args, **how, mutable=list(state))
    return found, {**extra, player: after}


def _informed(verdict: Verdict, noise: Noise) -> Array:
    """The bound of what images tell of InfoGAN's codes, nats (Chen et al. 2016, eq. 5)."""
    total = jnp.float32(0.0)
    if verdict.codes is not None:
        total = total + information.categorical_bound(verdict.codes, noise.code).mean()
    if verdict.traits is not None:
        total = total + information.gaussian_bound(*verdict.traits, noise.traits).mean()
    return total
