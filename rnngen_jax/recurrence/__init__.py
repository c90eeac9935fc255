"""The only package with time loops: `unroll` runs a cell over a sequence, `generate` a sampler.

A strategy is one way of running a cell over time, one per file, named after its file.
"""

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from rnngen_jax.cells.base import Carry, Cell, Params, initial_carry
from rnngen_jax.config import options, require_choice
from rnngen_jax.discovery import modules
from rnngen_jax.errors import UserError
from rnngen_jax.recurrence.base import Sequence, Strategy, checkpointed, composed


def names() -> list[str]:
    """Names of all strategies: files that define a function of the same name, with options only."""
    return sorted(name for name, file in modules(__path__).items() if file.get(name) == ())


def from_spec(spec: str) -> Strategy:
    """Builds the strategy that a spec string names.

    Args:
      spec: a strategy's name and, after a colon, its options: `"sequential"`,
        `"sequential:gates=recompute,chunk=28"`.

    Raises:
      UserError: an unknown strategy or option, or a value of the wrong type.
    """
    name, _, text = spec.partition(":")
    require_choice("strategy", name, names())
    function = getattr(_module(name), name)
    return function(**options(function, f"strategy {name!r}", text))


def by_layer(spec: str) -> Strategy:
    """The strategy of a spec string, applied separately to each cell of a composed cell.

    Raises:
      UserError: as for `from_spec`.
    """
    return composed(from_spec(spec))


def joining() -> list[str]:
    """Names of the strategies that can also run cells whose step mixes places of the batch axes."""
    return [name for name in names() if not getattr(_module(name), "INDEPENDENT", False)]


def refuse_suffix(cell: str, where: str, settable: bool) -> None:
    """Raises a `UserError` for the former spelling `CELL@STRATEGY`.

    Args:
      cell: a cell's spec string.
      where: the section with the field `cell`, such as "config.model".
      settable: whether the section also has a field `strategy`.
    """
    plain, at, strategy = cell.partition("@")
    if at:
        instead = f"{where}.cell={plain}"
        if settable and strategy:
            instead += f" and {where}.strategy={strategy}"
        raise UserError(f"{where}.cell={cell!r} is an old spelling; set {instead}.")


def unroll(
    cell: Cell,
    params: Params,
    xs: Array,
    carry: Carry | None = None,
    *,
    strategy: str | Strategy = "auto",
    reset: Array | None = None,
    reverse: bool = False,
    remat: int | None = None,
    unroll: int = 0,
) -> tuple[Carry, Array]:
    """Runs a cell over a sequence.

    Args:
      cell: any cell.
      params: its parameters.
      xs: inputs, `[T, B, D]`, with any number of batch axes between T and D, including none; those
        of a cell over maps are `[T, B, H, W, D]`.
      carry: the initial carry; the cell's own if `None`.
      strategy: a spec string as in `from_spec`, or a `Strategy`. All give the same results as
        "loop", the plain Python loop. "auto" is "associative" for cells linear in the carry and
        "sequential" for all others.
      reset: bool `[T, B]`; where true, a new sequence begins: the step sees the cell's initial
        carry instead of the previous one. With `reverse`, "previous" is in the order of execution.
        For a cell over maps it may also be `[T, B, H, W]`.
      reverse: runs from the last step to the first; ys keep their positions.
      remat: keeps the carry every `remat` steps and rematerialises the steps between in the
        backward pass. About the square root of T needs the least memory. `None` keeps whatever the
        strategy keeps.
      unroll: steps per loop iteration, for the strategies "auto" and "sequential"; 0 chooses.

    Returns:
      The carry after the last step executed, and the outputs `[T, B, F]`.

    Raises:
      UserError: an unknown strategy or option.
      ValueError: `remat` < 1, `unroll` with another strategy, or inputs, carry or reset of the
        wrong shape.
    """
    if xs.ndim < 2:
        raise ValueError(f"xs must be [T, B, D] or [T, D], got shape {xs.shape}")
    if cell.maps and xs.ndim < 4:
        raise ValueError(f"xs of a cell over maps must be [T, B, H, W, D], got shape {xs.shape}")
    if reset is not None and cell.maps and reset.shape == xs.shape[:-3]:
        reset = jnp.broadcast_to(reset[..., None, None], xs.shape[:-1])
    if reset is not None and reset.shape != xs.shape[:-1]:
        raise ValueError(f"reset must be of shape {xs.shape[:-1]}, as xs, got {reset.shape}")
    if remat is not None and remat < 1:
        raise ValueError(f"remat must be ≥ 1 or None, got {remat}")
    if unroll:
        if strategy not in ("auto", "sequential"):
            raise ValueError(f"unroll must be 0 with strategy={strategy!r}, got {unroll}")
        strategy = f"{strategy}:unroll={unroll}"
    run = from_spec(strategy) if isinstance(strategy, str) else strategy
    run = checkpointed(run, remat) if remat else run
    first = initial_carry(cell, params, xs.shape[1:-1], xs.dtype)
    carry = first if carry is None else carry
    _require_like(carry, first)
    return run(cell, params, Sequence(xs, first, carry, reset, reverse))


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"{__name__}.{name}")


