"""Backpropagation through time for thin gated cells on a TPU: features first, sequences in lanes.

A TPU's registers hold 8 by 128 numbers, the last axis along the 128 lanes. Arrays `[N, F]` of a
cell with 16 features leave seven of eight lanes empty; `[F, N]` fills them with sequences, and the
gates of a step, `[G F, N]`, are one array that is split for free. It is the gradient of `stacked`
with rematerialised gates, in one chunk.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from rnngen_jax.cells.base import Carry, Cell, Params, preactivations
from rnngen_jax.ops.precision import einsum, matmul
from rnngen_jax.ops.products import sum_rows
from rnngen_jax.recurrence.base import Sequence, pick
from rnngen_jax.recurrence.stacked import add, add_to_h, cut, over_chunks, step_of, write, zeros


def columns(cell: Cell, params: Params, sequence: Sequence, *, unroll: int) -> tuple[Carry, Array]:
    """Runs a gated cell.

    Args:
      cell: has `gated`.
      params: its parameters.
      sequence: the sequence to run it over, T steps of N sequences.
      unroll: steps per iteration of the compiled loop.
    """
    gated, features, reverse = cell.gated, cell.features, sequence.reverse
    length, *batch, _ = sequence.xs.shape
    num = sequence.carry[0].size // features
    # Along N, the next place of a convolved cell is this far away.
    apart = num // batch[0] if batch else 1
    inputs = [*jax.eval_shape(cell.inputs, params, sequence.xs[:1])]
    kernels = [*jax.eval_shape(gated.kernels, params)]
    # Gates with a product come first, so that their gradients are the first rows.
    names = [*kernels, *(gate for gate in inputs if gate not in kernels)]

    def spread(h: Array) -> Array:
        """`[F, N]` to `[K F, N]`, as `gated.spread`."""
        if gated.offsets == (0,):
            return h
        return jnp.concatenate([_shifted(h, apart * offset) for offset in gated.offsets])

    def wide_inputs(params: Params, xs: Array) -> Array:
        """All gates' inputs, `[T, G F, N]`."""
        # Step by step under `vmap`, so that steps and sequences are not merged: they are apart in
        # the result.
        zs = jax.vmap(lambda x: cell.inputs(params, x))(xs)
        return jnp.concatenate([zs[gate] for gate in inputs], axis=-1).swapaxes(1, 2)

    def wide_kernel(params: Params) -> Array:
        """`[G F, K F]`, to be multiplied from the left."""
        given = gated.kernels(params)
        return jnp.concatenate([given[gate] for gate in kernels], axis=-1).T

    def wide_gates(params: Params, z: Array, products: Array) -> Array:
        """Pre-activations `[G F, N]` in the order of `names`."""
        if inputs == names == kernels:
            return z + products
        biases = {gate: b[:, None] for gate, b in gated.biases(params).items()}
        a = preactivations(_apart(z, inputs), _apart(products, kernels), biases)
        return jnp.concatenate([a[gate] for gate in names])

    def run_forward(
        params: Params, xs: Array, first: Carry, carry: Carry, reset: Array | None, keep: bool
    ) -> tuple[Carry, Array, Any]:
        """The final carry, ys and, with `keep`, what else each step's incoming carry has."""
        kernel, z = wide_kernel(params), wide_inputs(params, xs)

        def block(state: Any, n: Array | int, count: int) -> Any:
            carry, written = state
            here = cut((z, reset), n, count)
            values = [None] * count
            for i in reversed(range(count)) if reverse else range(count):
                z_i, begins = step_of(here, i)
                carry = carry if begins is None else pick(begins, first, carry)
                a = wide_gates(params, z_i, matmul(kernel, spread(carry[0])))
                rest = tuple(carry[1:]) if keep else None
                carry = gated.combine(carry, _apart(a, names))
                values[i] = carry[0], rest
            return carry, write(written, values, n)

        kept = tuple(carry[1:]) if keep else None
        written = jax.tree.map(
            lambda leaf: jnp.zeros((length, *leaf.shape), leaf.dtype), (carry[0], kept)
        )
        last, (ys, rest) = over_chunks(block, (carry, written), length, unroll, reverse)
        return last, ys, rest

    @jax.custom_vjp
    def run(
        params: Params, xs: Array, first: Carry, carry: Carry, reset: Array | None
    ) -> tuple[Carry, Array]:
        return run_forward(params, xs, first, carry, reset, keep=False)[:2]

    def run_and_keep(
        params: Params, xs: Array, first: Carry, carry: Carry, reset: Array | None
    ) -> tuple[tuple[Carry, Array], Any]:
        last, ys, rest = run_forward(params, xs, first, carry, reset, keep=True)
        return (last, ys), (params, xs, first, carry[0], reset, ys, rest)

    def run_backward(residuals: Any, gradients: tuple[Carry, Array]) -> tuple[Any, ...]:
        params, xs, first, h, reset, ys, rest = residuals
        d_last, d_ys = gradients
        # Each step's incoming state is the output before it.
        before = [ys[1:], h[None]] if reverse else [h[None], ys[:-1]]
        before = jnp.concatenate(before)
        before = before if reset is None else pick(reset, first[0], before)
        begun = type(first)(before, *rest)
        kernel, kernel_back = jax.vjp(wide_kernel, params)
        z, inputs_back = jax.vjp(lambda params, xs: wide_inputs(_unbiased(params), xs), params, xs)
        _, offsets_back = jax.vjp(
            lambda params: wide_inputs(params, jnp.zeros_like(xs[:1, :1])), params
        )
        seen = jax.vmap(spread)(before)
        products = einsum("tkn,gk->tgn", seen, kernel)
        a = jax.vmap(lambda z, products: wide_gates(params, z, products))(z, products)
        spread_back = jax.linear_transpose(spread, h)
        rows = len(kernel)

        def block(state: Any, n: Array | int, count: int) -> Any:
            d_carry, d_first, d_a = state
            given = cut((begun, a, d_ys, reset), n, count)
            values = [None] * count
            for i in range(count) if reverse else reversed(range(count)):
                carry, a_i, d_y, begins = step_of(given, i)
                _, combine_back = jax.vjp(
                    lambda c, a: gated.combine(c, _apart(a, names)), carry, a_i
                )
                d_carry, values[i] = combine_back(add_to_h(d_carry, d_y))
                (d_h,) = spread_back(matmul(kernel.T, values[i][:rows]))
                d_carry = add_to_h(d_carry, d_h)
                if begins is not None:
                    nothing = zeros(d_carry)
                    d_first = add(d_first, pick(begins, d_carry, nothing))
                    d_carry = pick(begins, nothing, d_carry)
            return d_carry, d_first, write(d_a, values, n)

        # The backward pass runs against the order of execution.
        state = d_last, zeros(first), zeros(a)
        d_carry, d_first, d_a = over_chunks(block, state, length, unroll, not reverse)
        (d_params,) = kernel_back(einsum("tgn,tkn->gk", d_a[:, :rows], seen))
        d_gates = dict(zip(names, jnp.split(d_a, len(names), axis=1), strict=True))
        d_z = d_a if inputs == names else jnp.concatenate([d_gates[g] for g in inputs], axis=1)
        d_params_here, d_xs = inputs_back(d_z)
        # All biases' gradients from one sum; without input, only biases are left of z.
        sums = sum_rows(d_a.swapaxes(1, 2))
        sums = dict(zip(names, jnp.split(sums, len(names)), strict=True))
        (d_offsets,) = offsets_back(jnp.concatenate([sums[g] for g in inputs])[None, :, None])
        _, biases_back = jax.vjp(gated.biases, params)
        (d_biases,) = biases_back({gate: sums[gate] for gate in gated.biases(params)})
        d_params = add(d_params, d_params_here, d_offsets, d_biases)
        return d_params, d_xs, d_first, d_carry, None

    run.defvjp(run_and_keep, run_backward)
    first, carry = jax.tree.map(
        lambda leaf: leaf.reshape(num, features).T, (sequence.first, sequence.carry)
    )
    reset = sequence.reset
    reset = None if reset is None else reset.reshape(length, 1, num)
    xs = sequence.xs.reshape(length, num, -1)
    last, ys = run(params, xs, first, carry, reset)
    last = jax.tree.map(lambda leaf: leaf.T.reshape(*batch, features), last)
    return last, ys.swapaxes(1, 2).reshape(length, *batch, features)


def _unbiased(params: Params) -> Params:
    """Parameters with constant biases, whose gradient is left to others."""

    def constant(path: Any, leaf: Array) -> Array:
        return jax.lax.stop_gradient(leaf) if jax.tree_util.DictKey("bias") in path else leaf

    return jax.tree.map_with_path(constant, params)


def _apart(x: Array, gates: Any) -> dict[str, Array]:
    """`[G F, N]` to `{gate: [F, N]}`."""
    return dict(zip(gates, jnp.split(x, len(gates)), strict=True))


def _shifted(x: Array, lanes: int) -> Array:
    """`x[:, n + lanes]` at n, 0 beyond the ends."""
    before, after = max(-lanes, 0), max(lanes, 0)
    return jax.lax.slice_in_dim(
        jnp.pad(x, [(0, 0), (before, after)]), after, after + x.shape[1], axis=1
    )
