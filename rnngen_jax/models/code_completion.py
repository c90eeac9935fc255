"""Completion with models of codes: grids of codes given the known pixels, then the unknown ones.

The target is p(c|k) ∝ p(c) p(k|c), of grids of codes c given the values k of the known pixels; p is
the distribution of `sample` at the same temperature. Draws of p(c) fit k only by chance, so:

1. The encoder is asked. It wants a whole image, so the unknown pixels are filled in with those that
   are expected given codes drawn before, at first from the prior. What a code costs the encoder
   above its own choice, times the share of known pixels around the place, is evidence against it.
2. Codes are drawn place by place from p(c_t|c_<t) times exp(evidence), normalised. As the scale of
   the costs is not known, the proposal q(c) is a mixture over several scales, and one of its parts
   is the prior itself, so that no weight is far above p(k|c). One of the draws is chosen by its
   weight p(c) p(k|c) / q(c) (sampling-importance-resampling).
3. Code by code, several proposals for a code given all others, from the same mixture for that code,
   are weighed by the target, and one of them or the current code is kept (multiple-try Metropolis,
   `ops.resampling`). Each such step leaves the target invariant, so that sweeps over all codes
   bring them only nearer to it.

The rounds of 1 and 2 before the last are a search: they decide where draws are looked for, and with
many draws in the last round the codes follow the target whatever was found before.
"""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from rnngen_jax import keys
from rnngen_jax.models import code_bound
from rnngen_jax.models.base import (
    Completion,
    Extra,
    Given,
    Model,
    Params,
    Scalar,
    labels_for,
)
from rnngen_jax.models.levels import Grids, packed
from rnngen_jax.modules.quantisers.base import Alternatives
from rnngen_jax.ops import resampling
from rnngen_jax.shapes import ImageSpec

if TYPE_CHECKING:  # they are made of this
    from rnngen_jax.models.codes import Codes
    from rnngen_jax.models.uniform_prior import Prior

CANDIDATES = 64  # default draws that codes are chosen from
ROUNDS = 3  # of draws, the first without evidence, the last to be chosen from
SWEEPS = 6
TRIES = 4  # proposals for each code
SCALES = (0.0, 0.5, 2.0, 8.0)  # nats that second nearest codes cost on average, of the mixture
PER_CODE = 4  # alternatives of several depths that are looked at, for each code of one depth

METHOD = f"importance resampling of codes, then {SWEEPS} sweeps of Metropolis steps"


class Target(NamedTuple):
    """p(c | k) up to a constant, for a batch of images.

    Attributes:
      log_probs: `log_probs(codes)`, log p of every code given those before it, of each level
        `[B, h, w, depth, K]`.
      log_known: `log_known(codes) -> [B]`, log p(k|c).
      guided: `guided(key, evidence) -> codes`, as `Model.guided`.
      evidence: `evidence(image)`, as the function of that name, of images without unknown pixels.
      fill: `fill(codes) -> image`, the unknown pixels being those expected given codes.
    """

    log_probs: Callable[[Grids], Grids]
    log_known: Callable[[Grids], Array]
    guided: Callable[[Array, Grids], Grids]
    evidence: Callable[[Array], Grids]
    fill: Callable[[Grids], Array]


class Drawn(NamedTuple):
    """Grids of codes given the known pixels.

    Attributes:
      codes: the grids.
      effective: the effective sample size of the draws that they were chosen from, `[B]`.
      moved: the fraction of the Metropolis steps that changed a code, `[B]`.
    """

    codes: Grids
    effective: Array
    moved: Array


def completer(
    codes: "Codes", tokenizer: Callable[[Params, Extra], tuple[Params, Extra]], prior: "Prior"
) -> Callable[..., Completion]:
    """`Model.complete` of a model of codes; arguments as for `codes.coded_model`."""
    spec, likelihood = codes.image_spec, codes.likelihood

    def complete(
        params: Params,
        extra: Extra,
        key: Array,
        image: Array,
        known: Array,
        label: Array | None = None,
        temperature: Scalar = 1.0,
        candidates: int = CANDIDATES,
    ) -> Completion:
        own, of_prior = tokenizer(params, extra), prior.params(params, extra)
        label = labels_for(label, len(image))
        given = Given(image, known)
        target = target_of(codes, own, prior.model, of_prior, given, label, temperature)
        found = draw(target, image, key, candidates)
        raw = codes.raw(*own, found.codes)
        drawn = likelihood.draw(keys.named(key, "pixels"), raw, temperature).astype(spec.dtype)
        filled = jnp.where(known[..., None], image, drawn)
        return Completion(filled, found.effective, found.moved)

    return complete


