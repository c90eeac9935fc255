"""Models of images through codes: p(x) from a prior over grids of codes and a decoder.

    -log p(x) <= -log p(x | c) - log p(c)   with c = c(x), the codes that a deterministic encoder
                                            gives

The bound holds for any decoder that is a normalised distribution over images and any prior that is
one over grids of codes, as p(x) sums the products of both over all grids.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from rnngen_jax import keys
from rnngen_jax.errors import UserError
from rnngen_jax.models import code_bound, code_completion
from rnngen_jax.models.autoregressive import Stage, Steps
from rnngen_jax.models.base import (
    Aux,
    Batch,
    Extra,
    Inspection,
    Latent,
    Loss,
    Model,
    Params,
    Scalar,
    sampler,
)
from rnngen_jax.models.levels import NAMES, Grids, packed
from rnngen_jax.models.uniform_prior import Prior
from rnngen_jax.modules.quantisers.base import Alternatives
from rnngen_jax.ops.likelihoods import PixelLikelihood
from rnngen_jax.shapes import IMAGE, ImageSpec

SCORES = ("code_nats", "bits_per_code")  # of a grid of codes, per grid and per code


class Codes(NamedTuple):
    """An encoder to grids of codes, and a decoder that is a distribution over images.

    An image's codes are one grid, or a tuple of grids of several levels (`models.levels.Grids`).

    Attributes:
      specs: the grids of each level, the coarsest first: `(h, w, depth)` with K codes; their
        classes are the images'.
      image_spec: the images.
      width: D of a code's vector.
      encode: `encode(params, extra, image) -> codes`, grids `[B, h, w, depth]` of their spec's
        dtype, as in evaluation.
      alternatives: `alternatives(params, extra, image, count)`, the `Alternatives` of each level's
        places, indices `[B, h, w, M, depth]` and costs `[B, h, w, M]`; the first are those of
        `encode`.
      vectors: `vectors(params, extra, codes)`, `[B, h, w, D]` of each level.
      decode: `decode(params, extra, vectors) -> raw [B, H, W, C, P]`, from the vectors of all
        levels.
      likelihood: the distribution of a value given its raw outputs.
      needs: `needs(params, extra) -> (params, extra)`, what the functions above read of a model's
        arrays: a prior keeps no more of its tokenizer.
      bind: `bind(params, extra) -> (params, extra)`: of a whole model's, those that the functions
        above take. Set by `coded_model`, as `prior` is.
      prior: the distribution over the grids.
    """

    specs: tuple[ImageSpec, ...]
    image_spec: ImageSpec
    width: int
    encode: Callable[[Params, Extra, Array], Grids]
    alternatives: Callable[[Params, Extra, Array, int], tuple[Alternatives, ...]]
    vectors: Callable[[Params, Extra, Grids], Any]
    decode: Callable[[Params, Extra, Any], Array]
    likelihood: PixelLikelihood
    needs: Callable[[Params, Extra], tuple[Params, Extra]] = lambda params, extra: (params, extra)
    bind: Callable[[Params, Extra], tuple[Params, Extra]] | None = None
    prior: Prior | None = None

    @property
    def spec(self) -> ImageSpec:
        """The grids, of a single level.

        Raises:
          UserError: there are several levels.
        """
        if len(self.specs) > 1:
            raise UserError(
                f"this takes one grid of codes per image, and the tokenizer has {len(self.specs)} "
                f"({' and '.join(self.names)}), which mean nothing without one another."
            )
        return self.specs[0]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the levels; one level has the empty name."""
        return NAMES[len(self.specs)]

    @property
    def dims(self) -> int:
        """Codes per image, of all levels and depths."""
        return sum(spec.dims for spec in self.specs)

    def latents(self, vectors: Any) -> Array:
        """The vectors of all levels side by side, `[B, S, D]`."""
        flat = [x.reshape(x.shape[0], -1, self.width) for x in jax.tree.leaves(vectors)]
        return flat[0] if len(flat) == 1 else jnp.concatenate(flat, axis=1)

    def from_latents(self, latents: Array) -> Any:
        """The inverse of `latents`."""
        ends = np.cumsum([spec.height * spec.width for spec in self.specs])[:-1]
        flat = [latents] if len(self.specs) == 1 else jnp.split(latents, ends, axis=1)
        each = zip(flat, self.specs, strict=True)
        return packed([x.reshape(-1, spec.height, spec.width, self.width) for x, spec in each])

    @property
    def row_spec(self) -> ImageSpec:
        """All codes of an image in a row, `(1, V, 1)`."""
        most = max(spec.levels for spec in self.specs)
        return ImageSpec(1, self.dims, 1, most, self.specs[0].classes)

    def row(self, grids: Grids) -> Array:
        """The codes of all levels, places and depths in a row, `[B, 1, V, 1]`."""
        flat = [x.reshape(x.shape[0], -1) for x in jax.tree.leaves(grids)]
        whole = jnp.concatenate([x.astype(self.row_spec.dtype) for x in flat], axis=1)
        return whole[:, None, :, None]

    def from_row(self, row: Array) -> Grids:
        """The inverse of `row`."""
        ends = np.cumsum([spec.dims for spec in self.specs])[:-1]
        each = zip(jnp.split(row[:, 0, :, 0], ends, axis=1), self.specs, strict=True)
        return packed([x.reshape(-1, *spec.shape).astype(spec.dtype) for x, spec in each])

    def raw(self, params: Params, extra: Extra, codes: Grids) -> Array:
        """Raw outputs `[B, H, W, C, P]` of codes."""
        return self.decode(params, extra, self.vectors(params, extra, codes))

    def log_likelihood(self, params: Params, extra: Extra, codes: Grids, image: Array) -> Array:
        """log p(x|c), `[B]` nats."""
        raw = self.raw(params, extra, codes)
        log_p = self.likelihood.log_prob(raw, image.astype(jnp.int32))
        return log_p.sum(range(1, log_p.ndim))


