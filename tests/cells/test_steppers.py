"""Steppers against the steps of their cells."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cell_problems import SPECS, B, D, F, T, drawn

from rnngen_jax import cells
from rnngen_jax.cells.base import initial_carry, stepper

# Without known inputs, one of each kind will do: gated, linear, neither, and those around cells.
KINDS = ("lstm", "min_gru", "layer_norm_gru", "stack", "learned")
CASES = [(spec, 3) for spec in (*SPECS, "stack", "learned")] + [(kind, 0) for kind in KINDS]


@pytest.mark.parametrize(("spec", "known"), CASES)
def test_a_stepper_takes_the_cells_steps(spec, known):
    """For inputs that begin with the known ones: values, and gradients of all parameters."""
    kinds = {"stack": {"layers": 2}, "learned": {"learned": True}}
    cell = cells.build("lstm" if spec in kinds else spec, F, **kinds.get(spec, {}))
    params = drawn(cell, known + D, jax.random.key(1))
    told = jax.random.normal(jax.random.key(2), (B, known))
    xs = jax.random.normal(jax.random.key(3), (T, B, D))
    first = initial_carry(cell, params, (B,), jnp.float32)

    def stepped(params):
        step = stepper(cell, params, told)
        return jax.lax.scan(step, first, xs)

    def plain(params):
        given = jnp.concatenate([jnp.broadcast_to(told, (T, B, known)), xs], axis=-1)
        return jax.lax.scan(
            lambda carry, x: cell.step(params, carry, cell.inputs(params, x)), first, given
        )

    def loss(run, params):
        carry, ys = run(params)
        return jnp.sin(ys).sum(), (carry, ys)

    @jax.jit
    def both(params):
        of = (functools.partial(loss, run) for run in (stepped, plain))
        return [jax.value_and_grad(each, has_aux=True)(params) for each in of]

    ((value, got), slope), ((wanted_value, wanted), wanted_slope) = both(params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 2e-5, 2e-6), got, wanted)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, 1e-4, 2e-5),
        (value, slope),
        (wanted_value, wanted_slope),
    )


@pytest.mark.parametrize("spec", ["rnn", "lstm"])
def test_a_stepper_has_one_product_in_its_loop(spec):
    cell = cells.build(spec, F, learned=True)
    params, told = cell.init(jax.random.key(0), 2 + D), jnp.zeros((B, 2))
    first = initial_carry(cell, params, (B,), jnp.float32)

    def products(run, *given):
        return str(jax.make_jaxpr(run)(*given)).count("dot_general")

    x = jnp.zeros((B, D))
    assert products(lambda x: stepper(cell, params, told)(first, x), x) == 2
    assert products(stepper(cell, params, told), first, x) == 1
