"""Differentially private training: clipped gradients with noise, and privacy accounting.

Abadi et al. 2016 (DP-SGD). If only the discriminator of an adversarial pair sees data, only its
gradients need this: the generator, which learns from it, is then as private (post-processing). That
does not hold for a generator whose loss reads real images (`AdversarialLoss.reads_real`) or their
labels.
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
    """Privacy settings of a player's gradients; see `clipped_mean` and `noised`.

    Attributes:
      noise: σ, the noise multiplier.
      clip: C, the largest norm of one example's gradient.
    """

    noise: float
    clip: float


def clipped_value_and_grad(
    loss: Callable[[Any, Batch], tuple[Array, Aux]], own: Any, examples: Batch, clip: float
) -> tuple[tuple[Array, Aux], Any]:
    """`jax.value_and_grad(loss, has_aux=True)(own, examples)` with clipped per-example gradients.

    The gradient is the `clipped_mean` of the examples' gradients; with noise it is private. The
    loss and the metrics are not.

    Args:
      loss: a mean over examples that do not interact. The `extra` of its `Aux` must not depend on
        the examples, as it is not private; the first example's is kept.
      own: the player's parameters.
      examples: leaves `[B, ...]`.
      clip: C, the largest norm.
    """

    def of_one(example: Batch) -> tuple[tuple[Array, Aux], Any]:
        alone = jax.tree.map(lambda x: x[None], example)
        return jax.value_and_grad(loss, has_aux=True)(own, alone)

    (values, aux), gradients = jax.vmap(of_one)(dict(examples))
    metrics = jax.tree.map(lambda x: x.mean(0), aux.metrics)
    extra = jax.tree.map(lambda x: x[0], aux.extra)
    return (values.mean(), Aux(metrics, extra)), clipped_mean(gradients, clip)


def clipped_mean(gradients: Any, clip: float) -> Any:
    """The mean of clipped per-example gradients: `Σ_i g_i / max(1, |g_i| / C) / B`.

    The norm of an example's gradient is over all leaves together.

    Args:
      gradients: leaves `[B, ...]`, one gradient per example, each from that example alone (so no
        batch normalisation), as from `jax.vmap(jax.grad(loss), in_axes=(None, 0))`.
      clip: C, the largest norm.

    Returns:
      A tree like one example's gradient.
    """
    # At lower precision a clipped gradient could be longer than the noise allows for.
    with jax.default_matmul_precision("highest"):
        total, _ = optax.per_example_global_norm_clip(gradients, clip)
    size = len(jax.tree.leaves(gradients)[0])
    return jax.tree.map(lambda leaf: leaf / size, total)


def noised(mean: Any, privacy: Privacy, size: int, key: Array) -> Any:
    """The private gradient `mean + noise · clip · N(0, 1) / B` (Abadi et al. 2016, algorithm 1).

    Args:
      mean: the `clipped_mean` of the whole batch, averaged over devices.
      privacy: noise and clip.
      size: B, examples in the whole batch.
      key: the step's key for this noise; devices with the same key add the same noise.
    """
    leaves, structure = jax.tree.flatten(mean)
    scale = privacy.noise * privacy.clip / size
    each = zip(leaves, jax.random.split(key, len(leaves)), strict=True)
    drawn = [leaf + scale * jax.random.normal(own, leaf.shape, leaf.dtype) for leaf, own in each]
    return jax.tree.unflatten(structure, drawn)


def epsilon(noise: float, sample_rate: float, steps: int, delta: float) -> float:
    """ε of (ε, δ)-differential privacy, by the usual accounting.

    Training is accounted for as a Gaussian mechanism on Poisson samples, composed `steps` times, by
    the Rényi accountant of Google's dp-accounting; neighbouring data sets differ in one example,
    added or removed.

    The figure is a convention, not a proof. The accounting assumes that each batch contains each
    example independently with probability `sample_rate` (Poisson sampling). Batches here have a
    fixed size and follow a shuffled order, epoch by epoch, as in most programs that report such a
    figure; the true ε can then be larger. The figure covers the gradients only, not a choice of
    settings or of a checkpoint by looking at the data.

    Args:
      noise: σ, as in `Privacy`; with 0 nothing is private and ε is infinite.
      sample_rate: batch size over number of training examples, in (0, 1].
      steps: private steps, ≥ 0; for an adversarial pair, those of the discriminator.
      delta: δ, in (0, 1); usually below one over the number of examples.

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
            "private training needs dp-accounting, which is not installed; "
            "pip install 'rnngen_jax[privacy]'."
        ) from None
    step = dp_accounting.PoissonSampledDpEvent(sample_rate, dp_accounting.GaussianDpEvent(noise))
    accountant = rdp.RdpAccountant().compose(step, steps)
    return float(accountant.get_epsilon(delta))
