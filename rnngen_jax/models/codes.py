"""Models of images through codes: p(x) from a prior over grids of codes and a decoder.

    -log p(x) <= -log p(x | c) - log p(c)   with c = c(x), the codes that a deterministic encoder
                                            gives

The bound holds for any decoder that is a normalised distribution over images and any prior that is
one over grids of codes, as p(x) sums the products of both over all grids.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from rnngen_jax import keys
from rnngen_jax.models.autoregressive import Stage, Steps
from rnngen_jax.models.base import (
    Batch,
    Completion,
    Extra,
    Inspection,
    Latent,
    Loss,
    Model,
    Params,
    Scalar,
    labels_for,
    sampler,
)
from rnngen_jax.ops import resampling
from rnngen_jax.ops.likelihoods import PixelLikelihood
from rnngen_jax.shapes import ImageSpec

CANDIDATES = 64  # default draws of codes that a completion is chosen from


class Codes(NamedTuple):
    """An encoder to grids of codes, and a decoder that is a distribution over images.

    Attributes:
      spec: the grids of codes, `(h, w, depth)` with K levels; its classes are the images'.
      image_spec: the images.
      width: D of a code's vector.
      encode: `encode(params, extra, image) -> codes [B, h, w, depth]`, of `spec.dtype`, as in
        evaluation.
      vectors: `vectors(params, extra, codes) -> [B, h, w, D]`.
      decode: `decode(params, extra, vectors) -> raw [B, H, W, C, P]`.
      likelihood: the distribution of a value given its raw outputs.
      needs: `needs(params, extra) -> (params, extra)`, what the functions above read of a model's
        arrays: a prior keeps no more of its tokenizer.
    """

    spec: ImageSpec
    image_spec: ImageSpec
    width: int
    encode: Callable[[Params, Extra, Array], Array]
    vectors: Callable[[Params, Extra, Array], Array]
    decode: Callable[[Params, Extra, Array], Array]
    likelihood: PixelLikelihood
    needs: Callable[[Params, Extra], tuple[Params, Extra]] = lambda params, extra: (params, extra)

    def raw(self, params: Params, extra: Extra, codes: Array) -> Array:
        """Raw outputs `[B, H, W, C, P]` of codes."""
        return self.decode(params, extra, self.vectors(params, extra, codes))

    def log_likelihood(self, params: Params, extra: Extra, codes: Array, image: Array) -> Array:
        """log p(x|c), `[B]` nats."""
        raw = self.raw(params, extra, codes)
        log_p = self.likelihood.log_prob(raw, image.astype(jnp.int32))
        return log_p.sum(range(1, log_p.ndim))


class Prior(NamedTuple):
    """A distribution over grids of codes, as a model of them, and where its parameters are.

    Attributes:
      model: a model with `log_prob`, `conditionals`, `sample`, `steps` and `log_probs`.
      params: `params(params, extra)`, its part of the parameters of the whole.
    """

    model: Model
    params: Callable[[Params, Extra], Params]


def uniform(spec: ImageSpec) -> Model:
    """All codes equally likely: log K nats each. It has no parameters."""
    row = spec.width * spec.channels

    def log_prob(params: Params, extra: Extra, batch: Batch, key: Array) -> Array:
        del params, extra, key
        num = batch[spec.key].shape[0]
        return jnp.full(num, -spec.dims * np.log(spec.levels), jnp.float32)

    def log_probs(raw: Array) -> Array:
        return jnp.full((*raw.shape[:-1], spec.levels), -np.log(spec.levels), jnp.float32)

    def conditionals(
        params: Params, extra: Extra, image: Array, label: Array | None = None
    ) -> Array:
        del params, extra, label
        return jnp.zeros((*image.shape, 1))

    def sample(
        params: Params, extra: Extra, key: Array, label: Array, temperature: Scalar
    ) -> Array:
        del params, extra, temperature
        drawn = jax.random.randint(key, (label.shape[0], *spec.shape), 0, spec.levels)
        return drawn.astype(spec.dtype)

    def raw_of_row(
        params: Params, label: Array, t: Array, turn: int, seen: Array
    ) -> tuple[Array, Array]:
        del params, t, turn, seen
        return label, jnp.zeros((label.shape[0], row, 1))

    starts = np.arange(spec.height, dtype=np.int32)[:, None, None] * row
    return Model(
        name="uniform",
        spec=spec,
        conditional=False,
        init=lambda key: ({"model": {}}, {}),
        losses={},
        likelihood="exact",
        log_prob=log_prob,
        sample=sampler(sample),
        conditionals=conditionals,
        steps=Steps(starts, row, lambda params, label: label, raw_of_row),
        log_probs=log_probs,
    )


def coded_model(
    name: str,
    init: Callable[[Array], tuple[Params, Extra]],
    losses: Mapping[str, Loss],
    codes: Codes,
    tokenizer: Callable[[Params, Extra], tuple[Params, Extra]],
    prior: Prior,
    bound: str,
    others: Mapping[str, Callable[[Params, Extra, Batch], Array]] | None = None,
) -> Model:
    """Builds a model of images from codes and a prior over them.

    Its latents are the vectors of the codes, `[B, h·w, D]`.

    Args:
      name: the model's name.
      init, losses: as in `Model`.
      codes: encoder and decoder.
      tokenizer: `tokenizer(params, extra) -> (params, extra)` of `codes`.
      prior: the prior over codes.
      bound: the bound's name.
      others: by name, other priors' log p(c) `[B]` of a batch of codes:
        `log_p(params, extra, batch)`.
    """
    spec, grid = codes.image_spec, codes.spec
    places = grid.height * grid.width
    likelihood = codes.likelihood

    def of_codes(batch: Batch, found: Array) -> Batch:
        return {grid.key: found, "label": batch["label"], "index": batch["index"]}

    def encoded(params: Params, extra: Extra, batch: Batch) -> tuple[Array, Array]:
        """An image's codes, and log p(x|c) `[B]`."""
        own = tokenizer(params, extra)
        found = codes.encode(*own, batch[spec.key])
        return found, codes.log_likelihood(*own, found, batch[spec.key])

    def log_prior(params: Params, extra: Extra, batch: Batch, key: Array) -> Array:
        return prior.model.log_prob(prior.params(params, extra), {}, batch, key)

    def log_prob(params: Params, extra: Extra, batch: Batch, key: Array) -> Array:
        found, log_p = encoded(params, extra, batch)
        return log_p + log_prior(params, extra, of_codes(batch, found), key)

    def under(log_p_of: Callable[[Params, Extra, Batch], Array]) -> Callable[..., Array]:
        def log_prob(params: Params, extra: Extra, batch: Batch, key: Array) -> Array:
            del key
            found, log_p = encoded(params, extra, batch)
            return log_p + log_p_of(params, extra, of_codes(batch, found))

        return log_prob

    def codes_drawn(
        params: Params, extra: Extra, key: Array, label: Array, temperature: Scalar
    ) -> Array:
        own = prior.params(params, extra)
        return prior.model.sample(own, {}, key, label.shape[0], label, temperature)

    def flat(vectors: Array) -> Array:
        return vectors.reshape(vectors.shape[0], places, codes.width)

    def drawn(params: Params, extra: Extra, key: Array, label: Array, temperature: Scalar) -> Array:
        found = codes_drawn(params, extra, key, label, temperature)
        return flat(codes.vectors(*tokenizer(params, extra), found))

    def sample(
        params: Params, extra: Extra, key: Array, label: Array, temperature: Scalar
    ) -> Array:
        own = tokenizer(params, extra)
        found = codes_drawn(params, extra, keys.named(key, "prior"), label, temperature)
        raw = codes.raw(*own, found)
        return likelihood.draw(keys.named(key, "pixels"), raw, temperature).astype(spec.dtype)

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
        """Codes from the prior, weighted by the likelihood of the known pixels given them."""
        own, label = tokenizer(params, extra), labels_for(label, image.shape[0])

        def draw(key: Array) -> tuple[Array, Array]:
            found = codes_drawn(params, extra, keys.named(key, "prior"), label, temperature)
            raw = codes.raw(*own, found)
            values = likelihood.draw(keys.named(key, "pixels"), raw, temperature)
            log_p = likelihood.log_prob(raw, image.astype(jnp.int32), temperature)
            weight = jnp.where(known[..., None], log_p, 0.0).sum(range(1, log_p.ndim))
            filled = jnp.where(known[..., None], image, values.astype(spec.dtype))
            return filled, weight

        return Completion(*resampling.by_importance(draw, key, candidates))

    def encode(params: Params, extra: Extra, image: Array, label: Array | None = None) -> Array:
        del label
        own = tokenizer(params, extra)
        return flat(codes.vectors(*own, codes.encode(*own, image)))

    def decode(params: Params, extra: Extra, latents: Array, label: Array | None = None) -> Array:
        del label
        vectors = latents.reshape(-1, grid.height, grid.width, codes.width)
        return likelihood.mean(codes.decode(*tokenizer(params, extra), vectors))

    def inspect(params: Params, extra: Extra, batch: Batch, key: Array) -> Inspection:
        del key
        found, log_p = encoded(params, extra, batch)
        vectors = flat(codes.vectors(*tokenizer(params, extra), found))
        raw = prior.model.conditionals(prior.params(params, extra), {}, found, batch["label"])
        each = prior.model.log_probs(raw)
        spent = -jnp.take_along_axis(each, found[..., None].astype(jnp.int32), axis=-1)
        image = decode(params, extra, vectors)
        error = jnp.square(image - batch[spec.key] / (spec.levels - 1))
        grids = found.reshape(-1, places, grid.channels)
        return Inspection(
            log_p,
            spent.reshape(grids.shape),
            vectors,
            error.mean(range(1, error.ndim)),
            grids.astype(jnp.int32),
        )

    return Model(
        name=name,
        spec=spec,
        conditional=prior.model.conditional,
        init=init,
        losses=losses,
        likelihood=bound,
        log_prob=log_prob,
        sample=sampler(sample),
        complete=complete,
        candidates=CANDIDATES,
        stages=_stages(codes, tokenizer, prior),
        latent=Latent(
            shape=(places, codes.width),
            encode=encode,
            decode=decode,
            inspect=inspect,
            prior=sampler(drawn),
            completion="importance resampling of codes",
        ),
        codes=codes,
        log_probs_under={name: under(log_p) for name, log_p in (others or {}).items()},
    )


