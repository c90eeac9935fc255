"""Models of frames from a network of the next frame, whose pixels are independent given the past.

    log p(x) = Σ_t Σ_v log p(x[t, v] | x[<t])

Without a likelihood the network predicts expected frames only, and the model has no bits.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from rnngen_jax.errors import UserError
from rnngen_jax.models.autoregressive import Steps, autoregressive_model
from rnngen_jax.models.base import (
    Aux,
    Batch,
    Extra,
    Forecast,
    Model,
    Params,
    Scalar,
    Sequential,
    labels_for,
)
from rnngen_jax.models.feeding import Feeding, chosen
from rnngen_jax.modules.latent import scaled
from rnngen_jax.ops.likelihoods import PixelLikelihood
from rnngen_jax.recurrence import generate
from rnngen_jax.shapes import ImageSpec

OBJECTIVES = ("likelihood", "cross_entropy", "mse")
FED = ("sample", "mean")

State = Any  # a network's state between frames, a pytree of arrays


class Network(NamedTuple):
    """A network of the next frame. Frames are float32 `[B, H, W, C]` in [0, 1].

    Attributes:
      all: `all(params, frames [T, B, H, W, C], label [B]) -> raw [T, B, H, W, C, P]`.
      first: `first(params, batch) -> state`, before the first frame.
      step: `step(params, state, before, begun, label) -> (state, raw [B, H, W, C, P])`; `before` is
        the previous frame, and ignored where `begun`, a bool scalar, is false.
    """

    all: Callable[[Params, Array, Array], Array]
    first: Callable[[Params, int], State]
    step: Callable[[Params, State, Array, Array, Array], tuple[State, Array]]


class Readout(NamedTuple):
    """What raw outputs of a value mean.

    Attributes:
      size: raw outputs P per value.
      cost: `cost(raw [..., P], value int [...]) -> [...]`, what training minimises.
      mean: `mean(raw [..., P]) -> [...]`, the expected value in [0, 1].
      likelihood: of the values; `None` without one.
    """

    size: int
    cost: Callable[[Array, Array], Array]
    mean: Callable[[Array], Array]
    likelihood: PixelLikelihood | None


def by_likelihood(likelihood: PixelLikelihood) -> Readout:
    """The readout whose cost is the negative log-likelihood, nats."""

    def cost(raw: Array, value: Array) -> Array:
        return -likelihood.log_prob(raw, value.astype(jnp.int32))

    return Readout(likelihood.size, cost, likelihood.mean, likelihood)


def cross_entropy(levels: int) -> Readout:
    """Bernoulli cross-entropy with grey levels as probabilities, nats: no likelihood of levels."""

    def cost(raw: Array, value: Array) -> Array:
        return optax.sigmoid_binary_cross_entropy(raw[..., 0], scaled(value, levels))

    return Readout(1, cost, lambda raw: jax.nn.sigmoid(raw[..., 0]), None)


def squared_error(levels: int) -> Readout:
    """Squared error of values in [0, 1]."""

    def cost(raw: Array, value: Array) -> Array:
        return jnp.square(raw[..., 0] - scaled(value, levels))

    return Readout(1, cost, lambda raw: jnp.clip(raw[..., 0], 0.0, 1.0), None)


def model_of_frames(
    name: str,
    spec: ImageSpec,
    conditional: bool,
    init: Callable[[Array], tuple[Params, Extra]],
    network: Network,
    readout: Readout,
    feeding: Feeding,
    remat: bool = False,
) -> Model:
    """Builds a model of frames.

    Args:
      name, spec, conditional, init: as in `Model`.
      network: of the next frame.
      readout: what its outputs mean.
      feeding: what the network is fed in training.
      remat: rematerialises each frame's step where it is fed its own predictions.
    """
    likelihood, values = readout.likelihood, spec.height * spec.width * spec.channels

    def forced(params: Params, items: Array, label: Array) -> Array:
        """Raw outputs `[T, B, H, W, C, P]` given the true frames `[B, T, H, W, C]`."""
        return network.all(params, _in_time(items, spec), label)

    def fed(params: Params, items: Array, label: Array, mine: Array) -> Array:
        """The same, where the frames that `mine` (bool `[T, B]`) names are the network's own."""
        frames = _in_time(items, spec)
        state, nothing = _start(network, readout, spec, params, label)
        step = jax.checkpoint(network.step) if remat else network.step

        def at(state: State, before: Array, t: Array, key: Array) -> tuple[State, Array]:
            del key
            last = jnp.maximum(t - 1, 0)
            given = mine[last][:, None, None, None]
            before = jnp.where(given, readout.mean(before), frames[last])
            return step(params, state, before, t > 0, label)

        return generate(at, state, nothing, jax.random.key(0), len(frames))[1]

    def loss(
        params: Params, extra: Extra, batch: Batch, key: Array, step: Array
    ) -> tuple[Array, Aux]:
        """Mean cost per value."""
        items = batch[spec.key]
        own = feeding.own(step, spec.frames)
        if own is None:
            raw = forced(params, items, batch["label"])
        else:
            mine = chosen(own, key, batch["index"])
            raw = fed(params, items, batch["label"], mine)
        cost = readout.cost(raw, jnp.moveaxis(items, 1, 0)).mean()
        return cost, Aux({}, extra)

    def log_probs(params: Params, extra: Extra, batch: Batch, key: Array) -> Array:
        del extra, key
        items = batch[spec.key]
        raw = forced(params, items, batch["label"])
        cost = readout.cost(raw, jnp.moveaxis(items, 1, 0))
        return -cost.sum((2, 3, 4)).T

    def teacher_forced(params: Params, extra: Extra, batch: Batch, key: Array) -> Array:
        del extra, key
        return jnp.moveaxis(readout.mean(forced(params, batch[spec.key], batch["label"])), 0, 1)

    sequential = Sequential(
        log_probs=log_probs if likelihood else None,
        forecast=_forecaster(network, readout, spec),
        teacher_forced=teacher_forced,
        stochastic=False,
    )
    if likelihood is None:
        return Model(name, spec, conditional, init, {"model": loss}, sequential=sequential)

    def raw_outputs(params: Params, image: Array, label: Array, train: Any) -> Array:
        del train
        return jnp.moveaxis(forced(params, image, label), 0, 1)

    def first(params: Params, label: Array) -> tuple[State, Array]:
        return network.first(params, label.shape[0]), label

    def raw(
        params: Params, state: tuple[State, Array], t: Array, turn: int, seen: Array
    ) -> tuple[tuple[State, Array], Array]:
        """All values of a frame at once, independent given the frames before."""
        inner, label = state
        start = jnp.maximum(t - 1, 0) * values
        before = jax.lax.dynamic_slice_in_dim(seen, start, values).T
        before = scaled(before.reshape(-1, *spec.shape[1:]), spec.levels)
        inner, raw = network.step(params, inner, before, t > 0, label)
        return (inner, label), raw.reshape(-1, values, readout.size)

    starts = np.arange(spec.frames, dtype=np.int32)[None, :, None] * values
    steps = Steps(starts, values, first, raw)
    model = autoregressive_model(name, spec, conditional, init, raw_outputs, steps, likelihood)
    # What is fed with the network's own frames is no likelihood, and not reported as one.
    losses = model.losses if feeding.own(0, 1) is None else {"model": loss}
    return model._replace(losses=losses, sequential=sequential)


