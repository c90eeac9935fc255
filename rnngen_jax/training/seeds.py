"""Training several seeds of one config in one program.

Run r is the same as a run with `seed + r` alone: its parameters, its batches and its noise. With N
seeds all arrays, state and gradients, have a leading axis `[N, ...]`, which `jax.vmap` maps over. A
run of one seed has no such axis.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from rnngen_jax.training.state import TrainState
from rnngen_jax.training.step import Fetch, Step, many_steps

Values = float | list[float]  # a value, or one per seed of several


def create_each(make: Callable[[Any], TrainState], seed: int, seeds: int) -> TrainState:
    """The states of all seeds before the first step.

    Args:
      make: `make(seed) -> state` of one seed.
      seed: the first seed.
      seeds: number of seeds N.

    Returns:
      The states along a leading axis `[N, ...]`; for one seed, its state without that axis.
    """
    if seeds == 1:
        return make(seed)
    # Sequentially: `vmap` would batch the QR decompositions of orthogonal kernels, and on CPU two
    # batched decompositions can deadlock, each waiting for threads of the same pool.
    return jax.lax.map(make, numbers(seed, seeds))


def many_steps_each(step: Step, fetch: Fetch, seeds: int) -> Callable[..., Any]:
    """The function of one call, as from `many_steps`, for all seeds.

    Args:
      step: one step of one seed.
      fetch: `fetch(resident, item) -> batch` of one seed.
      seeds: number of seeds N.

    Returns:
      `call(seeds, state, resident, chunk) -> (state, metrics)`: the seeds are `[N]`, from
      `numbers`, or a shard of them, and the state's leaves have the same leading axis. Chunk leaves
      and metrics have leading axes `[K, N]`. For one seed, the function from `many_steps`.
    """

    def one(seed: Any, state: TrainState, resident: Any, chunk: Any) -> Any:
        return many_steps(step, fetch, seed)(state, resident, chunk)

    return one if seeds == 1 else jax.vmap(one, in_axes=(0, 0, None, 1), out_axes=(0, 1))


def with_axis(abstract: Any, seeds: int) -> Any:
    """The shapes and dtypes of all seeds' arrays, given those of one seed."""
    if seeds == 1:
        return abstract
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct((seeds, *x.shape), x.dtype), abstract)


def pick(tree: Any, seed_index: int, seeds: int) -> Any:
    """The arrays of one seed, given those of all."""
    return tree if seeds == 1 else jax.tree.map(lambda x: x[seed_index], tree)


def gather(metrics: Sequence[Mapping[str, float]]) -> dict[str, Values]:
    """Each metric's values over seeds, given each seed's metrics; a plain value for one seed."""
    if len(metrics) == 1:
        return dict(metrics[0])
    return {name: [float(one[name]) for one in metrics] for name in metrics[0]}


def mean(values: Values) -> float:
    """The mean over seeds."""
    return float(np.mean(values))


def standard_error(values: Sequence[float]) -> float:
    """The standard error of the mean over N ≥ 2 seeds: the sample standard deviation over √N."""
    return float(np.std(values, ddof=1)) / math.sqrt(len(values))


def summarise(metrics: Mapping[str, Values], seed: int) -> dict[str, float]:
    """Metrics as they are recorded.

    Args:
      metrics: by name, of one seed or of each of several.
      seed: the first seed.

    Returns:
      The metrics of one seed as they are. For several, each metric's mean under its own name,
      `<metric>/standard_error`, and each seed's value as `<metric>/seed_<seed>`.
    """
    summary: dict[str, float] = {}
    for name, values in metrics.items():
        summary[name] = mean(values)
        if isinstance(values, list):
            summary[f"{name}/standard_error"] = standard_error(values)
            summary |= {f"{name}/seed_{seed + r}": value for r, value in enumerate(values)}
    return summary


def first_not_finite(name: str, values: np.ndarray, seeds: int) -> tuple[str, float]:
    """The first number that is not finite, and its name for messages.

    Args:
      name: of the values.
      values: with several seeds `[N, ...]`; at least one is not finite.
      seeds: number of seeds N.

    Returns:
      The name, with the seed's index if there are several, and the number.
    """
    at = tuple(np.argwhere(~np.isfinite(values))[0])
    return name if seeds == 1 else f"{name} of seed_index {at[0]}", float(values[at])


def numbers(seed: int, seeds: int) -> np.ndarray:
    """The seeds `[N]`, or `[]` for one; each makes the same key as the same Python int."""
    each = np.arange(seed, seed + seeds, dtype=np.uint32)
    return each if seeds > 1 else each[0]
