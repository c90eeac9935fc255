"""What autoregressive models share: a network gives two ways through an image, which must agree.

All at once, for the likelihood, and step by step, for drawing, completing and coding:

    log p(x) = Σ_k log p(x_k | x_<k)     (van den Oord et al. 2016, eqs. 1-2)
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from rnngen_jax.models.base import Aux, Batch, Extra, Model, Params, labels_for
from rnngen_jax.ops.likelihoods import PixelLikelihood
from rnngen_jax.recurrence import generate
from rnngen_jax.shapes import ImageSpec

State = Any  # what a network keeps from step to step, a pytree of arrays
RawOutputs = Callable[[Params, Array, Array, tuple[Array, Array] | None], Array]


class Steps(NamedTuple):
    """How a network goes through an image, step by step.

    Values are counted in raster order with the channels innermost, V = H·W·C in all. The image so
    far is `seen`, int32 `[V + 1, B]`: row v is value v, or `levels` as long as it is not known; the
    last row stays `levels`, for what lies outside the image.

    An image has lines, a line has stops (pixels, as a rule), and a stop has turns (channels). Each
    turn draws `width` values at once, which are independent given those before them.

    Attributes:
      starts: the first value of each turn, int32 `[lines, stops, turns]`.
      width: S, how many values a turn draws: these are `start` to `start + S - 1`.
      first: `first(params, label [B]) -> state`, before the first step.
      raw: `raw(params, state, t, turn, seen) -> (state, raw [B, S, P])`; t counts stops from the
        image's first, `turn` is a Python integer.
      line: `line(params, state, n, seen) -> state`, before the first stop of line n; `None` where
        there is nothing to do.
    """

    starts: np.ndarray
    width: int
    first: Callable[[Params, Array], State]
    raw: Callable[[Params, State, Array, int, Array], tuple[State, Array]]
    line: Callable[[Params, State, Array, Array], State] | None = None


def autoregressive_model(
    name: str,
    spec: ImageSpec,
    conditional: bool,
    init: Callable[[Array], tuple[Params, Extra]],
    raw_outputs: RawOutputs,
    steps: Steps,
    likelihood: PixelLikelihood,
) -> Model:
    """A model from the two ways through an autoregressive network.

    Args:
      name: of the model.
      spec: the images.
      conditional: whether labels matter.
      init: as in `Model`.
      raw_outputs: the whole image at once, `raw_outputs(params, image, label, train)` to
        `[B, H, W, C, P]`; `train` is `(key, index [B])` in training, for what is random there, or
        `None`.
      steps: the same step by step.
      likelihood: of a value.
    """

    def conditionals(
        params: Params, extra: Extra, image: Array, label: Array | None = None
    ) -> Array:
        del extra
        return raw_outputs(params, image, labels_for(label, image.shape[0]), None)

    def score(params: Params, batch: Batch, train: tuple[Array, Array] | None) -> Array:
        raw = raw_outputs(params, batch["image"], batch["label"], train)
        return likelihood.log_prob(raw, batch["image"].astype(jnp.int32)).sum((1, 2, 3))

    def loss(
        params: Params, extra: Extra, batch: Batch, key: Array, step: Array
    ) -> tuple[Array, Aux]:
        """Mean negative log-likelihood of a value, in nats."""
        del step
        nats = -score(params, batch, (key, batch["index"])).mean()
        per_value = nats / spec.dims
        metrics = {"nats_per_image": nats, "bits_per_dim": per_value / math.log(2)}
        return per_value, Aux(metrics, extra)

    def log_prob(params: Params, extra: Extra, batch: Batch, key: Array) -> Array:
        del extra, key
        return score(params, batch, None)

    def walk(
        params: Params,
        extra: Extra,
        key: Array,
        image: Array,
        known: Array,
        label: Array | None = None,
        temperature: Array | float = 1.0,
    ) -> tuple[Array, Array]:
        del extra
        label = labels_for(label, image.shape[0])
        return _walk(steps, spec, likelihood, params, key, image, known, label, temperature)

    def complete(*arguments: Any, **named: Any) -> Array:
        return walk(*arguments, **named)[0]

    def sample(
        params: Params,
        extra: Extra,
        key: Array,
        num: int,
        label: Array | None = None,
        temperature: Array | float = 1.0,
    ) -> Array:
        nothing = jnp.zeros((num, *spec.shape), jnp.uint8)
        known = jnp.zeros((num, spec.height, spec.width), bool)
        return complete(params, extra, key, nothing, known, label, temperature)

    return Model(
        name=name,
        spec=spec,
        conditional=conditional,
        init=init,
        losses={"model": loss},
        likelihood="exact",
        log_prob=log_prob,
        sample=sample,
        complete=complete,
        conditionals=conditionals,
        walk=walk,
        steps=steps,
        log_probs=likelihood.log_probs,
    )


def unseen(spec: ImageSpec, batch: int) -> Array:
    """The image so far before the first step, int32 `[V + 1, B]`."""
    return jnp.full((spec.dims + 1, batch), spec.levels, jnp.int32)


def see(seen: Array, start: Array | int, values: Array) -> Array:
    """The image so far with the values `[S, B]` of a turn written in."""
    return jax.lax.dynamic_update_slice_in_dim(seen, values, start, 0)


def in_raster_order(image: Array) -> Array:
    """Values of images `[B, H, W, C]` in the order of `Steps`, `[V, B]`."""
    return image.reshape(image.shape[0], -1).T


def _walk(
    steps: Steps,
    spec: ImageSpec,
    likelihood: PixelLikelihood,
    params: Params,
    key: Array,
    image: Array,
    known: Array,
    label: Array,
    temperature: Array | float,
) -> tuple[Array, Array]:
    """Step by step; each value is given all those before it, known or drawn."""
    num, (_, stops, turns) = image.shape[0], steps.starts.shape
    starts = jnp.asarray(steps.starts)
    given = in_raster_order(image).astype(jnp.int32)
    fixed = in_raster_order(jnp.repeat(known[..., None], spec.channels, -1))

    def at_stop(n: Array) -> Callable[..., tuple[Any, Array]]:
        def stop(
            state: tuple[State, Array], _: Array, m: Array, key: Array
        ) -> tuple[tuple[State, Array], Array]:
            inner, seen = state
            used = []
            for turn in range(turns):
                start = starts[n, m, turn]
                inner, raw = steps.raw(params, inner, n * stops + m, turn, seen)
                drawn = likelihood.draw(jax.random.fold_in(key, turn), raw, temperature).T
                here = (jax.lax.dynamic_slice_in_dim(x, start, steps.width) for x in (fixed, given))
                seen = see(seen, start, jnp.where(*here, drawn))
                used.append(raw)
            return (inner, seen), jnp.stack(used)

        return stop

    def line(
        state: tuple[State, Array], _: Array, n: Array, key: Array
    ) -> tuple[tuple[State, Array], Array]:
        inner, seen = state
        if steps.line is not None:
            inner = steps.line(params, inner, n, seen)
        return generate(at_stop(n), (inner, seen), nothing[0], key, stops)

    nothing = jnp.zeros((stops, turns, num, steps.width, likelihood.size))
    state = (steps.first(params, label), unseen(spec, num))
    (_, seen), raw = generate(line, state, nothing, key, steps.starts.shape[0])

    # [lines, stops, turns, B, S, P] in the order of drawing, to the image's own.
    values = steps.starts[..., None] + np.arange(steps.width)
    raw = jnp.moveaxis(raw, 3, 0).reshape(num, spec.dims, likelihood.size)
    raw = raw[:, np.argsort(values.reshape(-1))]
    completed = seen[:-1].T.reshape(num, *spec.shape).astype(jnp.uint8)
    return completed, raw.reshape(num, *spec.shape, likelihood.size)
