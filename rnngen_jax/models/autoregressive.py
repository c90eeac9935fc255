"""Autoregressive models from a network evaluated in two ways, which must agree.

In parallel, for the likelihood, and step by step, for sampling, completion and coding:

    log p(x) = Σ_k log p(x_k | x_<k)     (van den Oord et al. 2016, eqs. 1-2)
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from rnngen_jax.models.base import (
    Aux,
    Batch,
    Completion,
    Extra,
    Given,
    Model,
    Params,
    Scalar,
    Train,
    completer,
    labels_for,
    require_dropout,
    require_mixture_read,
    sampler,
)
from rnngen_jax.modules.pixels import require_encoding
from rnngen_jax.ops import resampling
from rnngen_jax.ops.likelihoods import PixelLikelihood
from rnngen_jax.recurrence import generate
from rnngen_jax.shapes import ImageSpec

State = Any  # a network's state between steps, a pytree of arrays
RawOutputs = Callable[[Params, Array, Array, Train], Array]


@dataclass(frozen=True)
class PixelConfig:
    """Choices of models whose inputs and outputs are an image's values.

    Attributes:
      pixels: "onehot" has a weight per grey level, "scalar" maps it to [-1, 1].
      position: the position of what is predicted is an input.
      class_conditional: the class is an input.
      readout: "categorical" over the grey levels, "bernoulli" or "logistic_mixture".
      mixtures: components of the logistic mixture.
      dropout: rate for the inputs and outputs of cells or layers, one mask per image.
    """

    pixels: str = "onehot"
    position: bool = True
    class_conditional: bool = False
    readout: str = "categorical"
    mixtures: int = 5
    dropout: float = 0.0

    def __post_init__(self) -> None:
        require_encoding(self.pixels)
        require_dropout(self.dropout)
        require_mixture_read(self)

    def inputs(self) -> dict[str, Any]:
        """The fields of a `modules.pixels.PixelNetwork` that describe its inputs."""
        return {
            "encoding": self.pixels,
            "position": self.position,
            "conditional": self.class_conditional,
        }


class Steps(NamedTuple):
    """Step-by-step evaluation of a network.

    Values are in raster order with the channels innermost, V = H·W·C in all (T·H·W·C for
    sequences). The image so far is `seen`, int32 `[V + 1, B]`: row v is value v, or `levels` while
    it is unknown; the last row stays `levels`, for values outside the image.

    An image has lines, a line has stops (usually pixels), and a stop has turns (channels). Each
    turn draws `width` values at once, which are independent given the earlier ones.

    Attributes:
      starts: the first value of each turn, int32 `[lines, stops, turns]`.
      width: S, values per turn: `start` to `start + S - 1`.
      first: `first(params, label [B]) -> state`, before the first step.
      raw: `raw(params, state, t, turn, seen) -> (state, raw [B, S, P])`; t counts the image's
        stops, `turn` is a Python integer.
      line: `line(params, state, n, seen) -> state`, before the first stop of line n; `None` if
        there is nothing to do.
    """

    starts: np.ndarray
    width: int
    first: Callable[[Params, Array], State]
    raw: Callable[[Params, State, Array, int, Array], tuple[State, Array]]
    line: Callable[[Params, State, Array, Array], State] | None = None


class Stage(NamedTuple):
    """One stage of an image's representation, given the stages before it.

    A one-stage model has the image alone. A two-stage model has codes, then the image given them:
    log p(c) + log p(x|c).

    Attributes:
      spec: the stage's items.
      steps: their step-by-step evaluation; its `first` also takes the items of the stages before,
        after the label: `first(params, label [B], *before)`.
      log_probs: as in `Model`.
      values: `values(params, extra, image, label) -> items [B, *spec.shape]`, an image's items;
        `None` for the image itself, which is the last stage. A model without such a stage, as one
        of codes alone, is of the items of all stages in a row.
      bind: `bind(params, extra) -> params`, the parameters that `steps` takes, such as those of a
        frozen network in `extra`; `None` for the model's own.
    """

    spec: ImageSpec
    steps: Steps
    log_probs: Callable[[Array], Array]
    values: Callable[[Params, Extra, Array, Array], Array] | None = None
    bind: Callable[[Params, Extra], Any] | None = None


class Walked(NamedTuple):
    """The result of a step-by-step pass over an image.

    Attributes:
      image: `[B, H, W, C]`, in the spec's dtype.
      raw: raw outputs for each value, drawn or known, `[B, H, W, C, P]`.
      nats: log-probability of the known values, each given all earlier ones, `[B]`.
    """

    image: Array
    raw: Array
    nats: Array


def autoregressive_model(
    name: str,
    spec: ImageSpec,
    conditional: bool,
    init: Callable[[Array], tuple[Params, Extra]],
    raw_outputs: RawOutputs,
    steps: Steps,
    likelihood: PixelLikelihood,
) -> Model:
    """Builds a model from the two evaluations of an autoregressive network.

    Args:
      name: the model's name.
      spec: the images.
      conditional: whether labels matter.
      init: as in `Model`.
      raw_outputs: the whole image at once, `raw_outputs(params, image, label, train)` to
        `[B, H, W, C, P]`; `train` as in `models.base.Train`.
      steps: the same step by step.
      likelihood: the distribution of a value.
    """

    def conditionals(
        params: Params, extra: Extra, image: Array, label: Array | None = None
    ) -> Array:
        del extra
        return raw_outputs(params, image, labels_for(label, image.shape[0]), None)

    def score(params: Params, batch: Batch, train: Train) -> Array:
        raw = raw_outputs(params, batch[spec.key], batch["label"], train)
        log_p = likelihood.log_prob(raw, batch[spec.key].astype(jnp.int32))
        return log_p.sum(range(1, log_p.ndim))

    def loss(
        params: Params, extra: Extra, batch: Batch, key: Array, step: Array
    ) -> tuple[Array, Aux]:
        """Mean negative log-likelihood per value, in nats."""
        del step
        nats = -score(params, batch, (key, batch["index"])).mean()
        per_value = nats / spec.dims
        metrics = {"nats_per_image": nats, "bits_per_dim": per_value / math.log(2)}
        return per_value, Aux(metrics, extra)

    def log_prob(params: Params, extra: Extra, batch: Batch, key: Array) -> Array:
        del extra, key
        return score(params, batch, None)

    def walked(
        params: Params, key: Array, given: Given, label: Array, temperature: Scalar
    ) -> Walked:
        return _walk(steps, spec, likelihood, params, key, given, label, temperature)

    def walk(
        params: Params, key: Array, given: Given, label: Array, temperature: Scalar
    ) -> tuple[Array, Array]:
        found = walked(params, key, given, label, temperature)
        return found.image, found.raw

    def complete(
        params: Params, key: Array, given: Given, label: Array, temperature: Scalar, candidates: int
    ) -> Completion:
        """Ancestral sampling of the unknown values, repeated `candidates` times.

        The unknown values come from the proposal q = Π p(x_v | x_<v) over unknown v, which ignores
        known values that come later. One of the draws is chosen by its weight p(x) / q, which is
        Π p(x_v | x_<v) over known v: the likelihood of the known values given the draw.

        All p are at the given temperature, as in `sample`; the target is that model's distribution
        given the known values.
        """

        def draw(key: Array) -> tuple[Array, Array]:
            found = walked(params, key, given, label, temperature)
            return found.image, found.nats

        return Completion(*resampling.by_importance(draw, key, candidates))

    def log_probs(raw: Array, temperature: Scalar = 1.0) -> Array:
        if isinstance(temperature, float) and temperature == 1.0:
            return likelihood.log_probs(raw)

        def of(value: Array) -> Array:
            return likelihood.log_prob(raw, jnp.full(raw.shape[:-1], value), temperature)

        return jnp.moveaxis(jax.vmap(of)(jnp.arange(spec.levels)), 0, -1)

    def sample(
        params: Params, extra: Extra, key: Array, label: Array, temperature: Scalar
    ) -> Array:
        del extra
        num = label.shape[0]
        nothing = jnp.zeros((num, *spec.shape), spec.dtype)
        known = jnp.zeros((num, *spec.shape[:-1]), bool)
        return walked(params, key, Given(nothing, known), label, temperature).image

    return Model(
        name=name,
        spec=spec,
        conditional=conditional,
        init=init,
        losses={"model": loss},
        likelihood="exact",
        log_prob=log_prob,
        sample=sampler(sample),
        complete=completer(complete, candidates=1),
        conditionals=conditionals,
        walk=completer(walk),
        guided=guided(steps, spec, likelihood.size, log_probs),
        steps=steps,
        log_probs=log_probs,
    )


def turn_of_each(steps: Steps) -> np.ndarray:
    """The index of the turn that draws each value, in sampling order, int `[V]`."""
    values = steps.starts.reshape(-1, 1) + np.arange(steps.width)
    turn = np.empty(values.size, int)
    turn[values] = np.arange(len(values))[:, None]
    return turn


def unseen(spec: ImageSpec, batch: int) -> Array:
    """`seen` before the first step, int32 `[V + 1, B]`."""
    return jnp.full((spec.dims + 1, batch), spec.levels, jnp.int32)


def see(seen: Array, start: Array | int, values: Array) -> Array:
    """`seen` with the values `[S, B]` of a turn written in."""
    return jax.lax.dynamic_update_slice_in_dim(seen, values, start, 0)


def in_raster_order(image: Array) -> Array:
    """Values of items `[B, ...]` in the order of `Steps`, `[V, B]`."""
    return image.reshape(image.shape[0], -1).T


def _walk(
    steps: Steps,
    spec: ImageSpec,
    likelihood: PixelLikelihood,
    params: Params,
    key: Array,
    given: Given,
    label: Array,
    temperature: Scalar,
) -> Walked:
    """Runs the steps; each value is conditioned on all earlier ones, known or drawn."""
    image = in_raster_order(given.image).astype(jnp.int32)
    known = in_raster_order(jnp.repeat(given.known[..., None], spec.channels, -1))

    def choose(key: Array, raw: Array, start: Array) -> tuple[Array, Array]:
        held, value = (jax.lax.dynamic_slice_in_dim(x, start, steps.width) for x in (known, image))
        drawn = jnp.where(held, value, likelihood.draw(key, raw, temperature).T)
        log_p = likelihood.log_prob(raw, value.T, temperature)
        return drawn, jnp.where(held.T, log_p, 0.0).sum(-1)

    seen, nats, raw = _run(steps, spec, likelihood.size, params, key, label, choose)

    # [lines, stops, turns, B, S, P] from sampling order to the image's own.
    num, values = label.shape[0], steps.starts[..., None] + np.arange(steps.width)
    raw = jnp.moveaxis(raw, 3, 0).reshape(num, spec.dims, likelihood.size)
    raw = raw[:, np.argsort(values.reshape(-1))]
    return Walked(_items(seen, spec), raw.reshape(num, *spec.shape, likelihood.size), nats)


def guided(
    steps: Steps, spec: ImageSpec, size: int, log_probs: Callable[..., Array]
) -> Callable[..., Array]:
    """`Model.guided`, from a model's steps and `log_probs`; P is the size of its raw outputs."""

    def draw(
        params: Params,
        extra: Extra,
        key: Array,
        evidence: Array,
        label: Array | None = None,
        temperature: Scalar = 1.0,
    ) -> Array:
        del extra
        label = labels_for(label, evidence.shape[0])
        flat = evidence.reshape(len(evidence), spec.dims, spec.levels)

        def choose(key: Array, raw: Array, start: Array) -> tuple[Array, Array]:
            own = jax.lax.dynamic_slice_in_dim(flat, start, steps.width, axis=1)
            drawn = jax.random.categorical(key, log_probs(raw, temperature) + own)
            return drawn.T.astype(jnp.int32), jnp.zeros(len(evidence))

        return _items(_run(steps, spec, size, params, key, label, choose)[0], spec)

    return draw


