"""Invalid names, options, sizes and widths of cells are refused with a clear message."""

import jax
import jax.numpy as jnp
import pytest
from cell_problems import SPECS, UNWEIGHTED, B, D, F, T

from rnngen_jax import cells
from rnngen_jax.cells.convolved import convolved
from rnngen_jax.cells.gru import gru
from rnngen_jax.cells.rnn import rnn
from rnngen_jax.errors import UserError
from rnngen_jax.recurrence import unroll


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("lstn", "did you mean 'lstm'"),
        ("stack", "cell must be one of .*got 'stack'"),
        ("lstm:forget_bais=1", "did you mean 'forget_bias'"),
        ("lstm:forget_bias=much", "forget_bias must be of type float, got 'much'"),
        ("lstm:forget_bias", "no option"),
        ("rnn:input_weights=no", "True or False"),
        ("rnn:activation=tanhh", "did you mean 'tanh'"),
        ("gru:variant=reset", "variant"),
    ],
)
def test_a_cell_that_is_not_there_is_named_with_its_nearest(spec, message):
    with pytest.raises(UserError, match=message):
        cells.from_spec(spec, F)


@pytest.mark.parametrize("spec", UNWEIGHTED)
def test_inputs_that_need_weights_are_refused_without(spec):
    cell, name = cells.from_spec(spec, F), spec.partition(":")[0]
    with pytest.raises(
        UserError, match=rf"cell '{name}' with input_weights=False .*got {F + 1} for {F}"
    ):
        cell.init(jax.random.key(0), F + 1)


def test_impossible_stacks_are_refused():
    with pytest.raises(UserError, match=r"^layers must be ≥ 1, got 0"):
        cells.build("gru", F, layers=0)
    with pytest.raises(ValueError, match="same number of features"):
        cells.stack([cells.from_spec("gru", 3), cells.from_spec("gru", 4)], residual=True)
    with pytest.raises(ValueError, match="at least one"):
        cells.stack([])


def test_sizes_below_one_are_refused():
    with pytest.raises(UserError, match=r"^features must be ≥ 1, got 0"):
        cells.build("gru", 0)
    for function in (gru, rnn):
        with pytest.raises(ValueError, match=r"^features must be ≥ 1, got 0"):
            function(0).init(jax.random.key(0), D)
    for spec in SPECS:
        with pytest.raises(ValueError, match=r"^in_features must be ≥ 1, got 0"):
            cells.from_spec(spec, F).init(jax.random.key(0), 0)


def built(spec):
    """The cell of a spec string, and the required width of its inputs."""
    return cells.from_spec(spec, F), F if "input_weights=False" in spec else D


CELLS = {
    **{spec: lambda spec=spec: built(spec) for spec in SPECS + UNWEIGHTED},
    "stack": lambda: (cells.build("lstm", F, layers=2), D),
    "learned": lambda: (cells.build("gru", F, learned=True), D),
    "convolved": lambda: (convolved(cells.from_spec("lstm", F), (-1, 0, 1)), D),
}


@pytest.mark.parametrize("wrong", [1, D - 1, D + 1, 12])
@pytest.mark.parametrize("name", CELLS)
def test_inputs_of_another_width_are_refused(name, wrong):
    """Also narrower inputs, for which a sum of products would use only the first weights."""
    cell, width = CELLS[name]()
    wrong = wrong if wrong != width else wrong + 1
    params = cell.init(jax.random.key(0), width)
    said = rf"^the inputs\' width must be {width}, .* got {wrong}\b"
    with pytest.raises(ValueError, match=said):
        cell.inputs(params, jnp.ones((B, wrong)))
    with pytest.raises(ValueError, match=said):
        jax.jit(lambda xs: unroll(cell, params, xs))(jnp.ones((T, 5, B, wrong)))
