"""Grids of codes at several levels, the coarsest first: p(c) = p(top) p(bottom | top).

A codebook model has one level, whose items are grids `[B, h, w, depth]`, or several, whose items
are tuples of such grids (VQ-VAE-2, Razavi et al. 2019, section 3.2).
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from rnngen_jax import keys, models
from rnngen_jax.errors import UserError
from rnngen_jax.models.autoregressive import Stage, in_raster_order
from rnngen_jax.models.base import (
    Aux,
    Batch,
    Completion,
    Extra,
    Model,
    Params,
    Scalar,
    sampler,
)
from rnngen_jax.ops import orders
from rnngen_jax.shapes import ImageSpec

Grids = Any  # a grid [B, h, w, depth] of one level, or a tuple of grids, one for each of several

NAMES = {1: ("",), 2: ("top", "bottom")}  # of the levels, by their number


def packed(grids: Sequence[Array]) -> Grids:
    """`Grids` of each level's grid; `jax.tree.leaves` is the inverse."""
    return grids[0] if len(grids) == 1 else tuple(grids)


class Coarser(NamedTuple):
    """What a level's model is given of a coarser level.

    Attributes:
      spec: the coarser level's grids.
      values: for each place of the level, in raster order, the indices of the coarser level's codes
        around it, int32 `[T, N]`; their number V stands for a code outside of the grid.
    """

    spec: ImageSpec
    values: np.ndarray

    def around(self, grids: Array) -> Array:
        """The codes of grids `[B, h, w, depth]` around each place, int32 `[T, B, N]`."""
        values = in_raster_order(grids).astype(jnp.int32)
        outside = jnp.full((1, values.shape[1]), self.spec.levels, jnp.int32)
        return jnp.swapaxes(jnp.concatenate([values, outside])[self.values], 1, 2)


def coarser(spec: ImageSpec, fine: ImageSpec, around: int) -> Coarser:
    """The codes of grids like `spec` at the place above one of `fine`, and around it.

    Args:
      spec, fine: the grids of two levels.
      around: number of places to each side of the one above.
    """
    table = orders.coarser(fine.shape[:2], spec.shape[:2], around)
    codes = np.arange(spec.dims, dtype=np.int32).reshape(-1, spec.channels)
    outside = np.full((1, spec.channels), spec.dims, np.int32)
    return Coarser(spec, np.concatenate([codes, outside])[table].reshape(len(table), -1))


def prior(name: str, config: Any, specs: Sequence[ImageSpec]) -> Model:
    """Builds the prior `name` over codes of one level or more.

    Args:
      name: a model of grids of codes; of several levels one whose file defines `build_level`.
      config: its `Config`, of several levels with a field `around`.
      specs: the grids, the coarsest first.

    Raises:
      UserError: several levels and a model without `build_level`, or a model unsuitable for the
        grids.
    """
    if len(specs) == 1:
        return models.build(name, config, specs[0])
    build_level = models.level_builder(name)
    if build_level is None:
        raise UserError(
            f"{name} is a prior over one grid of codes, and config.vqvae.levels={len(specs)} makes "
            f"{len(specs)}; give --config.vqvae.levels=1, or use the config code_rnn."
        )
    finer = [
        build_level(config, fine, coarser(coarse, fine, config.around))
        for coarse, fine in itertools.pairwise(specs)
    ]
    return over_levels(name, specs, [build_level(config, specs[0]), *finer])


