"""The cell contract, and helpers shared by cells.

A cell is a NamedTuple of pure functions, like an optax gradient transformation: hyper-parameters
live in the closure, parameters and carries are plain pytrees of arrays. Products act on row
vectors, `x @ W`, so an input kernel is `[D, F]` and a recurrent kernel `[F, F]`.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from rnngen_jax.errors import UserError
from rnngen_jax.ops.convolutions import convolver
from rnngen_jax.ops.devices import compiled_for
from rnngen_jax.ops.precision import matmul
from rnngen_jax.ops.products import THIN, is_narrow, multiplier, product

Params = dict[str, Any]
Carry = Any  # a named tuple of arrays, or a tuple of carries
Inputs = Any  # a pytree of arrays that share the leading axes of xs


class Gated(NamedTuple):
    """The internals of a cell whose step is one product with h per gate and otherwise elementwise.

    The pre-activation of gate g is `a_g = z_g + h U_g + c_g`, where a gate may lack z or U. Such a
    cell gets the tuned gradient of the sequential strategy; its `step` is `gated_step`.

    Attributes:
      kernels: `kernels(params) -> {gate: U [F, F]}`.
      biases: `biases(params) -> {gate: c [F]}`, for gates without inputs; others' are in z.
      combine: `combine(carry, a) -> carry`, elementwise and without parameters; the first field of
        the carry is h, which is also the output.
      offsets: of the K neighbouring places along the first axis whose states replace h in the
        products, for `convolved` cells; kernels are then `[K F, F]`.
      side: of the square of places along the last two axes before F whose states are convolved
        instead, for cells `over_maps`; kernels are then `[side² F, F]`.
      inputs: `inputs(params) -> ({gate: W [D, F]}, {gate: b [F]})` for cells each of whose gates is
        `x W + h U + b`; `None` for all others.
    """

    kernels: Callable[[Params], dict[str, Array]]
    biases: Callable[[Params], dict[str, Array]]
    combine: Callable[[Carry, dict[str, Array]], Carry]
    offsets: tuple[int, ...] = (0,)
    inputs: Callable[[Params], tuple[dict[str, Array], dict[str, Array]]] | None = None
    side: int = 1

    def spread(self, h: Array) -> Array:
        """`[P, ..., F]` to the neighbours' states `[P, ..., K F]`; h itself without neighbours."""
        if self.offsets == (0,):
            return h
        return jnp.concatenate([shifted(h, offset) for offset in self.offsets], axis=-1)

    def products(self, kernels: dict[str, Array]) -> Callable[[Array], dict[str, Array]]:
        """`multiply(h [..., F]) -> {gate: h U [..., F]}`, linear in h, over neighbours if any."""
        if self.side > 1:
            return convolver(kernels, self.side)
        multiply = multiplier(kernels)
        return lambda h: multiply(self.spread(h))


def shifted(x: Array, offset: int) -> Array:
    """`x[p + offset]` at place p of the first axis; 0 beyond its ends."""
    places = x.shape[0]
    before, after = max(-offset, 0), max(offset, 0)
    padding = [(before, after)] + [(0, 0)] * (x.ndim - 1)
    return jax.lax.slice_in_dim(jnp.pad(x, padding), after, after + places)


