"""The only place with a time loop: `unroll` runs a cell over a sequence, `generate` a sampler."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from rnngen_jax.cells.base import Carry, Cell, Params, initial_carry

STRATEGIES = ("sequential", "loop")

Body = Callable[[Carry, Any], tuple[Carry, Array]]


def unroll(
    cell: Cell,
    params: Params,
    xs: Array,
    carry: Carry | None = None,
    *,
    strategy: str = "sequential",
    reset: Array | None = None,
    reverse: bool = False,
    remat: int | None = None,
    unroll: int = 1,
) -> tuple[Carry, Array]:
    """Runs a cell over a sequence.

    Args:
      cell: any cell.
      params: its parameters.
      xs: inputs, `[T, B, D]`; any batch axes, also none, between T and D.
      carry: the carry before the first step; the cell's own first carry if `None`.
      strategy: "sequential" is one `jax.lax.scan`. "loop" is the plain Python loop, step after step
        with nothing hoisted, that the others are tested against.
      reset: bool `[T, B]`; where true, the sequence begins anew: the step sees the cell's first
        carry, not the one before. With `reverse`, "before" is in the order of running.
      reverse: runs from the last step to the first; ys keep their places.
      remat: number of steps after which the carry is kept for the gradient; what lies between is
        computed again. About the square root of T needs the least memory. `None` keeps all.
      unroll: steps in one iteration of the compiled loop.

    Returns:
      The carry after the last step run, and the outputs `[T, B, F]`.

    Raises:
      ValueError: an unknown strategy, or `remat` below 1.
    """
    if strategy not in STRATEGIES:
        raise ValueError(f"strategy={strategy!r} is not known; allowed: {', '.join(STRATEGIES)}")
    if remat is not None and remat < 1:
        raise ValueError(f"remat={remat} does not fit; allowed: 1 or more steps, or None")
    first = initial_carry(cell, params, xs.shape[1:-1], xs.dtype)
    carry = first if carry is None else carry

    def body(carry: Carry, step: tuple[Any, Array | None]) -> tuple[Carry, Array]:
        z, begins = step
        if begins is not None:
            carry = _where(begins, first, carry)
        return cell.step(params, carry, z)

    if strategy == "loop":
        return _loop(cell, params, body, carry, xs, reset, reverse)
    steps = (cell.inputs(params, xs), reset)
    return _scan(body, carry, steps, xs.shape[0], reverse, remat, unroll)


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
      forward: the cell that reads `xs` from the first step on.
      backward: the cell that reads `xs` from the last step on.
      params: `{"forward": ..., "backward": ...}`.
      xs: inputs, `[T, B, D]`.
      reset: masks `{"forward": [T, B], "backward": [T, B]}` as in `unroll`: a sequence that begins
        at step s and ends at e is reset at s forwards and at e backwards.
      **options: as in `unroll`, for both.

    Returns:
      The last carry of each direction by name, and the outputs side by side, `[T, B, 2F]`.
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
    """Feeds a sampler its own output, in one compiled loop.

    Args:
      step: `step(carry, x, t, key) -> (carry, x)`: from the element before, the time step (an int32
        scalar) and that step's own key to the next element.
      carry: the sampler's carry before the first step.
      first: what stands before the first element; of the shapes and types of an element.
      key: folded with t for each step.
      length: number of elements T.

    Returns:
      The carry after the last step, and the elements, `[T, ...]`.
    """

    def body(state: tuple[Carry, Any], t: Array) -> tuple[tuple[Carry, Any], Any]:
        carry, x = step(*state, t, jax.random.fold_in(key, t))
        return (carry, x), x

    (carry, _), xs = jax.lax.scan(body, (carry, first), jnp.arange(length))
    return carry, xs


def _where(mask: Array, chosen: Carry, other: Carry) -> Carry:
    """Picks whole carries by a mask over the batch axes."""

    def pick(a: Array, b: Array) -> Array:
        return jnp.where(mask.reshape(mask.shape + (1,) * (a.ndim - mask.ndim)), a, b)

    return jax.tree.map(pick, chosen, other)


def _loop(
    cell: Cell,
    params: Params,
    body: Body,
    carry: Carry,
    xs: Array,
    reset: Array | None,
    reverse: bool,
) -> tuple[Carry, Array]:
    ys: list[Array | None] = [None] * xs.shape[0]
    times = range(xs.shape[0])
    for t in reversed(times) if reverse else times:
        z = cell.inputs(params, xs[t])
        carry, ys[t] = body(carry, (z, None if reset is None else reset[t]))
    return carry, jnp.stack(ys)


def _scan(
    body: Body,
    carry: Carry,
    steps: Any,
    length: int,
    reverse: bool,
    remat: int | None,
    unroll: int,
) -> tuple[Carry, Array]:
    """`lax.scan`, with the carry alone kept at every `remat` steps."""

    def scan(carry: Carry, steps: Any) -> tuple[Carry, Array]:
        return jax.lax.scan(body, carry, steps, reverse=reverse, unroll=unroll)

    if remat is None:
        return scan(carry, steps)

    # Whole chunks run in an outer scan; the odd steps left over are run last, in time's order.
    chunks = length // remat
    cut = (length - chunks * remat) if reverse else chunks * remat
    head = jax.tree.map(lambda a: a[:cut], steps)
    tail = jax.tree.map(lambda a: a[cut:], steps)
    whole, rest = (tail, head) if reverse else (head, tail)
    whole = jax.tree.map(lambda a: a.reshape(chunks, remat, *a.shape[1:]), whole)
    chunk = jax.checkpoint(scan, prevent_cse=False)
    carry, ys = jax.lax.scan(chunk, carry, whole, reverse=reverse)
    ys = ys.reshape(chunks * remat, *ys.shape[2:])
    carry, ys_rest = jax.checkpoint(scan)(carry, rest)
    return carry, jnp.concatenate([ys_rest, ys] if reverse else [ys, ys_rest])
