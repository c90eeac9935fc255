"""VQ-GAN: a VQ-VAE whose reconstructions a discriminator judges (Esser et al. 2021).

The model's loss is

    L = L_rec + λ w L_adv + the quantiser's own,    L_rec = -log p(x|q)/dims + v d(x, E[x|q])

with the perceptual distance d in the activations of a trained classifier, and λ = ‖∇L_rec‖ /
(‖∇L_adv‖ + 1e-4), the ratio of the gradients with respect to the decoder's last layer (eq. 7). It
is a tokenizer as `vqvae` is, with the same networks, codes and bound.

The decoder stays a distribution over images, so that bits stay honest. Discriminator and classifier
see its expected image: that is what `reconstruct` and `interpolate` show; it is differentiable for
every likelihood, where a draw of grey levels would need a relaxation; and a draw's pixels are
independent given the codes, so that a discriminator would learn their grain, which the decoder
could hide by a narrower distribution alone, against its likelihood.

All three losses of the decoder depend on its parameters through its raw outputs alone. So they are
differentiated with respect to these once; λ takes one product more per loss, the gradients' pull
through the last layer; and one pass back through decoder and encoder takes their weighted sum.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from rnngen_jax.config import require, require_at_least
from rnngen_jax.errors import UserError
from rnngen_jax.models import vqvae
from rnngen_jax.models.adversarial_config import DiscriminatorConfig
from rnngen_jax.models.adversarial_losses import PLAYER, adversarial_losses
from rnngen_jax.models.base import Aux, Batch, Extra, Model, Params
from rnngen_jax.models.frozen import Perceptual, kept
from rnngen_jax.models.halving import require_stages
from rnngen_jax.modules.adversarial import Discriminator
from rnngen_jax.modules.dcgan import Body
from rnngen_jax.modules.latent import scaled
from rnngen_jax.modules.vae import sizes
from rnngen_jax.modules.vqvae import last_layer
from rnngen_jax.ops import perceptual
from rnngen_jax.ops.adversarial import adaptive_weight
from rnngen_jax.ops.codebooks import exactly
from rnngen_jax.shapes import ImageSpec


@dataclass(frozen=True)
class Config(DiscriminatorConfig, vqvae.Config):
    """Choices of a VQ-GAN; see `vqvae.Config` and `DiscriminatorConfig` for the others.

    Attributes:
      PLAYERS: as `models.players` gives them.
      JUDGE: the model whose run `config.perceptual` names.
      discriminator_features: channels of the discriminator's largest map; each halving doubles
        them.
      discriminator_stages: number of its halvings; 0 halves once, then until the shorter side is at
        most 7.
      discriminator_kernel: side of its convolutions' kernels.
      adversarial_weight: what the adaptive weight of the adversarial loss is multiplied by, w.
      adversarial_start: steps before which that weight is 0, and validations are not of the best
        checkpoint. The discriminator is trained from the first step, so that it knows images and
        reconstructions by then.
      perceptual_weight: of the distance in the activations of the classifier that
        config.perceptual names; 0 without one.
    """

    PLAYERS: ClassVar[Mapping[str, str]] = {PLAYER: "discriminator", "model": "optimizer"}
    JUDGE: ClassVar[str] = "classifier"

    loss: str = "hinge"
    discriminator_features: int = 32
    discriminator_stages: int = 0
    discriminator_kernel: int = 4
    adversarial_weight: float = 1.0
    adversarial_start: int = 0
    perceptual_weight: float = 0.0

    def __post_init__(self) -> None:
        vqvae.Config.__post_init__(self)
        DiscriminatorConfig.__post_init__(self)
        at = "config.model"
        require_at_least(self, at, 1, "discriminator_features")
        require_at_least(self, at, 2, "discriminator_kernel")
        require_at_least(self, at, 0, "discriminator_stages", "adversarial_start")
        require_at_least(self, at, 0, "perceptual_weight")
        given = self.adversarial_weight
        require(given > 0, f"{at}.adversarial_weight", given, "> 0 (vqvae has no discriminator)")

    def require_judge(self, folder: str) -> None:
        """Raises a `UserError` unless there is a perceptual loss exactly if it has a classifier.

        Args:
          folder: `config.perceptual`, of the classifier's run; empty without one.
        """
        given = self.perceptual_weight
        allowed = "0 without config.perceptual, the folder of a run of classifier"
        require(given == 0 or bool(folder), "config.model.perceptual_weight", given, allowed)
        allowed = "empty with config.model.perceptual_weight=0"
        require(given > 0 or not folder, "config.perceptual", folder, allowed)

    def require_private(self, player: str, noise: float) -> None:
        """Raises a `UserError`: a codebook is moved by a batch, not by gradients of examples."""
        where = f"config.{self.PLAYERS[player]}.private_noise"
        require(noise == 0, where, noise, "0 for vqgan")


def build(config: Config, spec: ImageSpec, judge: Perceptual | None = None) -> Model:
    """Builds the model for images like `spec`.

    Args:
      config: the choices.
      spec: the images.
      judge: of the perceptual loss; `None` without one, or where the codes alone are of interest.
        Its arrays are in `extra`.

    Raises:
      UserError: as `vqvae.parts`; discriminators with more halvings than the image has room for or
        a norm with nothing to normalise; when it is trained, a perceptual loss without a judge.
    """
    own = vqvae.parts(config, spec)
    codes = own.codes._replace(needs=_coding)
    expected = codes.likelihood.mean
    _require_discriminator(config, spec)
    body = Body(
        stages=config.discriminator_stages,
        features=config.discriminator_features,
        kernel=config.discriminator_kernel,
        attention=False,
        grow=False,
        **config.discriminator_layers(),
    )
    game = adversarial_losses(config, Discriminator(body))

    def init(key: Array) -> tuple[Params, Extra]:
        params, extra = own.init(key)
        image, label = jnp.zeros((1, *spec.shape)), jnp.zeros(1, jnp.int32)
        judging, state = game.init(key, image, label)
        extra = {**extra, **state}
        if judge is not None:
            extra["perceptual"] = kept(judge.model.init, judge.frozen, key)
        return {PLAYER: judging, **params}, extra

    def shown(image: Array) -> Array:
        """Images in [0, 1] as the discriminator sees them."""
        return 2 * image - 1

    def discriminator(
        params: Params, extra: Extra, batch: Batch, key: Array, step: Array
    ) -> tuple[Array, Aux]:
        """Tells images from reconstructions by the codes of evaluation."""
        del step
        image = batch[spec.key]
        fake = expected(codes.raw(params, extra, codes.encode(params, extra, image)))
        real = shown(scaled(image, spec.levels))
        found = game.discriminator(params, extra, real, shown(fake), batch, key)
        return found.value, Aux(found.metrics, found.extra)

    def apart(extra: Extra, image: Array) -> Callable[[Array], Array]:
        """The mean perceptual distance from images in [0, 1], as a function of others."""
        arrays = extra["perceptual"]["params"], extra["perceptual"]["extra"]
        seen = judge.model.activations(*arrays, image)

        def distance(other: Array) -> Array:
            return perceptual.distance(judge.model.activations(*arrays, other), seen).mean()

        return distance

    def loss(
        params: Params, extra: Extra, batch: Batch, key: Array, step: Array
    ) -> tuple[Array, Aux]:
        """The loss of encoder, quantiser and decoder, in nats per value and its like."""
        if config.perceptual_weight and judge is None:
            raise UserError(
                "config.model.perceptual_weight must be 0 without a classifier, got "
                f"{config.perceptual_weight}; give config.perceptual."
            )
        found = own.rebuilt(params, extra, batch, key)
        image = batch[spec.key]
        real = scaled(image, spec.levels)

        def rebuilding(raw: Array) -> tuple[Array, dict[str, Array]]:
            nats, told = own.nats(raw, image), {}
            value = nats / spec.dims
            if config.perceptual_weight:
                told["perceptual"] = apart(extra, real)(expected(raw))
                value = value + config.perceptual_weight * told["perceptual"]
            return value, own.metrics(nats, found.losses) | told

        def deceiving(raw: Array) -> Array:
            fake = shown(expected(raw))
            return game.generator(params, extra, shown(real), fake, batch, key).value

        raw, through_last = _decoded(codes.decode, params, extra, found.vectors)
        given = jax.lax.stop_gradient(raw)
        (value, metrics), slope = jax.value_and_grad(rebuilding, has_aux=True)(given)
        adversarial, adversarial_slope = jax.value_and_grad(deceiving)(given)
        weight = adaptive_weight(through_last(slope), through_last(adversarial_slope))
        weight = jnp.where(step >= config.adversarial_start, weight, 0.0)
        share = config.adversarial_weight * weight
        metrics |= {"adversarial": adversarial, "adaptive_weight": weight}
        # The value of both, with their gradient: its chain goes through `raw` alone.
        both, slopes = value + share * adversarial, slope + share * adversarial_slope
        total = exactly(both, (slopes * raw).sum()) + sum(found.losses.values())
        return total, Aux(metrics, {**extra, "quantiser": found.extra})

    losses = {PLAYER: discriminator, "model": loss}
    # By its bits alone, which the discriminator raises, the best state would be one before it.
    return vqvae.model_of("vqgan", codes, init, losses)._replace(begins=config.adversarial_start)


def _decoded(
    decode: Callable[[Params, Extra, Any], Array], params: Params, extra: Extra, vectors: Any
) -> tuple[Array, Callable[[Array], Any]]:
    """Raw outputs, and their gradients' pull to the parameters of the decoder's last layer.

    Differentiated is the decoder as a function of that layer's parameters alone, so that nothing
    before the layer is passed through backwards.
    """
    fixed = jax.lax.stop_gradient((params["model"], vectors))
    last = last_layer(params["model"]["decoder"])

    def of_last(layer: Any) -> Array:
        model, given = fixed
        decoder = {**model["decoder"], last: layer}
        return decode({"model": {**model, "decoder": decoder}}, extra, given)

    _, pull = jax.vjp(of_last, fixed[0]["decoder"][last])
    return decode(params, extra, vectors), lambda slope: pull(slope)[0]


def _coding(params: Params, extra: Extra) -> tuple[Params, Extra]:
    """The arrays that encode and decode."""
    return {"model": params["model"]}, {"quantiser": extra["quantiser"]}


def _require_discriminator(config: Config, spec: ImageSpec) -> None:
    """Raises a `UserError` for a discriminator that images like `spec` have no room for."""
    name = "discriminator_stages"
    require_stages(config.discriminator_stages, spec, name)
    count = len(sizes(spec.height, spec.width, config.discriminator_stages)) - 1
    config.require_norm_read(count, name)