def _items(seen: Array, spec: ImageSpec) -> Array:
    """Items `[B, ...]` of their values, all of which have been seen."""
    return seen[:-1].T.reshape(-1, *spec.shape).astype(spec.dtype)


def _run(
    steps: Steps,
    spec: ImageSpec,
    size: int,
    params: Params,
    key: Array,
    label: Array,
    choose: Callable[[Array, Array, Array], tuple[Array, Array]],
) -> tuple[Array, Array, Array]:
    """Runs the steps.

    Args:
      steps, spec, params, label: of the model.
      size: raw outputs P per value.
      key: a random key.
      choose: `choose(key, raw [B, S, P], start) -> (values [S, B], nats [B])`, of a turn.

    Returns:
      `seen` after the last step, the sum of the nats `[B]`, and all raw outputs in the order of the
      turns, `[lines, stops, turns, B, S, P]`.
    """
    num, (_, stops, turns) = label.shape[0], steps.starts.shape
    starts = jnp.asarray(steps.starts)

    def at_stop(n: Array) -> Callable[..., tuple[Any, Array]]:
        def stop(
            state: tuple[State, Array, Array], _: Array, m: Array, key: Array
        ) -> tuple[tuple[State, Array, Array], Array]:
            inner, seen, nats = state
            used = []
            for turn in range(turns):
                start = starts[n, m, turn]
                inner, raw = steps.raw(params, inner, n * stops + m, turn, seen)
                chosen, told = choose(jax.random.fold_in(key, turn), raw, start)
                seen, nats = see(seen, start, chosen), nats + told
                used.append(raw)
            return (inner, seen, nats), jnp.stack(used)

        return stop

    def line(
        state: tuple[State, Array, Array], _: Array, n: Array, key: Array
    ) -> tuple[tuple[State, Array, Array], Array]:
        inner, seen, nats = state
        if steps.line is not None:
            inner = steps.line(params, inner, n, seen)
        return generate(at_stop(n), (inner, seen, nats), nothing[0], key, stops)

    nothing = jnp.zeros((stops, turns, num, steps.width, size))
    state = (steps.first(params, label), unseen(spec, num), jnp.zeros(num))
    (_, seen, nats), raw = generate(line, state, nothing, key, steps.starts.shape[0])
    return seen, nats, raw