class Lossy(NamedTuple):
    """Coding of images by their codes alone, which loses what the codes do not tell.

    All codes of an image stand in a row, `Codes.row`. All functions take the parameters and the
    state of the whole model.

    Attributes:
      rows: the rows of codes under the prior, as a model with `log_prob` and `stages`, one for each
        level.
      encode: `encode(params, extra, image) -> rows [B, 1, V, 1]`, of `rows.spec.dtype`.
      decode: `decode(params, extra, rows) -> float32 [B, H, W, C]`, the expected images in [0, 1].
    """

    rows: Model
    encode: Callable[[Params, Extra, Array], Array]
    decode: Callable[[Params, Extra, Array], Array]


def of_grids(model: Model) -> Model:
    """A model whose items are grids of codes, with names of its own for what it measures."""
    names = dict(zip(model.scores, SCORES, strict=True))

    def renamed(loss: Loss) -> Loss:
        def of_codes(*given: Any) -> tuple[Array, Aux]:
            value, aux = loss(*given)
            metrics = {names.get(name, name): found for name, found in aux.metrics.items()}
            return value, aux._replace(metrics=metrics)

        return of_codes

    losses = {player: renamed(loss) for player, loss in model.losses.items()}
    return model._replace(losses=losses, scores=SCORES)