class Cell(NamedTuple):
    """A recurrent cell.

    Attributes:
      features: output size F.
      init: `init(key, in_features) -> params`, a nested dict of arrays.
      carry: `carry(batch_shape, dtype) -> carry`, the carry before the first step: zeros.
      inputs: `inputs(params, xs [..., D]) -> zs`, the time-independent part of the step, for any
        leading axes; computed for all steps at once.
      step: `step(params, carry, z) -> (carry, y [..., F])`, one step, in `jax.lax.scan` order.
      linear: for cells whose step is linear in the carry, `linear(params, zs) -> (a, b)` with
        `h[t] = a[t] * h[t-1] + b[t]`; `None` for all others.
      learned: `learned(params, batch_shape, dtype) -> carry` for cells with a learned initial
        carry; `None` for all others.
      gated: the internals of a `Gated` cell; `None` for all others.
      compose: for cells built from others, `compose(run, params, xs, first, carry) -> (carry, ys)`:
        runs each part over the whole sequence with `run(cell, params, xs, first, carry)`, with the
        same results as repeated `step`s; `first` is the cell's own initial carry.
      maps: whether it runs over maps: the last two batch axes are their height and width, and a
        place sees its neighbours.
      terms: names of the last outputs, which are no features but terms of a loss (`apart`).
    """

    features: int
    init: Callable[[Array, int], Params]
    carry: Callable[[tuple[int, ...], Any], Carry]
    inputs: Callable[[Params, Array], Inputs]
    step: Callable[[Params, Carry, Inputs], tuple[Carry, Array]]
    linear: Callable[[Params, Inputs], tuple[Array, Array]] | None = None
    learned: Callable[[Params, tuple[int, ...], Any], Carry] | None = None
    gated: Gated | None = None
    compose: Callable[[Any, Params, Array, Carry, Carry], tuple[Carry, Array]] | None = None
    maps: bool = False
    terms: tuple[str, ...] = ()


def initial_carry(cell: Cell, params: Params, batch_shape: tuple[int, ...], dtype: Any) -> Carry:
    """The carry before the first step: the learned one if the cell has one, else zeros."""
    if cell.learned is not None:
        return cell.learned(params, batch_shape, dtype)
    return cell.carry(batch_shape, dtype)


def apart(cell: Cell, ys: Array) -> tuple[Array, dict[str, Array]]:
    """Separates the outputs of a cell over maps from the terms of a loss beside them.

    Args:
      cell: any cell.
      ys: its outputs, `[T, B, H, W, F]`, or those of one step.

    Returns:
      The features `[T, B, H, W, F - N]`, and the N terms by name, `[T, B]`: they are the same at
      all places of a map. Of a cell without terms, ys and an empty dict.
    """
    if not cell.terms:
        return ys, {}
    features = ys.shape[-1] - len(cell.terms)
    terms = {name: ys[..., 0, 0, features + n] for n, name in enumerate(cell.terms)}
    return ys[..., :features], terms


def input_kernel(key: Array, in_features: int, features: int) -> Array:
    """Glorot-uniform kernel `[D, F]` (Glorot and Bengio 2010, eq. 16).

    Raises:
      ValueError: D or F below 1.
    """
    _require_sizes(in_features=in_features, features=features)
    return jax.nn.initializers.glorot_uniform()(key, (in_features, features))


def recurrent_kernel(key: Array, features: int) -> Array:
    """Orthogonal kernel `[F, F]`, which keeps the norm of a state (Saxe et al. 2014).

    Raises:
      ValueError: F below 1.
    """
    _require_sizes(features=features)
    return jax.nn.initializers.orthogonal()(key, (features, features))


def _require_sizes(**sizes: int) -> None:
    """Raises a `ValueError` for a size below 1, by its name."""
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} must be ≥ 1, got {size}")


def require_no_weights_needed(cell: str, in_features: int, features: int) -> None:
    """Raises a `UserError` unless the inputs are as wide as the features they are added to."""
    if in_features != features:
        raise UserError(
            f"cell {cell!r} with input_weights=False needs inputs as wide as its features, "
            f"got {in_features} for {features}; leave that option out."
        )


def gate_params(
    key: Array, in_features: int, features: int, gates: tuple[str, ...]
) -> dict[str, dict[str, Array]]:
    """`{"input": {gate: [D, F]}, "recurrent": {gate: [F, F]}, "bias": {gate: [F]}}`, biases zero.

    Each gate has its own arrays: the equations read as in the papers, and no wide result has to be
    split, which costs more than it saves on a CPU.
    """
    keys = jax.random.split(key, (2, len(gates)))
    return {
        "input": {
            g: input_kernel(k, in_features, features) for g, k in zip(gates, keys[0], strict=True)
        },
        "recurrent": {
            g: recurrent_kernel(k, features) for g, k in zip(gates, keys[1], strict=True)
        },
        "bias": {g: jnp.zeros(features) for g in gates},
    }


