"""Quantisers of quantisers: in depth, side by side, and behind a projection."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array

from rnngen_jax import keys
from rnngen_jax.config import require
from rnngen_jax.modules.quantisers.base import (
    Alternatives,
    Assigned,
    Extra,
    Losses,
    Params,
    Quantiser,
    Train,
)
from rnngen_jax.ops import codebooks, ranking


def residual(quantisers: Sequence[Quantiser], dropout: bool = False) -> Quantiser:
    """Each quantises what the ones before it left: q = Σ_d q_d (Zeghidour et al. 2021, alg. 1).

    The commitment is the mean over depths of ‖z - sg Σ_{j≤d} q_j‖². The estimator is applied once,
    to the sum; applied at each depth it would multiply the gradient by the depth.

    Args:
      quantisers: of vectors of the same width and with as many codes.
      dropout: in training an example keeps its first depths alone, as many as is drawn for it
        (section 3.5 there); the indices of the others are -1, which decodes to nothing.

    Raises:
      UserError: codes that cannot be summed.
    """
    first = quantisers[0]
    require(
        first.estimator is not None,
        "config.model.depth",
        len(quantisers),
        "1 unless the quantiser is a codebook without cosine, or simvq",
    )
    inner = _several(quantisers)

    def assign(
        params: Params, extra: Extra, z: Array, train: Train, mask: Array | None
    ) -> Assigned:
        z = z.astype(jnp.float32)
        kept = None
        if dropout and train is not None:
            each = keys.per_example(keys.named(train[0], "depth"), train[1])
            number = jax.vmap(lambda key: jax.random.randint(key, (), 1, len(quantisers) + 1))
            kept = number(each).reshape(-1, *[1] * (z.ndim - 2))
        total, found = jnp.zeros_like(z), []
        for d, one in enumerate(quantisers):
            here = mask
            if kept is not None:
                here = jnp.broadcast_to(d < kept, z.shape[:-1])
                here = here if mask is None else here & mask
            own = one.assign(params[d], extra[d], z - total, _own(train, d), here)
            q = jax.lax.stop_gradient(own.values)
            if kept is not None:
                q = jnp.where((d < kept)[..., None], q, 0.0)
                own = own._replace(indices=jnp.where((d < kept)[..., None], own.indices, -1))
            total = total + q
            found.append(own)
        return inner.joined(found)._replace(values=first.estimator(z, total))

    def decode(params: Params, extra: Extra, indices: Array) -> Array:
        parts = inner.decoded(params, extra, indices)
        return sum(parts, start=jnp.zeros_like(parts[0]))

    def alternatives(
        params: Params, extra: Extra, z: Array, indices: Array, count: int
    ) -> Alternatives:
        """The cost is the sum over depths of what a code costs given the ones before it."""
        z = z.astype(jnp.float32)[..., None, :]
        total, paths = jnp.zeros_like(z), indices[..., None, :0]
        sums = jnp.zeros(z.shape[:-1])
        for d, one in enumerate(quantisers):
            nearest = one.assign(params[d], extra[d], z - total, None, None).indices
            nearest = nearest.at[..., 0, :].set(indices[..., d : d + 1])
            found = one.alternatives(params[d], extra[d], z - total, nearest, count)
            prefix, way, sums = ranking.smallest_joined(sums, found.costs, count)
            total, paths, ways = (
                jnp.take_along_axis(x, prefix[..., None], axis=-2)
                for x in (total, paths, found.indices[..., 0])
            )
            code = jnp.take_along_axis(ways, way[..., None], axis=-1)
            total = total + one.decode(params[d], extra[d], code)
            paths = jnp.concatenate([paths, code], axis=-1)
        return Alternatives(paths, sums)

    return first._replace(
        depth=sum(one.depth for one in quantisers),
        init=inner.init,
        assign=assign,
        update=inner.update,
        decode=decode,
        alternatives=alternatives,
    )


def grouped(quantisers: Sequence[Quantiser]) -> Quantiser:
    """Each quantises its part of the vector (Yang et al. 2023, "group-residual").

    Args:
      quantisers: with as many codes.
    """
    inner = _several(quantisers)
    ends = [sum(one.features for one in quantisers[:n]) for n in range(1, len(quantisers))]

    def assign(
        params: Params, extra: Extra, z: Array, train: Train, mask: Array | None
    ) -> Assigned:
        found = [
            one.assign(params[g], extra[g], part, _own(train, g), mask)
            for g, (one, part) in enumerate(
                zip(quantisers, jnp.split(z, ends, axis=-1), strict=True)
            )
        ]
        values = jnp.concatenate([own.values for own in found], axis=-1)
        return inner.joined(found)._replace(values=values)

    def decode(params: Params, extra: Extra, indices: Array) -> Array:
        return jnp.concatenate(inner.decoded(params, extra, indices), axis=-1)

    def alternatives(
        params: Params, extra: Extra, z: Array, indices: Array, count: int
    ) -> Alternatives:
        """The cost is the sum over groups."""
        found = [
            one.alternatives(params[g], extra[g], part, own, count)
            for g, (one, part, own) in enumerate(
                zip(
                    quantisers,
                    jnp.split(z, ends, axis=-1),
                    inner.split(indices),
                    strict=True,
                )
            )
        ]
        chosen, sums = ranking.smallest_sums(jnp.stack([own.costs for own in found]), count)
        each = [
            jnp.take_along_axis(own.indices, which[..., None], axis=-2)
            for own, which in zip(found, chosen, strict=True)
        ]
        return Alternatives(jnp.concatenate(each, axis=-1), sums)

    return Quantiser(
        sum(one.features for one in quantisers),
        quantisers[0].codes,
        sum(one.depth for one in quantisers),
        inner.init,
        assign,
        inner.update,
        decode,
        alternatives,
    )


def projected(quantiser: Quantiser, features: int) -> Quantiser:
    """Linear maps to the quantiser's width and back (Yu et al. 2022, section 3.2).

    Args:
      quantiser: of vectors of any width.
      features: D of the vectors before and after.
    """
    kernel = nn.initializers.lecun_normal()

    def init(key: Array) -> tuple[Params, Extra]:
        own, extra = quantiser.init(keys.named(key, "quantiser"))
        down, up = (features, quantiser.features), (quantiser.features, features)
        params = {
            "quantiser": own,
            "down": {"kernel": kernel(keys.named(key, "down"), down), "bias": jnp.zeros(down[1])},
            "up": {"kernel": kernel(keys.named(key, "up"), up), "bias": jnp.zeros(features)},
        }
        return params, extra

    def along(params: Params, x: Array) -> Array:
        return codebooks.product(x, params["kernel"]) + params["bias"]

    def assign(
        params: Params, extra: Extra, z: Array, train: Train, mask: Array | None
    ) -> Assigned:
        low = along(params["down"], z)
        found = quantiser.assign(params["quantiser"], extra, low, train, mask)
        return found._replace(values=along(params["up"], found.values))

    def update(params: Params, extra: Extra, statistics: Any) -> Extra:
        return quantiser.update(params["quantiser"], extra, statistics)

    def decode(params: Params, extra: Extra, indices: Array) -> Array:
        return along(params["up"], quantiser.decode(params["quantiser"], extra, indices))

    def alternatives(
        params: Params, extra: Extra, z: Array, indices: Array, count: int
    ) -> Alternatives:
        low = along(params["down"], z)
        return quantiser.alternatives(params["quantiser"], extra, low, indices, count)

    return quantiser._replace(
        features=features,
        init=init,
        assign=assign,
        update=update,
        decode=decode,
        alternatives=alternatives,
        estimator=None,
    )


class _several:
    """Several quantisers, with lists of parameters and states."""

    def __init__(self, quantisers: Sequence[Quantiser]) -> None:
        self.quantisers = quantisers

    def init(self, key: Array) -> tuple[Params, Extra]:
        """Each with a key of its own."""
        each = [one.init(_own_key(key, n)) for n, one in enumerate(self.quantisers)]
        return [params for params, _ in each], [extra for _, extra in each]

    def joined(self, found: Sequence[Assigned]) -> Assigned:
        """Their indices side by side, and the means of their losses."""
        losses: Losses = {}
        for own in found:
            for name, loss in own.losses.items():
                losses[name] = losses.get(name, 0.0) + loss / len(found)
        indices = jnp.concatenate([own.indices for own in found], axis=-1)
        extra, statistics = [own.extra for own in found], [own.statistics for own in found]
        return Assigned(found[0].values, indices, losses, extra, statistics)

    def update(self, params: Params, extra: Extra, statistics: Any) -> Extra:
        """Each by its own statistics."""
        return [
            one.update(*own)
            for one, *own in zip(self.quantisers, params, extra, statistics, strict=True)
        ]

    def decoded(self, params: Params, extra: Extra, indices: Array) -> list[Array]:
        """Each one's values, of its own indices."""
        return [
            one.decode(params[n], extra[n], own)
            for n, (one, own) in enumerate(zip(self.quantisers, self.split(indices), strict=True))
        ]

    def split(self, indices: Array) -> list[Array]:
        """The indices of each."""
        ends = np.cumsum([one.depth for one in self.quantisers[:-1]])
        return jnp.split(indices, ends, axis=-1)


def _own(train: Train, number: int) -> Train:
    return None if train is None else (_own_key(train[0], number), train[1])


def _own_key(key: Array, number: int) -> Array:
    return jax.random.fold_in(key, number)