def coded_model(
    name: str,
    init: Callable[[Array], tuple[Params, Extra]],
    losses: Mapping[str, Loss],
    codes: Codes,
    tokenizer: Callable[[Params, Extra], tuple[Params, Extra]],
    prior: Prior,
    bound: str,
    reported: Mapping[str, Callable[[Params, Extra, Batch], Array] | None] | None = None,
) -> Model:
    """Builds a model of images from codes and a prior over them.

    Its latents are the vectors of the codes, `[B, S, D]` with S = h·w, summed over levels.

    Args:
      name: the model's name.
      init, losses: as in `Model`.
      codes: encoder and decoder.
      tokenizer: `tokenizer(params, extra) -> (params, extra)` of `codes`.
      prior: the prior over codes.
      bound: the bound's name.
      reported: by name, the priors that `evaluate` reports: log p(c) `[B]` of a batch of codes,
        `log_p(params, extra, batch)`; `None` for the prior's own.
    """
    spec, likelihood = codes.image_spec, codes.likelihood
    places = sum(grid.height * grid.width for grid in codes.specs)

    def of_codes(batch: Batch, found: Grids) -> Batch:
        return {IMAGE: found, "label": batch["label"], "index": batch["index"]}

    def encoded(params: Params, extra: Extra, batch: Batch) -> tuple[Grids, Array]:
        """An image's codes, and log p(x|c) `[B]`."""
        own = tokenizer(params, extra)
        found = codes.encode(*own, batch[spec.key])
        return found, codes.log_likelihood(*own, found, batch[spec.key])

    def log_prior(params: Params, extra: Extra, batch: Batch, key: Array) -> Array:
        return prior.model.log_prob(prior.params(params, extra), {}, batch, key)

    def log_prob(params: Params, extra: Extra, batch: Batch, key: Array) -> Array:
        found, log_p = encoded(params, extra, batch)
        return log_p + log_prior(params, extra, of_codes(batch, found), key)

    def log_prob_over(params: Params, extra: Extra, batch: Batch, key: Array, count: int) -> Array:
        own, image = tokenizer(params, extra), batch[spec.key]

        def log_joint(found: Grids) -> Array:
            log_p = codes.log_likelihood(*own, found, image)
            return log_p + log_prior(params, extra, of_codes(batch, found), key)

        find = functools.partial(codes.alternatives, *own)
        found = code_bound.candidates(find, image, count)
        grids = [x.astype(grid.dtype) for x, grid in zip(found, codes.specs, strict=True)]
        return code_bound.log_sum(log_joint, packed(grids))

    def under(log_p_of: Callable[[Params, Extra, Batch], Array] | None) -> Callable[..., Array]:
        if log_p_of is None:
            return log_prob

        def of_other(params: Params, extra: Extra, batch: Batch, key: Array) -> Array:
            del key
            found, log_p = encoded(params, extra, batch)
            return log_p + log_p_of(params, extra, of_codes(batch, found))

        return of_other

    def codes_drawn(
        params: Params, extra: Extra, key: Array, label: Array, temperature: Scalar
    ) -> Grids:
        own = prior.params(params, extra)
        return prior.model.sample(own, {}, key, label.shape[0], label, temperature)

    def drawn(params: Params, extra: Extra, key: Array, label: Array, temperature: Scalar) -> Array:
        found = codes_drawn(params, extra, key, label, temperature)
        return codes.latents(codes.vectors(*tokenizer(params, extra), found))

    def sample(
        params: Params, extra: Extra, key: Array, label: Array, temperature: Scalar
    ) -> Array:
        own = tokenizer(params, extra)
        found = codes_drawn(params, extra, keys.named(key, "prior"), label, temperature)
        raw = codes.raw(*own, found)
        return likelihood.draw(keys.named(key, "pixels"), raw, temperature).astype(spec.dtype)

    def encode(params: Params, extra: Extra, image: Array, label: Array | None = None) -> Array:
        del label
        own = tokenizer(params, extra)
        return codes.latents(codes.vectors(*own, codes.encode(*own, image)))

    def decode(params: Params, extra: Extra, latents: Array, label: Array | None = None) -> Array:
        del label
        vectors = codes.from_latents(latents)
        return likelihood.mean(codes.decode(*tokenizer(params, extra), vectors))

    def nats_of(log_p: Array, found: Array) -> Array:
        return -jnp.take_along_axis(log_p, found[..., None].astype(jnp.int32), axis=-1)

    def in_line(grid: Array) -> Array:
        return grid.reshape(grid.shape[0], -1, grid.shape[-1])

    def inspect(params: Params, extra: Extra, batch: Batch, key: Array) -> Inspection:
        del key
        found, log_p = encoded(params, extra, batch)
        vectors = codes.latents(codes.vectors(*tokenizer(params, extra), found))
        raw = prior.model.conditionals(prior.params(params, extra), {}, found, batch["label"])
        spent = jax.tree.map(nats_of, prior.model.log_probs(raw), found)
        image = decode(params, extra, vectors)
        error = jnp.square(image - batch[spec.key] / (spec.levels - 1))
        grids = jax.tree.map(in_line, found)
        each = jax.tree.leaves(jax.tree.map(lambda x, grid: x.reshape(grid.shape), spent, grids))
        return Inspection(
            log_p,
            each[0] if len(each) == 1 else jnp.concatenate(each, axis=1),
            vectors,
            error.mean(range(1, error.ndim)),
            jax.tree.map(lambda grid: grid.astype(jnp.int32), grids),
        )

    stages = _stages(codes, tokenizer, prior)
    rows = Model(
        name=name,
        spec=codes.row_spec,
        conditional=prior.model.conditional,
        init=init,
        losses={},
        likelihood="exact",
        log_prob=lambda params, extra, batch, key: log_prior(
            params, extra, of_codes(batch, codes.from_row(batch[IMAGE])), key
        ),
        stages=tuple(_of_row(codes, n, stage) for n, stage in enumerate(stages[:-1])),
    )
    return Model(
        name=name,
        spec=spec,
        conditional=prior.model.conditional,
        init=init,
        losses=losses,
        likelihood=bound,
        log_prob=log_prob,
        log_prob_over=log_prob_over,
        sample=sampler(sample),
        complete=code_completion.completer(codes, tokenizer, prior),
        candidates=code_completion.CANDIDATES,
        stages=stages,
        latent=Latent(
            shape=(places, codes.width),
            encode=encode,
            decode=decode,
            inspect=inspect,
            prior=sampler(drawn),
            completion=code_completion.METHOD,
        ),
        codes=codes._replace(bind=tokenizer, prior=prior),
        lossy=Lossy(
            rows,
            lambda params, extra, image: codes.row(codes.encode(*tokenizer(params, extra), image)),
            lambda params, extra, found: likelihood.mean(
                codes.raw(*tokenizer(params, extra), codes.from_row(found))
            ),
        ),
        log_probs_under={name: under(log_p) for name, log_p in (reported or {}).items()},
    )