def target_of(
    codes: "Codes",
    own: tuple[Params, Extra],
    prior: Model,
    of_prior: Params,
    given: Given,
    label: Array,
    temperature: Scalar,
) -> Target:
    """The target of a model of codes.

    Args:
      codes: encoder and decoder.
      own: their parameters.
      prior: the model of the grids of codes.
      of_prior: its parameters.
      given: the images.
      label: int `[B]`.
      temperature: of the prior and of the pixels.
    """
    likelihood, top = codes.likelihood, codes.image_spec.levels - 1
    visible, values = given.known[..., None], given.image.astype(jnp.int32)

    def log_probs(found: Grids) -> Grids:
        return prior.log_probs(prior.conditionals(of_prior, {}, found, label), temperature)

    def log_known(found: Grids) -> Array:
        log_p = likelihood.log_prob(codes.raw(*own, found), values, temperature)
        return jnp.where(visible, log_p, 0.0).sum(range(1, log_p.ndim))

    def guided(key: Array, told: Grids) -> Grids:
        return prior.guided(of_prior, {}, key, told, label, temperature)

    def asked(image: Array) -> Grids:
        alternatives = functools.partial(codes.alternatives, *own)
        return evidence(alternatives, codes.specs, image, given.known)

    def fill(found: Grids) -> Array:
        levels = jnp.rint(top * likelihood.mean(codes.raw(*own, found)))
        return jnp.where(visible, given.image, levels.astype(given.image.dtype))

    return Target(log_probs, log_known, guided, asked, fill)


def draw(target: Target, image: Array, key: Array, candidates: int, sweeps: int = SWEEPS) -> Drawn:
    """Draws grids of codes from a target.

    Args:
      target: the target.
      image: `[B, ...]`; what its unknown pixels are is not read.
      key: a random key.
      candidates: number of draws in each round.
      sweeps: over all codes.
    """

    def one_round(state: Any, each: tuple[Array, Array]) -> tuple[Any, None]:
        (filled, *_), (key, told) = state, each
        own = jax.tree.map(lambda table: told * table, target.evidence(filled))
        one = functools.partial(propose, target, own)
        codes, effective = resampling.by_importance(one, key, candidates)
        return (target.fill(codes), own, codes, effective), None

    rounds = jax.random.split(keys.named(key, "rounds"), ROUNDS), jnp.arange(ROUNDS) > 0
    shapes, _ = jax.eval_shape(lambda x: one_round((x,), (key, True)), image)
    blank = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    (_, told, codes, effective), _ = jax.lax.scan(one_round, (image, *blank[1:]), rounds)

    def one_sweep(codes: Grids, key: Array) -> tuple[Grids, Array]:
        return sweep(target, told, codes, key)

    each = jax.random.split(keys.named(key, "sweeps"), sweeps)
    codes, moved = jax.lax.scan(one_sweep, codes, each)
    return Drawn(codes, effective, moved.mean(0) if sweeps else jnp.zeros_like(effective))


def propose(target: Target, evidence: Grids, key: Array) -> tuple[Grids, Array]:
    """A draw of the mixture for each image, and its log-weight log p(c) p(k|c) / q(c), `[B]`."""
    tables = jax.tree.leaves(evidence)
    parts, num = tables[0].shape[:2]
    part = jax.random.randint(keys.named(key, "part"), (num,), 0, parts)
    own = packed([table[part, jnp.arange(num)] for table in tables])
    codes = target.guided(keys.named(key, "codes"), own)
    log_p = target.log_probs(codes)
    each = jax.tree.map(lambda table, told: _normalised(table + told), log_p, evidence)
    log_q = _mean_exp(_log_of(each, codes))
    return codes, _log_of(log_p, codes) - log_q + target.log_known(codes)


State = tuple[list[Array], list[Array], Array]  # codes [B, V], their log_p, and the log-target