def over_levels(
    name: str, specs: Sequence[ImageSpec], parts: Sequence[Callable[..., Model]]
) -> Model:
    """A model of tuples of grids, each given the coarser ones.

    Its items, the arguments `image` and the results of `sample`, `conditionals` and `log_probs` are
    tuples, and so is its `spec`; it has `stages` in place of `steps`. Its parameters are those of
    the levels by name.

    Args:
      name: the model's name.
      specs: the grids, the coarsest first.
      parts: for each level, `part(*coarser) -> model`, the autoregressive model of its grids given
        the grids of all coarser levels, `[B, h, w, depth]` each. Its parameters and the sizes of
        its steps' states must not depend on them, and its `steps` must have them from `first`.
    """
    names = NAMES[len(specs)]
    dims = sum(spec.dims for spec in specs)
    shared = [part(*_nothing(specs[:n])) for n, part in enumerate(parts)]

    def given(grids: Sequence[Array]) -> list[tuple[str, Model, Array]]:
        """Each level's name, its model given the coarser grids, and its own grid."""
        each = zip(names, parts, grids, strict=True)
        return [(level, part(*grids[:n]), grid) for n, (level, part, grid) in enumerate(each)]

    def init(key: Array) -> tuple[Params, Extra]:
        each = zip(names, shared, strict=True)
        return {
            "model": {level: own.init(keys.named(key, level))[0]["model"] for level, own in each}
        }, {}

    def loss(
        params: Params, extra: Extra, batch: Batch, key: Array, step: Array
    ) -> tuple[Array, Aux]:
        """Mean negative log-likelihood per value of all levels, in nats; coarser codes are true."""
        total, metrics = 0.0, {}
        for level, model, grid in given(batch["image"]):
            own, noise = {**batch, "image": grid}, keys.named(key, level)
            value, _ = model.losses["model"](_of(params, level), {}, own, noise, step)
            nats = value * model.spec.dims
            total = total + nats
            metrics[f"{level}/nats_per_image"] = nats
        whole = {"nats_per_image": total, "bits_per_dim": total / (dims * np.log(2))}
        return total / dims, Aux({**whole, **metrics}, extra)

    def log_prob(params: Params, extra: Extra, batch: Batch, key: Array) -> Array:
        return sum(
            model.log_prob(_of(params, level), extra, {**batch, "image": grid}, key)
            for level, model, grid in given(batch["image"])
        )

    def conditionals(
        params: Params, extra: Extra, image: Grids, label: Array | None = None
    ) -> tuple[Array, ...]:
        return tuple(
            model.conditionals(_of(params, level), extra, grid, label)
            for level, model, grid in given(image)
        )

    def log_probs(raw: Sequence[Array], temperature: Scalar = 1.0) -> tuple[Array, ...]:
        each = zip(shared, raw, strict=True)
        return tuple(own.log_probs(one, temperature) for own, one in each)

    def sample(
        params: Params, extra: Extra, key: Array, label: Array, temperature: Scalar
    ) -> tuple[Array, ...]:
        grids: list[Array] = []
        for level, part in zip(names, parts, strict=True):
            own, noise = _of(params, level), keys.named(key, level)
            model, num = part(*grids), label.shape[0]
            grids.append(model.sample(own, extra, noise, num, label, temperature))
        return tuple(grids)

    def guided(
        params: Params,
        extra: Extra,
        key: Array,
        evidence: Sequence[Array],
        label: Array | None = None,
        temperature: Scalar = 1.0,
    ) -> tuple[Array, ...]:
        grids: list[Array] = []
        for level, part, told in zip(names, parts, evidence, strict=True):
            draw, own, noise = part(*grids).guided, _of(params, level), keys.named(key, level)
            grids.append(draw(own, extra, noise, told, label, temperature))
        return tuple(grids)

    def complete(
        params: Params,
        extra: Extra,
        key: Array,
        image: Sequence[Array],
        known: Sequence[Array],
        label: Array | None = None,
        temperature: Scalar = 1.0,
    ) -> Completion:
        """Each level's unknown codes, given its known ones before them and the coarser grids."""
        grids: list[Array] = []
        for level, part, grid, here in zip(names, parts, image, known, strict=True):
            own, noise = _of(params, level), keys.named(key, level)
            draw = part(*grids).complete
            grids.append(draw(own, extra, noise, grid, here, label, temperature).image)
        return Completion(tuple(grids))

    def stage(number: int) -> Stage:
        own, part, level = shared[number], parts[number], names[number]
        return Stage(
            specs[number],
            own.steps._replace(
                first=lambda params, label, *coarser: part(*coarser).steps.first(params, label)
            ),
            own.log_probs,
            values=lambda params, extra, image, label: image[number],
            bind=lambda params, extra: _of(params, level),
        )

    return Model(
        name=name,
        spec=tuple(specs),
        conditional=any(own.conditional for own in shared),
        init=init,
        losses={"model": loss},
        likelihood="exact",
        log_prob=log_prob,
        sample=sampler(sample),
        complete=complete,
        conditionals=conditionals,
        guided=guided,
        stages=tuple(stage(number) for number in range(len(specs))),
        log_probs=log_probs,
    )


def _of(params: Params, level: str) -> Params:
    return {"model": params["model"][level]}


def _nothing(specs: Sequence[ImageSpec]) -> list[Array]:
    """Grids of one item each, for facts that do not depend on them."""
    return [jnp.zeros((1, *spec.shape), spec.dtype) for spec in specs]
