"""Seeds: several runs of one config, that differ in the seed alone, trained in one program.

Run r of them is the one that `seed + r` makes: its parameters, its batches and its noise. The
arrays of N seeds have a leading axis `[N, ...]`, the state as well as the gradients, and one
program runs over that axis with `jax.vmap`. A run of one seed has no such axis anywhere.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from rnngen_jax.training.state import TrainState
from rnngen_jax.training.step import Fetch, Step, many_steps

Values = float | list[float]  # of the one seed, or of each of several


def create_each(make: Callable[[Any], TrainState], seed: int, seeds: int) -> TrainState:
    """The states before the first step.

    Args:
      make: `make(seed) -> state` of one seed.
      seed: the first.
      seeds: how many, N.

    Returns:
      The states along a leading axis `[N, ...]`; for one seed its state as it is.
    """
    if seeds == 1:
        return make(seed)
    # One after the other: `vmap` would batch the QR of orthogonal kernels, and on a CPU a batched
    # factorisation waits for its parts on the thread pool that two of them fill, for ever.
    return jax.lax.map(make, numbers(seed, seeds))


def many_steps_each(step: Step, fetch: Fetch, seeds: int) -> Callable[..., Any]:
    """Makes the function of one call, as `many_steps` does, for all seeds.

    Args:
      step: one step of one seed.
      fetch: `fetch(resident, item) -> batch` of one seed.
      seeds: how many, N.

    Returns:
      `call(seeds, state, resident, chunk) -> (state, metrics)`: the seeds are `[N]`, as `numbers`
      gives them, or the shard of them that is run; so are the leading axes of the state's leaves.
      Chunk leaves and metrics have leading axes `[K, N]`. For one seed it is that of `many_steps`.
    """

    def one(seed: Any, state: TrainState, resident: Any, chunk: Any) -> Any:
        return many_steps(step, fetch, seed)(state, resident, chunk)

    return one if seeds == 1 else jax.vmap(one, in_axes=(0, 0, None, 1), out_axes=(0, 1))


def with_axis(abstract: Any, seeds: int) -> Any:
    """The shapes and dtypes of all seeds' arrays, from those of one."""
    if seeds == 1:
        return abstract
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct((seeds, *x.shape), x.dtype), abstract)


def pick(tree: Any, seed_index: int, seeds: int) -> Any:
    """The arrays of one seed, from those of all."""
    return tree if seeds == 1 else jax.tree.map(lambda x: x[seed_index], tree)


def gather(metrics: Sequence[Mapping[str, float]]) -> dict[str, Values]:
    """Each metric's value in each seed, from the metrics of the seeds; of one, as it is."""
    if len(metrics) == 1:
        return dict(metrics[0])
    return {name: [float(one[name]) for one in metrics] for name in metrics[0]}


def mean(values: Values) -> float:
    """The mean over seeds."""
    return float(np.mean(values))


def standard_error(values: Sequence[float]) -> float:
    """Of the mean over two seeds or more: the sample standard deviation over √N."""
    return float(np.std(values, ddof=1)) / math.sqrt(len(values))


def summarise(metrics: Mapping[str, Values], seed: int) -> dict[str, float]:
    """Numbers to write down.

    Args:
      metrics: by name, of one seed or of each of several.
      seed: the first.

    Returns:
      The metrics of one seed as they are. Of several, for each metric the mean under its own
      name, `<metric>/standard_error`, and each one's value as `<metric>/seed_<seed>`.
    """
    summary: dict[str, float] = {}
    for name, values in metrics.items():
        summary[name] = mean(values)
        if isinstance(values, list):
            summary[f"{name}/standard_error"] = standard_error(values)
            summary |= {f"{name}/seed_{seed + r}": value for r, value in enumerate(values)}
    return summary


def first_not_finite(name: str, values: np.ndarray, seeds: int) -> tuple[str, float]:
    """The first number that is not finite, and what to call it.

    Args:
      name: of the values.
      values: with several seeds `[N, ...]`; one of them at least is not finite.
      seeds: how many, N.

    Returns:
      The name, which with several seeds says which one, and the number.
    """
    at = tuple(np.argwhere(~np.isfinite(values))[0])
    return name if seeds == 1 else f"{name} of seed_index {at[0]}", float(values[at])


def numbers(seed: int, seeds: int) -> np.ndarray:
    """The seeds `[N]`, or `[]` of one; each makes the key that the same Python int makes."""
    each = np.arange(seed, seed + seeds, dtype=np.uint32)
    return each if seeds > 1 else each[0]