def _require_like(carry: Carry, first: Carry) -> None:
    """Raises a `ValueError` unless `carry` has the structure and shapes of `first`."""
    shapes, wanted = jax.tree.map(jnp.shape, carry), jax.tree.map(jnp.shape, first)
    if jax.tree.structure(carry) != jax.tree.structure(first) or shapes != wanted:
        raise ValueError(f"the carry's shapes must be {wanted}, got {shapes}")


def bidirectional(
    forward: Cell,
    backward: Cell,
    params: dict[str, Params],
    xs: Array,
    *,
    reset: dict[str, Array] | None = None,
    **options: Any,
) -> tuple[dict[str, Carry], Array]:
    """Runs one cell forwards and another backwards in time (Schuster and Paliwal 1997).

    Args:
      forward: the cell that reads `xs` from the first step to the last.
      backward: the cell that reads `xs` from the last step to the first.
      params: `{"forward": ..., "backward": ...}`.
      xs: inputs, `[T, B, D]`.
      reset: masks `{"forward": [T, B], "backward": [T, B]}` as in `unroll`: a sequence that begins
        at step s and ends at e is reset at s forwards and at e backwards.
      **options: as in `unroll`, for both.

    Returns:
      The final carry of each direction by name, and the concatenated outputs, `[T, B, 2F]`.
    """
    masks = reset or {"forward": None, "backward": None}
    last_forward, ys_forward = unroll(
        forward, params["forward"], xs, reset=masks["forward"], **options
    )
    last_backward, ys_backward = unroll(
        backward, params["backward"], xs, reset=masks["backward"], reverse=True, **options
    )
    carries = {"forward": last_forward, "backward": last_backward}
    return carries, jnp.concatenate([ys_forward, ys_backward], axis=-1)


def generate(
    step: Callable[[Carry, Any, Array, Array], tuple[Carry, Any]],
    carry: Carry,
    first: Any,
    key: Array,
    length: int,
) -> tuple[Carry, Any]:
    """Feeds a sampler its own output, in one compiled loop (ancestral sampling).

    Args:
      step: `step(carry, x, t, key) -> (carry, x)`: from the previous element, the time step (an
        int32 scalar) and that step's own key to the next element.
      carry: the sampler's initial carry.
      first: the input of the first step, with the shapes and types of an element.
      key: a random key, folded with t for each step.
      length: number of elements T.

    Returns:
      The final carry, and the elements, `[T, ...]`.
    """

    def body(state: tuple[Carry, Any], t: Array) -> tuple[tuple[Carry, Any], Any]:
        carry, x = step(*state, t, jax.random.fold_in(key, t))
        return (carry, x), x

    (carry, _), xs = jax.lax.scan(body, (carry, first), jnp.arange(length))
    return carry, xs