def require_frames(name: str, spec: ImageSpec) -> None:
    """Raises a `UserError` unless the items are sequences."""
    if not spec.frames:
        raise UserError(
            f"config.model.name={name!r} is a model of sequences, but the data are still images; "
            "set config.data.name to moving:digits, frames:FOLDER or an npz with frames."
        )


def _forecaster(network: Network, readout: Readout, spec: ImageSpec) -> Callable[..., Forecast]:
    """`Sequential.forecast`."""

    def forecast(
        params: Params,
        extra: Extra,
        key: Array,
        context: Array,
        horizon: int,
        label: Array | None = None,
        temperature: Scalar = 1.0,
        fed: str = "sample",
    ) -> Forecast:
        """The frames that follow N ≥ 0 given ones.

        Raises:
          ValueError: an unknown `fed`.
          UserError: `fed` is "sample" for a model without a likelihood.
        """
        del extra
        if fed not in FED:
            raise ValueError(f"fed must be one of {', '.join(FED)}, got {fed!r}")
        likelihood = readout.likelihood
        if fed == "sample" and likelihood is None:
            raise UserError("A model without a likelihood has no frames to draw, only their means.")
        label = labels_for(label, len(context))
        given = _in_time(context, spec)
        length = len(given)
        state, nothing = _start(network, readout, spec, params, label)

        def known(state: State, _: Any, t: Array, key: Array) -> tuple[State, Array]:
            """The state after the frames before frame t."""
            del key
            return network.step(params, state, given[jnp.maximum(t - 1, 0)], t > 0, label)

        before = nothing[..., 0]
        if length:
            state, _ = generate(known, state, nothing, key, length)
            before = given[-1]

        def unknown(
            state: tuple[State, Array], _: Any, t: Array, key: Array
        ) -> tuple[tuple[State, Array], tuple[Array, Array]]:
            inner, before = state
            inner, raw = network.step(params, inner, before, t + length > 0, label)
            mean = readout.mean(raw)
            if likelihood is None:
                drawn = jnp.round(mean * (spec.levels - 1)).astype(spec.dtype)
            else:
                drawn = likelihood.draw(key, raw, temperature).astype(spec.dtype)
            after = scaled(drawn, spec.levels) if fed == "sample" else mean
            return (inner, after), (drawn, mean)

        element = (jnp.zeros(before.shape, spec.dtype), jnp.zeros(before.shape))
        _, (drawn, mean) = generate(unknown, (state, before), element, key, horizon)
        return Forecast(jnp.moveaxis(drawn, 0, 1), jnp.moveaxis(mean, 0, 1))

    return forecast


def _start(
    network: Network, readout: Readout, spec: ImageSpec, params: Params, label: Array
) -> tuple[State, Array]:
    """The state before the first frame, and raw outputs to begin a loop with."""
    num = label.shape[0]
    nothing = jnp.zeros((num, *spec.shape[1:], readout.size))
    return network.first(params, num), nothing


def _in_time(items: Array, spec: ImageSpec) -> Array:
    """Items `[B, T, H, W, C]` as float32 `[T, B, H, W, C]` in [0, 1]."""
    return jnp.moveaxis(scaled(items, spec.levels), 1, 0)
