"""Optimisers and learning rate schedules: from a config section to optax."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from rnngen_jax.config import require
from rnngen_jax.training.config import DECAYS, OptimizerConfig


def make_optimizer(config: OptimizerConfig) -> optax.GradientTransformation:
    """The optimiser of one player.

    In this order: penalties are added to the gradient, the sum is clipped, the optimiser scales it,
    the updated parameters are clipped. With several updates per step the schedule still counts
    steps.

    Raises:
      UserError: a decaying schedule without a length or no longer than its warm-up, or a warm-up
        that is still a fraction.
    """
    rate = learning_rate(config)
    parts = []
    if config.l1 or config.l2:
        parts.append(add_penalties(config.l1, config.l2))
    if config.clip_norm:
        parts.append(optax.clip_by_global_norm(config.clip_norm))
    parts.append(_scaling(config, lambda count: rate(count // config.updates_per_step)))
    if config.clip_weights:
        parts.append(keep_within(config.clip_weights))
    return optax.chain(*parts)


def learning_rate(config: OptimizerConfig) -> Callable[[Array], Array]:
    """The learning rate as a function of the number of steps done before.

    From `decay_steps` on it is the schedule's last value.

    Raises:
      UserError: as `make_optimizer`.
    """
    fraction, allowed = config.warmup_fraction, "0, as OptimizerConfig.resolved leaves it"
    require(fraction == 0, f"{config.SECTION}.warmup_fraction", fraction, allowed)
    warmup_steps = max(config.warmup_steps, 0)
    last, length = config.final_fraction, config.decay_steps - warmup_steps
    fits = length > 0 or config.schedule not in DECAYS
    allowed = f"> warmup_steps={warmup_steps}, such as the number of training steps"
    require(fits, f"{config.SECTION}.decay_steps", config.decay_steps, allowed)

    def rate(count: Array) -> Array:
        warmup = jnp.minimum(1.0, (count + 1) / max(warmup_steps, 1))
        done = jnp.clip((count - warmup_steps) / max(length, 1), 0.0, 1.0)
        decay = {
            "constant": lambda: jnp.ones_like(done),
            "cosine": lambda: last + (1 - last) * 0.5 * (1 + jnp.cos(jnp.pi * done)),
            "linear": lambda: 1 - (1 - last) * done,
            "exponential": lambda: jnp.power(last, done),
        }[config.schedule]()
        return config.learning_rate * warmup * decay

    return rate


def add_penalties(l1: float, l2: float) -> optax.GradientTransformation:
    """Adds the gradient of l1·|w| + l2·w²/2 to that of each array with two or more axes."""

    def penalised(gradient: Array, weight: Array) -> Array:
        if weight.ndim < 2:
            return gradient
        return gradient + l1 * jnp.sign(weight) + l2 * weight

    return optax.stateless_with_tree_map(penalised)


def keep_within(limit: float) -> optax.GradientTransformation:
    """Shortens updates so that no parameter leaves [-limit, limit]; must come last in a chain."""
    return optax.stateless_with_tree_map(lambda u, w: jnp.clip(w + u, -limit, limit) - w)


def _scaling(
    config: OptimizerConfig, rate: Callable[[Array], Array]
) -> optax.GradientTransformation:
    """The optimiser that the config names, with its learning rate."""
    momentum = config.momentum or None
    match config.name:
        case "adam":
            return optax.adam(rate, b1=config.b1, b2=config.b2, eps=config.eps)
        case "adamw":
            return optax.adamw(
                rate,
                b1=config.b1,
                b2=config.b2,
                eps=config.eps,
                weight_decay=config.weight_decay,
                mask=_matrices,
            )
        case "rmsprop":
            return optax.rmsprop(rate, decay=config.decay, eps=config.eps, momentum=momentum)
        case "sgd":
            return optax.sgd(rate, momentum=momentum)
    raise AssertionError(config.name)  # the config has checked it


def _matrices(params: optax.Params) -> Any:
    """A tree of bools: which arrays have two or more axes."""
    return jax.tree.map(lambda weight: weight.ndim >= 2, params)
