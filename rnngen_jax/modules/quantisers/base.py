"""The quantiser contract, and helpers that quantisers share.

A quantiser turns vectors into indices and back. It is a set of pure functions, as a cell is:
`assign` chooses codes with the state as it is, and `update` moves the state by the batch's
statistics. What the devices that share a batch tell each other is what `assign` returns, summed in
one all-reduce, whatever the depth or the number of groups.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from rnngen_jax.config import require
from rnngen_jax.ops import batch

Params = Any  # a pytree of arrays, trained by gradient
Extra = Any  # a pytree of float32 arrays, not trained by gradient
Train = tuple[Array, Array] | None  # (key, index [B]) in training; `None` in evaluation
Losses = dict[str, Array]


class Quantised(NamedTuple):
    """Quantised vectors.

    Attributes:
      values: the codes' vectors `[B, ..., D]`, with the estimated gradient.
      indices: int32 `[B, ..., depth]` in `[0, codes)`; -1 in training for depths that are left out.
      losses: scalars by name, weighted, to be added to the training objective.
      extra: the state after this batch; the given one in evaluation.
    """

    values: Array
    indices: Array
    losses: Losses
    extra: Extra


class Assigned(NamedTuple):
    """`Quantised` before the update, and one device's `statistics` for it, which are sums."""

    values: Array
    indices: Array
    losses: Losses
    extra: Extra
    statistics: Any


class Alternatives(NamedTuple):
    """The codes of each vector and others that are nearly as near.

    Attributes:
      indices: int32 `[..., M, depth]`, M distinct ones; the first are the vector's own.
      costs: what each costs the vector above its own, float32 `[..., M]`, ≥ 0; they do not fall.
        Squared distances, or nats for codes that are chosen by their logits.
    """

    indices: Array
    costs: Array


class Quantiser(NamedTuple):
    """A quantiser of vectors `[B, ..., D]`.

    Attributes:
      features: D.
      codes: number of codes K of each index.
      depth: indices per vector.
      init: `init(key) -> (params, extra)`.
      assign: `assign(params, extra, z, train, mask) -> Assigned`.
      update: `update(params, extra, statistics) -> extra`, from the statistics of the whole batch.
      decode: `decode(params, extra, indices [..., depth]) -> values [..., D]`, to the bit those of
        `quantise`.
      alternatives: `alternatives(params, extra, z, indices [..., depth], count) -> Alternatives` of
        vectors with their own indices, those of `quantise` in evaluation; M is the static count, or
        the number of all codes, `codes ** depth`, if that is less. The first n are those of a count
        of n, and nothing is drawn.
      estimator: `estimator(z, q) -> values`, the gradient past the choice of a code of quantisers
        whose codes are vectors in the space of z; `None` for those with a gradient of their own,
        which cannot be stacked in depth.
    """

    features: int
    codes: int
    depth: int
    init: Callable[[Array], tuple[Params, Extra]]
    assign: Callable[..., Assigned]
    update: Callable[[Params, Extra, Any], Extra]
    decode: Callable[[Params, Extra, Array], Array]
    alternatives: Callable[[Params, Extra, Array, Array, int], Alternatives]
    estimator: Callable[[Array, Array], Array] | None = None

    def quantise(
        self,
        params: Params,
        extra: Extra,
        z: Array,
        train: Train = None,
        mask: Array | None = None,
    ) -> Quantised:
        """Quantises vectors; in training also updates the state, in one all-reduce.

        Args:
          params, extra: from `init`.
          z: `[B, ..., D]`; where the batch is sharded over devices, a device's shard.
          train: a key, the same on every device, and the examples' indices, int32 `[B]`; `None` in
            evaluation, which draws and changes nothing.
          mask: bool `[B, ...]`, false for vectors that count neither in losses nor in statistics;
            `None` if all count.
        """
        found = self.assign(params, extra, z, train, mask)
        extra = extra if train is None else self.moved([params], [found])[0]
        return Quantised(found.values, found.indices, found.losses, jax.lax.stop_gradient(extra))

    def moved(self, params: Sequence[Params], found: Sequence[Assigned]) -> list[Extra]:
        """The states after a batch of several quantisers like this one, in one all-reduce.

        Args:
          params: of each.
          found: what each has assigned.
        """
        statistics = [own.statistics for own in found]
        if not jax.tree.leaves(statistics):
            return [own.extra for own in found]
        statistics = batch.sum_over_devices(jax.lax.stop_gradient(statistics))
        each = zip(params, found, statistics, strict=True)
        return [self.update(own, one.extra, sums) for own, one, sums in each]


def unchanged(params: Params, extra: Extra, statistics: Any) -> Extra:
    """`Quantiser.update` of quantisers that keep no statistics."""
    del params, statistics
    return extra


def weights(mask: Array | None, z: Array) -> Array:
    """The weight of each vector, float32 `[N]`, for all vectors in one row."""
    if mask is None:
        return jnp.ones(z[..., 0].size)
    return mask.reshape(-1).astype(jnp.float32)


def mean_of(values: Array, mask: Array | None) -> Array:
    """The mean over all unmasked values of `[B, ..., D]`, in float32.

    With a mask a device's sum is divided by the mean number of values on a device, so that the mean
    over devices is the whole batch's mean.
    """
    if mask is None:
        return jnp.mean(values, dtype=jnp.float32)
    weight = jnp.broadcast_to(mask[..., None], values.shape).astype(jnp.float32)
    number = batch.mean_over_devices(jax.lax.stop_gradient(weight.sum()))
    return (values * weight).sum() / jnp.maximum(number, 1)


def require_option(condition: bool, quantiser: str, option: str, given: Any, allowed: str) -> None:
    """Raises a `UserError` such as "quantiser 'fsq': levels must be ..." unless `condition`."""
    require(condition, f"quantiser {quantiser!r}: {option}", given, allowed)


def require_codes(quantiser: str, codes: int) -> None:
    """Raises a `UserError` unless there are at least 2 codes, and as many as items may have."""
    require_option(2 <= codes <= 2**20, quantiser, "codes", codes, f"in [2, {2**20}]")