def _stages(
    codes: Codes, tokenizer: Callable[[Params, Extra], tuple[Params, Extra]], prior: Prior
) -> tuple[Stage, Stage]:
    """Codes under the prior, then rows of pixels given the codes."""
    spec = codes.image_spec
    row = spec.width * spec.channels

    def values(params: Params, extra: Extra, image: Array, label: Array) -> Array:
        del label
        return codes.encode(*tokenizer(params, extra), image)

    def first(own: tuple[Params, Extra], label: Array, found: Array) -> Array:
        raw = codes.raw(*own, found)
        return raw.reshape(label.shape[0], spec.height, row, codes.likelihood.size)

    def raw_of_row(own: Any, state: Array, t: Array, turn: int, seen: Array) -> tuple[Array, Array]:
        del own, turn, seen
        return state, jax.lax.dynamic_index_in_dim(state, t, 1, keepdims=False)

    starts = np.arange(spec.height, dtype=np.int32)[:, None, None] * row
    own_steps, log_probs = prior.model.steps, prior.model.log_probs
    return (
        Stage(codes.spec, own_steps, log_probs, values=values, bind=prior.params),
        Stage(
            spec, Steps(starts, row, first, raw_of_row), codes.likelihood.log_probs, bind=tokenizer
        ),
    )