def sweep(target: Target, evidence: Grids, codes: Grids, key: Array) -> tuple[Grids, Array]:
    """Step 3: a multiple-try Metropolis step for every code, level by level in raster order.

    Returns:
      The codes, and the fraction of them that changed, `[B]`.
    """
    grids, tables = jax.tree.leaves(codes), jax.tree.leaves(evidence)
    num, images = grids[0].shape[0], jnp.arange(grids[0].shape[0])
    in_line = [table.reshape(*table.shape[:2], -1, table.shape[-1]) for table in tables]

    def weighed(flat: list[Array]) -> tuple[list[Array], Array]:
        """log p of every code, `[B, V, K]` of each level, and the log-target `[B]`."""
        own = [x.reshape(grid.shape) for x, grid in zip(flat, grids, strict=True)]
        log_p = target.log_probs(packed(own))
        whole = _log_of(log_p, packed(own)) + target.log_known(packed(own))
        return [x.reshape(num, -1, x.shape[-1]) for x in jax.tree.leaves(log_p)], whole

    def at_level(level: int) -> Callable[[State, tuple[Array, Array]], tuple[State, Array]]:
        def step(state: State, where: tuple[Array, Array]) -> tuple[State, Array]:
            (flat, log_p, now), (v, key) = state, where
            q = _mean_exp(_normalised(log_p[level][:, v] + in_line[level][:, :, v]))
            tries = jax.random.categorical(keys.named(key, "codes"), q, shape=(TRIES, num))

            def with_code(code: Array) -> list[Array]:
                new = flat[level].at[:, v].set(code.astype(flat[level].dtype))
                return [*flat[:level], new, *flat[level + 1 :]]

            found, log_target = jax.vmap(lambda code: weighed(with_code(code)))(tries)
            before = flat[level][:, v].astype(jnp.int32)
            which, taken = resampling.multiple_try(
                keys.named(key, "which"),
                now - q[images, before],
                log_target - q[images, tries],
            )
            code = jnp.where(taken, tries[which, images], before)
            log_p = [
                jnp.where(taken[:, None, None], new[which, images], old)
                for new, old in zip(found, log_p, strict=True)
            ]
            now = jnp.where(taken, log_target[which, images], now)
            return (with_code(code), log_p, now), code != before

        return step

    flat = [grid.reshape(num, -1) for grid in grids]
    state, changed = (flat, *weighed(flat)), []
    for level, grid in enumerate(flat):
        places = jnp.arange(grid.shape[1])
        own = jax.random.split(jax.random.fold_in(key, level), len(places))
        state, moved = jax.lax.scan(at_level(level), state, (places, own))
        changed.append(moved)
    found = [x.reshape(grid.shape) for x, grid in zip(state[0], grids, strict=True)]
    return packed(found), jnp.concatenate(changed).mean(0)


def evidence(
    alternatives: Callable[[Array, int], tuple[Alternatives, ...]],
    specs: tuple[ImageSpec, ...],
    filled: Array,
    known: Array,
) -> Grids:
    """What the encoder has against each code at each place, at each of `SCALES`.

    Args:
      alternatives: `alternatives(image, count)`, of the codes of each place of each level.
      specs: the grids of each level.
      filled: images with the unknown pixels filled in, `[B, H, W, C]`.
      known: bool `[B, H, W]`.

    Returns:
      Nats ≤ 0 of each level, `[M, B, h, w, depth, K]`, all 0 where no pixel is known.
    """

    deep = max(spec.channels for spec in specs) > 1
    count = max(spec.levels for spec in specs) * (PER_CODE if deep else 1)

    def of_one(found: tuple[Alternatives, ...]) -> tuple[Array, ...]:
        return tuple(least_costs(own, spec) for own, spec in zip(found, specs, strict=True))

    def against(costs: Array) -> Array:
        share = jax.image.resize(known.astype(jnp.float32), costs.shape[:3], "linear")
        scales = jnp.reshape(jnp.array(SCALES), (-1, 1, 1, 1, 1, 1))
        return -scales * costs * share[..., None, None]

    return packed(list(map(against, code_bound.of_each(alternatives, filled, count, of_one))))


def least_costs(found: Alternatives, spec: ImageSpec) -> Array:
    """What each code at each depth costs at least, `[h, w, depth, K]`, from `[h, w, M, depth]`.

    In units of what the second alternative costs on average over places. Codes in none of the
    alternatives cost as much as the last one.
    """
    indices, costs = found
    shape = (*costs.shape[:-1], spec.levels, spec.channels)
    *place, _, depth = np.ogrid[tuple(map(slice, indices.shape))]
    listed = jnp.broadcast_to(costs[..., None], indices.shape)
    table = jnp.broadcast_to(costs[..., -1:, None], shape)
    table = table.at[(*place, indices, depth)].min(listed)
    second = costs[..., min(1, costs.shape[-1] - 1)].mean()
    return jnp.swapaxes(table, -1, -2) / jnp.maximum(second, np.finfo(np.float32).tiny)


def _normalised(logits: Array) -> Array:
    return jax.nn.log_softmax(logits)


def _mean_exp(log_p: Array) -> Array:
    """log of the mean over the parts of a mixture, the first axis."""
    return jax.nn.logsumexp(log_p, axis=0) - np.log(log_p.shape[0])


def _log_of(log_p: Grids, codes: Grids) -> Array:
    """log p of codes, `[..., B]`, from that of every code, `[..., B, h, w, depth, K]`."""

    def of_level(table: Array, grid: Array) -> Array:
        at = jnp.broadcast_to(grid, table.shape[:-1])[..., None].astype(jnp.int32)
        return jnp.take_along_axis(table, at, axis=-1)[..., 0].sum((-3, -2, -1))

    each = jax.tree.leaves(jax.tree.map(of_level, log_p, codes))
    return sum(each[1:], start=each[0])
