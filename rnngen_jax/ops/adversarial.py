"""Losses of discriminator and generator, from logits.

The discriminator's outputs are raw scores, here called logits: `D = σ(logit)` where a paper's D is
a probability; elsewhere D is the score itself.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from rnngen_jax.config import require, require_choice
from rnngen_jax.ops.batch import mean_over_devices

softplus, relu = jax.nn.softplus, jax.nn.relu

STEADY, MOST = 1e-4, 1e4  # of the adaptive weight: added to its denominator, and its bound


class AdversarialLoss(NamedTuple):
    """The losses that the two players minimise, per example, not averaged.

    Attributes:
      discriminator: `discriminator(real [B], fake [B]) -> [B]`, from the logits of real and
        generated images.
      generator: `generator(real [B], fake [B]) -> [B]`.
      reads_real: whether `generator` depends on `real`; if not, any array will do.
    """

    discriminator: Callable[[Array, Array], Array]
    generator: Callable[[Array, Array], Array]
    reads_real: bool = False


def minimax(smoothing: float = 0.0) -> AdversarialLoss:
    """The value of the minimax game, nats (Goodfellow et al. 2014, eq. 1).

    The discriminator minimises `-log D(x) - log(1 - D(G(z)))`, the generator `log(1 - D(G(z)))`,
    whose gradient vanishes where the discriminator is confident.

    Args:
      smoothing: α: a real image's label is 1 - α, a generated one's stays 0 (Salimans et al. 2016,
        section 3.4).
    """

    def discriminator(real: Array, fake: Array) -> Array:
        # -log σ(a) = softplus(-a) and -log(1 - σ(a)) = softplus(a), exact at both ends.
        on_real = (1 - smoothing) * softplus(-real) + smoothing * softplus(real)
        return on_real + softplus(fake)

    return AdversarialLoss(discriminator, lambda real, fake: -softplus(fake))


def non_saturating(smoothing: float = 0.0) -> AdversarialLoss:
    """As `minimax`, but the generator minimises `-log D(G(z))`, nats.

    Goodfellow et al. 2014, section 3: the same fixed point, without vanishing gradients where the
    discriminator is confident.

    Args:
      smoothing: as for `minimax`.
    """
    return minimax(smoothing)._replace(generator=lambda real, fake: softplus(-fake))


def least_squares(smoothing: float = 0.0) -> AdversarialLoss:
    """Squared distances of the scores from labels (Mao et al. 2017, eq. 2 with a = 0, b = c = 1).

    The discriminator minimises `½ (D(x) - 1)² + ½ D(G(z))²`, the generator `½ (D(G(z)) - 1)²`.

    Args:
      smoothing: α: the discriminator's label b of real images is 1 - α; the generator's c stays 1.
    """

    def discriminator(real: Array, fake: Array) -> Array:
        return 0.5 * jnp.square(real - (1 - smoothing)) + 0.5 * jnp.square(fake)

    return AdversarialLoss(discriminator, lambda real, fake: 0.5 * jnp.square(fake - 1))


def hinge() -> AdversarialLoss:
    """`max(0, 1 - D(x)) + max(0, 1 + D(G(z)))` against `-D(G(z))`.

    Lim and Ye 2017; Miyato et al. 2018, eqs. 16 and 17.
    """

    def discriminator(real: Array, fake: Array) -> Array:
        return relu(1 - real) + relu(1 + fake)

    return AdversarialLoss(discriminator, lambda real, fake: -fake)


def wasserstein() -> AdversarialLoss:
    """`D(G(z)) - D(x)` against `-D(G(z))` (Arjovsky et al. 2017, eqs. 2 and 3).

    The critic's loss is minus the distance, in units of the critic's Lipschitz constant, so it
    needs weight clipping, a gradient penalty or spectral normalisation.
    """
    return AdversarialLoss(lambda real, fake: fake - real, lambda real, fake: -fake)


def relativistic() -> AdversarialLoss:
    """Relativistic pairing loss, nats of R3GAN (Huang et al. 2024, eq. 2).

    The discriminator minimises `softplus(-(D(x) - D(G(z))))`, the generator the same with the two
    exchanged. Each real image is paired with the generated one at the same index in the batch.
    """
    return AdversarialLoss(
        lambda real, fake: softplus(fake - real), lambda real, fake: softplus(real - fake), True
    )


SMOOTHABLE = {
    "minimax": minimax,
    "non_saturating": non_saturating,
    "least_squares": least_squares,
}
OTHERS = {"hinge": hinge, "wasserstein": wasserstein, "relativistic": relativistic}
LOSSES = (*SMOOTHABLE, *OTHERS)


def make(name: str, smoothing: float = 0.0) -> AdversarialLoss:
    """Builds the loss `name`.

    Args:
      name: one of `LOSSES`.
      smoothing: how far the label of real images is below 1 (one-sided label smoothing), for
        losses with labels.

    Raises:
      UserError: an unknown loss, smoothing outside [0, 1), or smoothing of a loss without labels.
    """
    require_choice("config.model.loss", name, LOSSES)
    where = "config.model.label_smoothing"
    require(0 <= smoothing < 1, where, smoothing, "in [0, 1)")
    if name in SMOOTHABLE:
        return SMOOTHABLE[name](smoothing)
    require(smoothing == 0, where, smoothing, f"0 with loss={name!r}, which has no labels")
    return OTHERS[name]()


def adaptive_weight(of_reconstruction: Any, of_adversary: Any) -> Array:
    """The weight that gives two losses gradients of the same length (Esser et al. 2021, eq. 7).

    With the gradients of both with respect to a decoder's last layer,

        λ = clip(‖∇L_rec‖ / (‖∇L_adv‖ + 1e-4), 0, 1e4)

    as in the authors' code, a constant of the step. The norms are those of the whole batch's
    gradients, which are averaged over devices first, in one all-reduce: a mean of the shards' norms
    would grow with their number, as gradients of few examples are longer.

    Args:
      of_reconstruction, of_adversary: each device's gradients of the mean losses of its shard,
        arrays or trees of arrays.

    Returns:
      A scalar, the same on every device.
    """
    gradients = jax.lax.stop_gradient((of_reconstruction, of_adversary))
    one, other = (_norm(tree) for tree in mean_over_devices(gradients))
    return jnp.clip(one / (other + STEADY), 0.0, MOST)


def _norm(tree: Any) -> Array:
    """The Euclidean norm of all of a tree's numbers."""
    return jnp.sqrt(sum(jnp.square(leaf).sum() for leaf in jax.tree.leaves(tree)))
