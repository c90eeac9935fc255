"""Backpropagation through time for gated cells, with weight gradients taken outside the loop.

The transpose of a scan accumulates the weight gradients in its carry, so every step reads and
writes arrays as large as the weights, and its products have only B rows. Here the backward loop
computes only the gradients of the pre-activations and stacks them; one product per chunk of steps
then gives the weight gradients. Only the carries (and, on request, the gates) are kept for all T
steps: everything else exists for one chunk at a time, in a core's cache.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from rnngen_jax.cells.base import Carry, Cell, Gated, Params, preactivations
from rnngen_jax.ops.devices import compiled_for
from rnngen_jax.ops.precision import matmul
from rnngen_jax.ops.products import THIN, is_narrow, multiplier
from rnngen_jax.recurrence.base import Sequence, chunk_steps, pick
from rnngen_jax.recurrence.choices import choose


def stacked(
    cell: Cell, params: Params, sequence: Sequence, *, gates: str, chunk: int, unroll: int
) -> tuple[Carry, Array]:
    """Runs a gated cell.

    Args:
      cell: has `gated`.
      params: its parameters.
      sequence: the sequence to run it over.
      gates: "store" keeps pre-activations for the gradient, "recompute" rematerialises them from
        the carries; "auto" chooses.
      chunk: maximum steps per chunk; 0 chooses.
      unroll: steps per iteration of the compiled loop; 0 chooses.
    """
    gated, reverse = cell.gated, sequence.reverse
    length, rows = sequence.xs.shape[0], sequence.carry[0].size // cell.features
    choice = choose(compiled_for(), rows, cell.features, gated.side)
    size, unroll = chunk_steps(chunk or choice.chunk, length), unroll or choice.unroll
    stored = choice.stored if gates == "auto" else gates == "store"
    narrow = is_narrow(sequence.xs) and not cell.maps

    def weights(params: Params) -> tuple[dict[str, Array], dict[str, Array]]:
        return dict(gated.kernels(params)), dict(gated.biases(params))

    def run_forward(
        params: Params, xs: Array, first: Carry, carry: Carry, reset: Array | None, keep: bool
    ) -> tuple[Carry, Array, Any]:
        """The final carry, ys and, with `keep`, each step's incoming carry and gates."""
        kernels, biases = weights(params)
        multiply = gated.products(kernels)

        def step(carry: Carry, z: Any, begins: Array | None) -> tuple[Carry, Any]:
            begun = carry if begins is None else pick(begins, first, carry)
            a = preactivations(z, multiply(begun[0]), biases)
            carry = gated.combine(begun, a)
            return carry, (carry[0], (begun, a if stored else None) if keep else None)

        def advance(state: Any, start: Array | int, steps: int) -> Any:
            zs = cut(xs, start, steps)
            zs = zs if narrow else cell.inputs(params, zs)

            def block(state: Any, n: Array | int, count: int) -> Any:
                carry, written = state
                here = cut(zs, n, count), cut(reset, start + n, count)
                if narrow:
                    here = cell.inputs(params, here[0]), here[1]
                values = [None] * count
                for i in reversed(range(count)) if reverse else range(count):
                    carry, values[i] = step(carry, *step_of(here, i))
                return carry, write(written, values, start + n)

            return over_chunks(block, state, steps, unroll, reverse)

        written = jax.eval_shape(
            lambda: step(carry, *step_of((cell.inputs(params, xs[:1]), reset), 0))[1]
        )
        written = jax.tree.map(lambda a: jnp.zeros((length, *a.shape), a.dtype), written)
        last, (ys, kept) = over_chunks(advance, (carry, written), length, size, reverse)
        return last, ys, kept

    @jax.custom_vjp
    def run(
        params: Params, xs: Array, first: Carry, carry: Carry, reset: Array | None
    ) -> tuple[Carry, Array]:
        return run_forward(params, xs, first, carry, reset, keep=False)[:2]

    def run_and_keep(
        params: Params, xs: Array, first: Carry, carry: Carry, reset: Array | None
    ) -> tuple[tuple[Carry, Array], Any]:
        last, ys, kept = run_forward(params, xs, first, carry, reset, keep=True)
        return (last, ys), (params, xs, first, reset, kept)

    def run_backward(residuals: Any, gradients: tuple[Carry, Array]) -> tuple[Any, ...]:
        params, xs, first, reset, (begun, a) = residuals
        d_last, d_ys = gradients
        kernels, biases = weights(params)
        products = _products(gated, kernels, first[0])

        def retreat(state: Any, start: Array | int, steps: int) -> Any:
            d_carry, d_first, (d_params, d_kernels, d_biases), d_xs, d_a = state
            here = cut(begun, start, steps)
            zs, inputs_back = jax.vjp(cell.inputs, params, cut(xs, start, steps))
            h = here[0]
            a_here = None if stored else preactivations(zs, products.of_steps(h), biases)

            def block(state: Any, n: Array | int, count: int) -> Any:
                d_carry, d_first, d_a = state
                t = start + n
                given = cut(begun, t, count), cut(d_ys, t, count), cut(reset, t, count)
                gates = cut(a, t, count) if stored else cut(a_here, n, count)
                values = [None] * count
                for i in range(count) if reverse else reversed(range(count)):
                    carry, d_y, begins = step_of(given, i)
                    _, combine_back = jax.vjp(gated.combine, carry, step_of(gates, i))
                    d_carry, values[i] = combine_back(add_to_h(d_carry, d_y))
                    d_carry = add_to_h(d_carry, products.transposed(values[i]))
                    if begins is not None:
                        nothing = zeros(d_carry)
                        d_first = add(d_first, pick(begins, d_carry, nothing))
                        d_carry = pick(begins, nothing, d_carry)
                return d_carry, d_first, write(d_a, values, n)

            d_carry, d_first, d_a = over_chunks(
                block, (d_carry, d_first, d_a), steps, unroll, not reverse
            )
            d_a_here = cut(d_a, 0, steps)
            d_params_here, d_xs_here = inputs_back({gate: d_a_here[gate] for gate in zs})
            sums = (
                add(d_params, d_params_here),
                add(d_kernels, products.gradients(h, {gate: d_a_here[gate] for gate in kernels})),
                {gate: d + _rows(d_a_here[gate]).sum(0) for gate, d in d_biases.items()},
            )
            d_xs = jax.lax.dynamic_update_slice_in_dim(d_xs, d_xs_here, start, 0)
            return d_carry, d_first, sums, d_xs, d_a

        # The gradients of one chunk's pre-activations; each chunk overwrites the previous one.
        d_a = jax.eval_shape(
            lambda: preactivations(
                cell.inputs(params, xs[:size]),
                products.of_steps(begun[0][:size]),
                biases,
            )
        )
        d_a = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), d_a)
        sums = (zeros(params), zeros(kernels), zeros(biases))
        state = (d_last, zeros(first), sums, zeros(xs), d_a)
        # The backward pass runs against the order of execution.
        state = over_chunks(retreat, state, length, size, not reverse)
        d_carry, d_first, (d_params, d_kernels, d_biases), d_xs, _ = state
        _, select_back = jax.vjp(weights, params)
        return (
            add(d_params, *select_back((d_kernels, d_biases))),
            d_xs,
            d_first,
            d_carry,
            None,
        )

    run.defvjp(run_and_keep, run_backward)
    return run(params, sequence.xs, sequence.first, sequence.carry, sequence.reset)