def gate_inputs(params: Params, xs: Array) -> dict[str, Array]:
    """`x W_g + b_g` for every gate g that has input weights."""
    kernels = params["input"]
    if is_narrow(xs) or next(iter(kernels.values())).shape[-1] > THIN:
        return {g: product(xs, w) + params["bias"][g] for g, w in kernels.items()}
    wide = product(xs, jnp.concatenate(list(kernels.values()), axis=-1))
    if compiled_for() == "tpu":  # whose compiler sees through a split that is joined again
        wide = wide + jnp.concatenate([params["bias"][g] for g in kernels])
        return dict(zip(kernels, jnp.split(wide, len(kernels), axis=-1), strict=True))
    parts = jnp.split(wide, len(kernels), axis=-1)
    return {g: z + params["bias"][g] for g, z in zip(kernels, parts, strict=True)}


def gated_step(gated: Gated) -> Callable[[Params, Carry, Inputs], tuple[Carry, Array]]:
    """The `step` of a gated cell with inputs `{gate: [..., F]}`."""

    def step(params: Params, carry: Carry, z: dict[str, Array]) -> tuple[Carry, Array]:
        products = gated.products(gated.kernels(params))(carry[0])
        return _combined(gated, params, carry, products, z)

    return step


def advance(
    gated: Gated, params: Params, carry: Carry, h: Array, z: dict[str, Array]
) -> tuple[Carry, Array]:
    """One step of a gated cell, given the state that its products take, `h [..., K F]`."""
    return _combined(gated, params, carry, multiplier(gated.kernels(params))(h), z)


def _combined(
    gated: Gated, params: Params, carry: Carry, products: dict[str, Array], z: dict[str, Array]
) -> tuple[Carry, Array]:
    carry = gated.combine(carry, preactivations(z, products, gated.biases(params)))
    return carry, carry[0]


def stepper(
    cell: Cell, params: Params, known: Array
) -> Callable[[Carry, Array], tuple[Carry, Array]]:
    """`step(carry, x [B, D]) -> (carry, y)`, for a loop in which x depends on the previous step.

    No input product can then be hoisted for all steps at once, but whatever is constant over steps
    is computed here, before the loop. Where each gate is `x W + h U + b`, a single product of
    `[x, h]` for all gates is faster on a CPU, for the few rows of one step, than one per gate.

    Args:
      cell: any cell.
      params: its parameters.
      known: `[B, K]`, inputs that are constant over steps; their kernel rows precede those of x.
    """
    gated = cell.gated
    if gated is None or gated.inputs is None:
        return lambda carry, x: cell.step(
            params, carry, cell.inputs(params, jnp.concatenate([known, x], axis=-1))
        )
    (inputs, biases), kernels = gated.inputs(params), gated.kernels(params)
    gates = list(inputs)
    side_by_side = functools.partial(jnp.concatenate, axis=-1)
    first, rest = jnp.split(side_by_side([inputs[gate] for gate in gates]), [known.shape[-1]])
    kernel = jnp.concatenate([rest, side_by_side([kernels[gate] for gate in gates])])
    bias = matmul(known, first) + side_by_side([biases[gate] for gate in gates])

    def step(carry: Carry, x: Array) -> tuple[Carry, Array]:
        wide = matmul(side_by_side([x, gated.spread(carry[0])]), kernel) + bias
        parts = jnp.split(wide, len(gates), axis=-1)
        carry = gated.combine(carry, dict(zip(gates, parts, strict=True)))
        return carry, carry[0]

    return step


def preactivations(
    z: dict[str, Array], products: dict[str, Array], biases: dict[str, Array]
) -> dict[str, Array]:
    """`a_g = z_g + h U_g + c_g`, `[..., F]` for every gate, from whichever parts it has."""
    a = dict(z)
    for part in (products, biases):
        for gate, value in part.items():
            a[gate] = a[gate] + value if gate in a else value
    return a