def _stages(
    codes: Codes, tokenizer: Callable[[Params, Extra], tuple[Params, Extra]], prior: Prior
) -> tuple[Stage, ...]:
    """Codes under the prior, level by level, then rows of pixels given the codes."""
    spec = codes.image_spec
    row = spec.width * spec.channels

    def of_level(number: int, stage: Stage) -> Stage:
        def values(params: Params, extra: Extra, image: Array, label: Array) -> Array:
            del label
            return jax.tree.leaves(codes.encode(*tokenizer(params, extra), image))[number]

        def bind(params: Params, extra: Extra) -> Any:
            own = prior.params(params, extra)
            return own if stage.bind is None else stage.bind(own, {})

        return stage._replace(values=values, bind=bind)

    def first(own: tuple[Params, Extra], label: Array, *found: Array) -> Array:
        raw = codes.raw(*own, packed(found))
        return raw.reshape(label.shape[0], spec.height, row, codes.likelihood.size)

    def raw_of_row(own: Any, state: Array, t: Array, turn: int, seen: Array) -> tuple[Array, Array]:
        del own, turn, seen
        return state, jax.lax.dynamic_index_in_dim(state, t, 1, keepdims=False)

    starts = np.arange(spec.height, dtype=np.int32)[:, None, None] * row
    own = prior.model
    of_codes = own.stages or (Stage(codes.spec, own.steps, own.log_probs, masses=own.masses),)
    steps, likelihood = Steps(starts, row, first, raw_of_row), codes.likelihood
    return (
        *(of_level(number, stage) for number, stage in enumerate(of_codes)),
        Stage(spec, steps, likelihood.log_probs, bind=tokenizer, masses=likelihood.masses),
    )


def _of_row(codes: Codes, number: int, stage: Stage) -> Stage:
    """The stage of a level, where an item is a row of codes in the place of an image."""

    def values(params: Params, extra: Extra, row: Array, label: Array) -> Array:
        del params, extra, label
        return jax.tree.leaves(codes.from_row(row))[number]

    return stage._replace(values=values)