class _Products(NamedTuple):
    """The products of a gated cell with its kernels, and what its gradient needs of them.

    Attributes:
      of_steps: `of_steps(h [steps, ..., F]) -> {gate: [steps, ..., F]}`.
      transposed: `transposed({gate: d_a [..., F]}) -> d_h`, of one step.
      gradients: `gradients(h, {gate: d_a}) -> {gate: d_U}`, over some steps.
    """

    of_steps: Callable[[Array], dict[str, Array]]
    transposed: Callable[[dict[str, Array]], Array]
    gradients: Callable[[Array, dict[str, Array]], dict[str, Array]]


def _products(gated: Gated, kernels: dict[str, Array], like: Array) -> _Products:
    """The products of a cell, for states of one step like `like`."""
    if gated.side > 1:
        convolve = gated.products(kernels)
        _, back = jax.vjp(convolve, jnp.zeros_like(like))  # it is linear

        def transposed_convolution(d_a: dict[str, Array]) -> Array:
            return back({gate: d_a[gate] for gate in kernels})[0]

        def of_kernels(h: Array, d_a: dict[str, Array]) -> dict[str, Array]:
            return jax.vjp(lambda kernels: gated.products(kernels)(h), kernels)[1](d_a)[0]

        return _Products(convolve, transposed_convolution, of_kernels)
    multiply, transposed, spread = multiplier(kernels), _transposed(kernels), jax.vmap(gated.spread)
    spread_back = jax.linear_transpose(gated.spread, like)
    return _Products(
        lambda h: multiply(spread(h)),
        lambda d_a: spread_back(transposed(d_a))[0],
        lambda h, d_a: _weight_gradients(
            _rows(spread(h)), {gate: _rows(d) for gate, d in d_a.items()}
        ),
    )


