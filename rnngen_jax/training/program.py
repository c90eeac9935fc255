"""What a training computes, from its config's sections: the first state, and one step."""

import functools
from collections.abc import Callable, Mapping

import optax

from rnngen_jax.models.base import Model
from rnngen_jax.training.config import OptimizerConfig, TrainingConfig
from rnngen_jax.training.optimizers import make_optimizer
from rnngen_jax.training.privacy import Privacy
from rnngen_jax.training.seeds import create_each
from rnngen_jax.training.state import TrainState, create
from rnngen_jax.training.step import (
    Step,
    Transform,
    Updates,
    most_updates,
    train_step,
)


def initial_state(
    model: Model, optimizers: Mapping[str, OptimizerConfig], config: TrainingConfig
) -> Callable[[], TrainState]:
    """Makes the state before the first step, of each seed; `jax.eval_shape` gives its shapes.

    Args:
      model: the model.
      optimizers: each player's section.
      config: the section `training`.
    """
    make_one = functools.partial(
        create, model, _chains(model, optimizers), ema=config.ema_decay > 0
    )
    return functools.partial(create_each, make_one, config.seed, config.seeds)


def one_step(
    model: Model,
    optimizers: Mapping[str, OptimizerConfig],
    config: TrainingConfig,
    transform: Transform,
) -> Step:
    """The function of one training step of one seed, as `train_step` makes it.

    Args:
      model, optimizers, config: as for `initial_state`.
      transform: as for `train_step`.
    """
    chains, updates = _chains(model, optimizers), _updates(optimizers)
    return train_step(
        model,
        chains,
        config.ema_decay,
        transform,
        updates,
        config.micro_batches,
        config.compute_dtype,
    )


def batches_per_step(optimizers: Mapping[str, OptimizerConfig]) -> int:
    """Batches of `config.training.batch_size` that one training step takes."""
    return most_updates(_updates(optimizers))


def _chains(
    model: Model, optimizers: Mapping[str, OptimizerConfig]
) -> dict[str, optax.GradientTransformation]:
    """Each player's optimizer."""
    return {player: make_optimizer(optimizers[player]) for player in model.losses}


def _updates(optimizers: Mapping[str, OptimizerConfig]) -> dict[str, Updates]:
    """Each player's update settings."""

    def of(config: OptimizerConfig) -> Updates:
        noise, clip = config.private_noise, config.private_clip
        return Updates(config.updates_per_step, Privacy(noise, clip) if noise else None)

    return {player: of(config) for player, config in optimizers.items()}
