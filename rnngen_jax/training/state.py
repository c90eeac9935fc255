"""What training carries from step to step: arrays, and nothing else."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from rnngen_jax import keys
from rnngen_jax.models.base import Extra, Model, Params


class TrainState(NamedTuple):
    """The state of a run; of a run of N seeds, every array has a leading axis `[N]`.

    Attributes:
      step: number of steps done, int32.
      params: the parameters, by player.
      opt_state: the state of each player's own optimiser, by player.
      extra: what the model does not train by gradient.
      ema: the moving average of `params`, `None` when it is off.
    """

    step: Array
    params: Params
    opt_state: dict[str, Any]
    extra: Extra
    ema: Params | None


def create(
    model: Model,
    optimizers: Mapping[str, optax.GradientTransformation],
    seed: int | Array,
    ema: bool = False,
) -> TrainState:
    """The state before the first step, as a pure function of its arguments.

    Args:
      model: the model.
      optimizers: by player, as `model.losses`.
      seed: the run's seed, which may be traced; the parameters come from its key named "init".
      ema: whether a moving average of the parameters is kept; it starts at the parameters.
    """
    params, extra = model.init(keys.named(jax.random.key(seed), "init"))
    opt_state = {player: optimizers[player].init(params[player]) for player in model.losses}
    average = jax.tree.map(jnp.copy, params) if ema else None
    return TrainState(jnp.int32(0), params, opt_state, extra, average)


def evaluated_params(state: TrainState) -> Params:
    """The parameters to evaluate and sample with: the moving average where one is kept."""
    return state.params if state.ema is None else state.ema
