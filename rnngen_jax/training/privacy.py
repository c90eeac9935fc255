"""Differentially private training: clipped, noised gradients, and what they promise.

Abadi et al. 2016 (DP-SGD). Where of an adversarial pair only the discriminator sees data, its
gradients alone need this: whatever the generator learns from it is as private. A generator whose
loss reads real images (`AdversarialLoss.reads_real`) or their labels is not covered so.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax
from jax import Array

from rnngen_jax.config import require
from rnngen_jax.errors import UserError
from rnngen_jax.models.base import Aux, Batch


class Privacy(NamedTuple):
    """How a player's gradients are made private; see `clipped_mean` and `noised`.

    Attributes:
      noise: σ.
      clip: C.
    """

    noise: float
    clip: float


def clipped_value_and_grad(
    loss: Callable[[Any, Batch], tuple[Array, Aux]], own: Any, examples: Batch, clip: float
) -> tuple[tuple[Array, Aux], Any]:
    """What `jax.value_and_grad(loss, has_aux=True)(own, examples)` gives, with clipped gradients.

    The gradient is `clipped_mean` of the examples'; with noise it is private. Loss and metrics are
    reported as they are, so they are not private.

    Args:
      loss: a mean over examples of which none sees another. The `extra` of its `Aux` must not
        depend on the examples, since nothing hides it: that of the first is kept.
      own: the player's parameters.
      examples: leaves `[B, ...]`.
      clip: C, the greatest norm.
    """

    def of_one(example: Batch) -> tuple[tuple[Array, Aux], Any]:
        alone = jax.tree.map(lambda x: x[None], example)
        return jax.value_and_grad(loss, has_aux=True)(own, alone)

    (values, aux), gradients = jax.vmap(of_one)(dict(examples))
    metrics = jax.tree.map(lambda x: x.mean(0), aux.metrics)
    extra = jax.tree.map(lambda x: x[0], aux.extra)
    return (values.mean(), Aux(metrics, extra)), clipped_mean(gradients, clip)


def clipped_mean(gradients: Any, clip: float) -> Any:
    """The mean of clipped gradients of single examples: `Σ_i clipped g_i / B`.

    Each example's gradient is scaled down to the norm `clip`, over all leaves together, where it is
    longer.

    Args:
      gradients: leaves `[B, ...]`, one gradient per example, each from that example alone (so no
        batch normalisation); such as `jax.vmap(jax.grad(loss), in_axes=(None, 0))` gives.
      clip: C, the greatest norm.

    Returns:
      A tree like one example's gradient.
    """
    # Products of lower precision would let a clipped gradient be longer than the noise covers.
    with jax.default_matmul_precision("highest"):
        total, _ = optax.per_example_global_norm_clip(gradients, clip)
    held = len(jax.tree.leaves(gradients)[0])
    return jax.tree.map(lambda leaf: leaf / held, total)


def noised(mean: Any, privacy: Privacy, size: int, key: Array) -> Any:
    """The private gradient `mean + noise · clip · N(0, 1) / B` (Abadi et al. 2016, algorithm 1).

    Args:
      mean: `clipped_mean` of a whole batch: over devices, the mean of theirs.
      privacy: noise and clip.
      size: B, the examples of the whole batch.
      key: the step's own key for this noise; devices that have the same draw the same.
    """
    leaves, structure = jax.tree.flatten(mean)
    scale = privacy.noise * privacy.clip / size
    each = zip(leaves, jax.random.split(key, len(leaves)), strict=True)
    drawn = [leaf + scale * jax.random.normal(own, leaf.shape, leaf.dtype) for leaf, own in each]
    return jax.tree.unflatten(structure, drawn)


def epsilon(noise: float, sample_rate: float, steps: int, delta: float) -> float:
    """ε of the (ε, δ)-differential privacy that the usual accounting gives a training.

    It is a Gaussian mechanism on Poisson samples, composed `steps` times, by the Rényi accountant
    of Google's dp-accounting; neighbouring data sets differ in one example, added or taken away.

    The figure is a convention and not a proof. The accounting supposes that each batch holds each
    example with probability `sample_rate`, independently (Poisson sampling). Batches here are drawn
    epoch by epoch, of a fixed size, from a shuffled order, as they are in most programs that
    report such a figure; for those the true ε can be larger. It also covers the gradients alone,
    and not a choice of settings or of a checkpoint by looking at the data.

    Args:
      noise: σ, as for `noised_mean`; with 0 nothing is private and ε is infinite.
      sample_rate: batch size over number of training examples, above 0 and at most 1.
      steps: private steps, 0 or more: for an adversarial pair, those of the discriminator.
      delta: δ, above 0 and below 1; usually below one over the number of examples.

    Raises:
      UserError: a value out of range, or dp-accounting is not installed.
    """
    require(noise >= 0, "noise", noise, "≥ 0")
    require(0 < sample_rate <= 1, "sample_rate", sample_rate, "in (0, 1]")
    require(steps >= 0, "steps", steps, "≥ 0")
    require(0 < delta < 1, "delta", delta, "in (0, 1)")
    if steps == 0:
        return 0.0
    if noise == 0:
        return math.inf
    try:
        import dp_accounting
        from dp_accounting import rdp
    except ImportError:
        raise UserError(
            "The privacy of a training is accounted for by dp-accounting, which is not installed; "
            "pip install rnngen_jax[privacy]"
        ) from None
    step = dp_accounting.PoissonSampledDpEvent(sample_rate, dp_accounting.GaussianDpEvent(noise))
    accountant = rdp.RdpAccountant().compose(step, steps)
    return float(accountant.get_epsilon(delta))
