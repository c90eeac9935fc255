"""One training step as a pure function, and several of them in one call."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from rnngen_jax import keys
from rnngen_jax.models.base import Aux, Batch, Extra, Model
from rnngen_jax.ops.batch import mean_over_devices
from rnngen_jax.ops.batch import parts as shards
from rnngen_jax.ops.precision import computing_in
from rnngen_jax.training.privacy import Privacy, clipped_value_and_grad, noised
from rnngen_jax.training.state import TrainState

Transform = Callable[[Batch, Array], Batch]
Metrics = dict[str, Array]
Step = Callable[[TrainState, Batch, Array], tuple[TrainState, Metrics]]
Fetch = Callable[[Mapping[str, Array] | None, Mapping[str, Array]], Batch]
Call = Callable[[TrainState, Any, Any], tuple[TrainState, Metrics]]


class Updates(NamedTuple):
    """Per-player update settings.

    Attributes:
      per_step: updates in a row in one step.
      privacy: makes the player's gradients private; `None` for plain ones.
    """

    per_step: int = 1
    privacy: Privacy | None = None


def train_step(
    model: Model,
    optimizers: Mapping[str, optax.GradientTransformation],
    ema_decay: float,
    transform: Transform,
    updates: Mapping[str, Updates] | None = None,
    micro_batches: int = 1,
    compute_dtype: str = "float32",
) -> Step:
    """Makes the function of one training step.

    Within a step the players are updated in the order of `model.losses`. Each is differentiated in
    its own branch of the parameters, with the others' as they are after their updates, and hands
    its `extra` to the next. Update number i of every player sees the same batch; a step's examples
    number i, i + n, i + 2 n, ... make it up, where n is `most_updates(updates)`.

    Where the batch is sharded over devices, each of them runs this on its shard, and an update's
    loss, metrics and gradient are averaged over devices in one all-reduce. `extra` is not averaged,
    since it is the same on all devices: a model computes what its `extra` keeps of a batch with
    `ops.batch`.

    Args:
      model: the model.
      optimizers: by player.
      ema_decay: decay of the moving average of the parameters, at step t no more than
        (1 + t) / (10 + t); 0 for none.
      transform: what is done to a batch first, such as augmentation.
      updates: by player; one update with plain gradients for a player that is not there.
      micro_batches: parts of an update's batch that are differentiated one after the other, M:
        activations take 1/M of the memory. The gradient is the mean of theirs, so statistics of a
        batch, as batch normalisation takes them, are those of a micro-batch.
      compute_dtype: of the products in the losses and their gradients, one of `precision.DTYPES`.

    Returns:
      `step(state, batch, key) -> (state, metrics)`. The metrics are scalars: `loss/<player>`,
      `grad_norm/<player>` (the global norm of the loss's gradient, before penalties and clipping)
      and the losses' own; of several updates, their means.
    """
    settings = {player: (updates or {}).get(player, Updates()) for player in model.losses}
    parts = most_updates(settings)

    def update(
        player: str, state: TrainState, batch: Batch, key: Array
    ) -> tuple[TrainState, Metrics]:
        """Updates one player once."""

        own, opt_state = state.params[player], state.opt_state[player]
        privacy = settings[player].privacy

        def differentiate(extra: Any, batch: Batch) -> tuple[tuple[Array, Aux], Any]:
            def loss(own: Any, batch: Batch) -> tuple[Array, Aux]:
                params = {**state.params, player: own}
                return model.losses[player](params, extra, batch, key, state.step)

            if privacy is not None:
                return clipped_value_and_grad(loss, own, batch, privacy.clip)
            return jax.value_and_grad(loss, has_aux=True)(own, batch)

        with computing_in(compute_dtype):
            (value, aux), gradient = _accumulated(differentiate, state.extra, batch, micro_batches)
        value, shown, gradient = mean_over_devices((value, aux.metrics, gradient))
        if privacy is not None:
            noise_key = keys.named(key, "privacy")
            gradient = noised(gradient, privacy, len(batch["index"]) * shards(), noise_key)
        change, opt_state = optimizers[player].update(gradient, opt_state, own)
        metrics = {f"loss/{player}": value, f"grad_norm/{player}": optax.tree.norm(gradient)}
        state = state._replace(
            params={**state.params, player: optax.apply_updates(own, change)},
            opt_state={**state.opt_state, player: opt_state},
            extra=aux.extra,
        )
        return state, {**shown, **metrics}

    def all_updates(
        player: str, state: TrainState, batch: Batch, key: Array
    ) -> tuple[TrainState, Metrics]:
        """Updates one player as often as its settings say."""
        count = settings[player].per_step
        cut = jax.tree.map(lambda x: x[:count], _cut(batch, parts))
        if count == 1:
            return update(player, state, jax.tree.map(lambda x: x[0], cut), key)

        def body(state: TrainState, item: tuple[Batch, Array]) -> tuple[TrainState, Metrics]:
            batch, number = item
            return update(player, state, batch, jax.random.fold_in(key, number))

        state, metrics = jax.lax.scan(body, state, (cut, jnp.arange(count)))
        return state, jax.tree.map(lambda x: x.mean(0), metrics)

    def step(state: TrainState, batch: Batch, key: Array) -> tuple[TrainState, Metrics]:
        batch = transform(batch, keys.named(key, "transform"))
        metrics: Metrics = {}
        for player in model.losses:
            state, own = all_updates(player, state, batch, keys.named(key, f"loss/{player}"))
            metrics |= own
        if state.ema is not None:
            # Young averages forget faster, so that the initial parameters do not linger in them.
            decay = jnp.minimum(ema_decay, (1.0 + state.step) / (10.0 + state.step))
            ema = optax.incremental_update(state.params, state.ema, 1 - decay)
            state = state._replace(ema=ema)
        return state._replace(step=state.step + 1), metrics

    return step


def _cut(batch: Batch, parts: int) -> dict[str, Array]:
    """A batch in equal parts, `[parts, B / parts, ...]`.

    They lie across the batch, so that a device's shard of it holds as much of each part.
    """
    return {
        name: jnp.moveaxis(x.reshape(-1, parts, *x.shape[1:]), 1, 0) for name, x in batch.items()
    }


def _accumulated(
    differentiate: Callable[[Extra, Batch], tuple[tuple[Array, Aux], Any]],
    extra: Extra,
    batch: Batch,
    micro_batches: int,
) -> tuple[tuple[Array, Aux], Any]:
    """`differentiate(extra, batch)`, of one micro-batch after the other; the means of their values.

    Each hands its `extra` to the next.
    """
    if micro_batches == 1:
        return differentiate(extra, batch)

    def body(carry: tuple[Extra, Any], part: Batch) -> tuple[tuple[Extra, Any], Any]:
        extra, total = carry
        (value, aux), gradient = differentiate(extra, part)
        return (aux.extra, jax.tree.map(jnp.add, total, gradient)), (value, aux.metrics)

    cut = _cut(batch, micro_batches)
    first = jax.tree.map(lambda x: x[0], cut)
    _, like = jax.eval_shape(differentiate, extra, first)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like)
    (extra, total), shown = jax.lax.scan(body, (extra, zeros), cut)
    value, metrics = jax.tree.map(lambda x: x.mean(0), shown)
    return (value, Aux(metrics, extra)), jax.tree.map(lambda x: x / micro_batches, total)


def most_updates(updates: Mapping[str, Updates]) -> int:
    """The most updates that a player makes in a step, which takes as many batches."""
    return max((each.per_step for each in updates.values()), default=1)


def many_steps(step: Step, fetch: Fetch, seed: int | Array) -> Call:
    """Makes the function of one call: as many steps as the chunk is long.

    The key of a step is folded from the seed's key and the number of the step, so that a run that
    is resumed draws the same noise.

    Args:
      step: one step.
      fetch: `fetch(resident, item) -> batch`, from one step's slice of a chunk.
      seed: the run's seed.

    Returns:
      `call(state, resident, chunk) -> (state, metrics)`; chunk leaves and metrics have a leading
      axis `[K]`.
    """

    def call(
        state: TrainState, resident: Mapping[str, Array] | None, chunk: Mapping[str, Array]
    ) -> tuple[TrainState, Metrics]:
        seed_key = jax.random.key(seed)

        def body(state: TrainState, item: Mapping[str, Array]) -> tuple[TrainState, Metrics]:
            key = jax.random.fold_in(seed_key, state.step)
            return step(state, fetch(resident, item), key)

        return jax.lax.scan(body, state, chunk)

    return call
