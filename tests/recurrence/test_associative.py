"""The associative strategy equals the Python loop in value and gradient, and stores less."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import recurrence_problems as problems
from recurrence_problems import FULL, MODES, Mode

from rnngen_jax import cells
from rnngen_jax.errors import UserError
from rnngen_jax.recurrence import unroll
from rnngen_jax.recurrence.associative import GATES, associative

T, B, D, F = 7, 2, 3, 4

CELLS = {
    "min_gru": lambda: cells.build("min_gru", F),
    "min_lstm": lambda: cells.build("min_lstm:positive=True", F),
    "learned_rg_lru_stack": lambda: cells.build("rg_lru", F, layers=2, residual=True, learned=True),
}

# Every mode with chunks of 3 of the 7 steps, so that one is left over, and every solver.
WAYS = [("min_gru", "chunk=3", mode) for mode in MODES]
WAYS += [("min_lstm", "chunk=3", FULL[0])]
WAYS += [("learned_rg_lru_stack", "chunk=3", Mode(reverse=True, reset=True))]
WAYS += [  # every pair of choices
    (
        "min_gru",
        f"chunk={3 * chunk},solver={('prefix', 'steps')[solver]},"
        f"gradient={('adjoint', 'autodiff')[(chunk + solver) % 2]},gates={gates}",
        FULL[solver],
    )
    for (chunk, solver), gates in zip(
        itertools.product(range(2), repeat=2), [*GATES, *GATES[::-1]], strict=True
    )
]
WAYS += [("min_gru", f"chunk={chunk},solver=prefix", FULL[1]) for chunk in (1, T + 2)]


def problem(name, mode):
    return problems.draw(CELLS[name](), (T, B, D), mode)


@functools.cache
def by_the_loop(name, mode):
    return problems.solve(problem(name, mode), strategy="loop")


@pytest.mark.parametrize(
    ("name", "options", "mode"),
    [pytest.param(*WAYS[2], marks=pytest.mark.optimised), *WAYS[:2], *WAYS[3:]],
)
def test_associative_is_the_python_loop_in_value_and_gradient(name, options, mode):
    with jax.enable_x64(True):
        fast = problems.solve(problem(name, mode), strategy=f"associative:{options}")
        problems.close(fast, by_the_loop(name, mode))


def test_a_chunk_is_solved_as_asked():
    cell = cells.build("min_gru", F)
    params, xs = cell.init(jax.random.key(0), D), jnp.ones((T, B, D))

    def runs(solver):
        strategy = f"associative:solver={solver}"
        return str(jax.make_jaxpr(lambda xs: unroll(cell, params, xs, strategy=strategy)[1])(xs))

    assert "scan" in runs("steps")
    assert "scan" not in runs("prefix")
    assert runs("auto") == runs("steps" if jax.default_backend() == "cpu" else "prefix")


def test_any_batch_axes_and_vmap_change_no_number():
    with jax.enable_x64(True):
        one = problem("min_gru", Mode())
        (_, (_, ys)), (_, expected, _) = by_the_loop("min_gru", Mode())

        def gradient(xs, weights):
            def loss(xs):
                last, ys = unroll(one.cell, one.params, xs, strategy="associative:chunk=3")
                return (ys * weights).sum() + jnp.sin(last.h).sum(), ys

            return jax.grad(loss, has_aux=True)(xs)

        @jax.jit
        def both(xs, weights):
            more = gradient(xs[:, :, None], weights[:, :, None])
            none = jax.vmap(gradient, in_axes=1, out_axes=1)(xs, weights)
            return jax.tree.map(lambda leaf: leaf[:, :, 0], more), none

        for found in both(one.xs, one.weights):
            problems.close(found, (expected, ys))


def test_a_gradient_for_the_last_carry_alone_and_one_for_the_batch_of_parameters():
    with jax.enable_x64(True):
        cell, rng = cells.build("min_gru", F), np.random.default_rng(0)
        each = [problems.draw_params(cell, D, rng) for _ in range(3)]
        xs = rng.standard_normal((T, B, D))

        def gradient(params, strategy):
            def last(params):
                return unroll(cell, params, xs, strategy=strategy, reverse=True)[0].h.sum()

            return jax.grad(last)(params)

        params = jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)
        together = jax.jit(jax.vmap(lambda params: gradient(params, "associative:chunk=3")))(params)
        for n, alone in enumerate(each):
            found = jax.tree.map(lambda leaf, n=n: leaf[n], together)
            problems.close(found, gradient(alone, "loop"))


def test_autodiff_has_forward_mode_and_second_order():
    with jax.enable_x64(True):
        one = problem("min_gru", Mode())

        def along(xs, strategy):
            """Derivatives of the outputs and of their gradient in the direction of the inputs."""

            def outputs(xs):
                return unroll(one.cell, one.params, xs, strategy=strategy)[1]

            def gradient(xs):
                return jax.grad(lambda xs: (outputs(xs) ** 2).sum())(xs)

            return [jax.jvp(function, (xs,), (xs,))[1] for function in (outputs, gradient)]

        strategy = "associative:chunk=3,solver=prefix"
        found = jax.jit(lambda xs: along(xs, f"{strategy},gradient=autodiff"))(one.xs)
        problems.close(found, along(one.xs, "loop"))
        with pytest.raises(TypeError, match="forward-mode"):
            along(one.xs, strategy)


def test_a_long_memory_is_exact_where_a_cumulative_product_would_underflow():
    """The product of a = 0.12 over 100 steps is 1e-92, below the smallest float32."""
    cell = cells.build("min_gru", 1)
    params = {
        "input": {"z": jnp.zeros((1, 1)), "n": jnp.ones((1, 1))},
        "bias": {"z": jnp.full(1, 2.0), "n": jnp.zeros(1)},
    }
    xs = np.random.default_rng(0).standard_normal((100, 1, 1))
    h, z, slow = 0.0, 1 / (1 + np.exp(-2.0)), np.zeros_like(xs)
    for t, n in enumerate(xs):
        slow[t] = h = (1 - z) * h + z * n
    for options in ("solver=prefix", "solver=steps", "solver=prefix,chunk=100"):
        strategy = f"associative:{options}"
        fast = jax.jit(lambda xs, way=strategy: unroll(cell, params, xs, strategy=way)[1])(xs)
        np.testing.assert_allclose(fast, slow, atol=1e-6)


def plain(cell, params, xs):
    """The textbook solution: one `jax.lax.associative_scan` over all of time."""

    def join(near, far):
        return near[0] * far[0], far[0] * near[1] + far[1]

    return jax.lax.associative_scan(join, cell.linear(params, cell.inputs(params, xs)))[1]


def test_the_gradient_needs_less_memory_than_a_plain_associative_scan():
    cell = cells.build("min_gru", 16)
    params = cell.init(jax.random.key(0), D)
    xs, size = jax.random.normal(jax.random.key(1), (128, B, D)), 4 * 128 * B * 16

    def needs(outputs):
        gradient = jax.jit(jax.grad(lambda p: (outputs(p) ** 2).sum()))
        return gradient.lower(params).compile().memory_analysis().temp_size_in_bytes / size

    def ours(**options):
        return lambda p: unroll(cell, p, xs, strategy=associative(chunk=16, **options))[1]

    ys, expected = jax.jit(lambda p: (ours()(p), plain(cell, p, xs)))(params)
    np.testing.assert_allclose(ys, expected, atol=1e-5)
    textbook = needs(lambda p: plain(cell, p, xs))
    for solver in ("prefix", "steps"):
        # In units of one [T, B, F] array, the size of h.
        least, kept = needs(ours(solver=solver)), needs(ours(solver=solver, gates="store"))
        assert least < 4 < textbook / 2
        assert least < kept / 1.5
    by_autodiff = needs(ours(solver="prefix", gates="store", gradient="autodiff"))
    assert needs(ours(solver="prefix", gates="store")) < 0.8 * by_autodiff


def test_what_does_not_fit_is_refused():
    xs = jnp.ones((T, B, D))
    cell = cells.build("lstm", F)
    params = cell.init(jax.random.key(0), D)
    with pytest.raises(UserError, match=r"linear in its carry.*'sequential' runs any cell"):
        unroll(cell, params, xs, strategy="associative")
    for options, message in [
        ("chunk=-1", "chunk must be ≥ 0, got -1"),
        ("solver=stpes", "did you mean 'steps'"),
        ("gradient=adjont", "did you mean 'adjoint'"),
        ("gates=keep", "gates must be one of recompute, store, got 'keep'"),
    ]:
        with pytest.raises(UserError, match=message):
            unroll(cell, params, xs, strategy=f"associative:{options}")