def _transposed(kernels: dict[str, Array]) -> Callable[[dict[str, Array]], Array]:
    """`{gate: d_a [..., F]}` to the gradient of h: the transpose of `multiplier`.

    Thin gates have one product each: a concatenation would fuse with everything that produces them,
    and that fusion is no longer vectorised.
    """
    if next(iter(kernels.values())).shape[-1] <= THIN:
        return lambda d_a: sum(matmul(d_a[gate], kernel.T) for gate, kernel in kernels.items())
    kernel = jnp.concatenate(list(kernels.values()), axis=-1).T
    return lambda d_a: matmul(jnp.concatenate([d_a[gate] for gate in kernels], axis=-1), kernel)


def _weight_gradients(h: Array, d_a: dict[str, Array]) -> dict[str, Array]:
    """`hᵀ d_a [K F, F]` for each gate, from rows; thin gates share one product."""
    if next(iter(d_a.values())).shape[-1] > THIN:
        return {gate: matmul(h.T, d) for gate, d in d_a.items()}
    wide = matmul(h.T, jnp.concatenate(list(d_a.values()), axis=-1))
    return dict(zip(d_a, jnp.split(wide, len(d_a), axis=-1), strict=True))


def over_chunks(
    run_chunk: Callable[[Any, Any, int], Any], state: Any, length: int, size: int, reverse: bool
) -> Any:
    """`state = run_chunk(state, start, steps)` for whole chunks in a loop, then the remainder."""
    count, odd = divmod(length, size)

    def body(n: Array, state: Any) -> Any:
        return run_chunk(state, length - (n + 1) * size if reverse else n * size, size)

    state = jax.lax.fori_loop(0, count, body, state) if count else state
    return run_chunk(state, 0 if reverse else count * size, odd) if odd else state


def cut(tree: Any, start: Array | int, steps: int) -> Any:
    """Some steps of arrays `[T, ...]`."""
    return jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, start, steps), tree)


def step_of(tree: Any, n: int) -> Any:
    """One step of arrays `[T, ...]`."""
    return jax.tree.map(lambda x: x[n], tree)


def write(buffers: Any, steps: list[Any], start: Array | int) -> Any:
    """Writes some steps in place: XLA does so without a copy, and nothing is stacked twice."""
    update = jax.lax.dynamic_update_slice_in_dim
    return jax.tree.map(
        lambda buffer, *values: update(buffer, jnp.stack(values), start, 0), buffers, *steps
    )


def add(*trees: Any) -> Any:
    """The sum of trees, leaf by leaf."""
    return jax.tree.map(lambda *leaves: sum(leaves), *trees)


def add_to_h(carry: Carry, value: Array) -> Carry:
    """The first field of a gated cell's carry is h."""
    return type(carry)(carry[0] + value, *carry[1:])


def _rows(x: Array) -> Array:
    """`[T, ..., F] -> [T * ..., F]`."""
    return x.reshape(-1, x.shape[-1])


def zeros(tree: Any) -> Any:
    """A tree of zeros in the shapes of another."""
    return jax.tree.map(jnp.zeros_like, tree)
