"""Shared by the tests of cells: sizes, cells by spec string, and parameters.

All cells are found: a new one needs a file in `cell_equations`, and no line here.
"""

import importlib
import inspect

import jax
import numpy as np

from rnngen_jax import cells

T, B, D, F = 5, 3, 4, 6


def _equations(name):
    """Steps in NumPy by spec string, from `cell_equations/NAME.py`; empty without that file."""
    try:
        return importlib.import_module(f"cell_equations.{name}").EQUATIONS
    except ModuleNotFoundError:
        return {}


EQUATIONS = {spec: step for name in cells.names() for spec, step in _equations(name).items()}
# A cell without equations is still part of the other tests.
SPECS = sorted({*EQUATIONS, *cells.names()})


def _options(name):
    return inspect.signature(getattr(importlib.import_module(f"{cells.__name__}.{name}"), name))


UNWEIGHTED = [
    f"{name}:input_weights=False"
    for name in cells.names()
    if "input_weights" in _options(name).parameters
]


def is_convolvable(spec):
    cell = cells.from_spec(spec, F)
    return cell.gated is not None or cell.linear is not None


def randomised(params, key):
    """Random parameters, also biases and scales, where an error may not show at zero or one."""
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))  # it compiles nothing

    def moved(leaf):
        return np.asarray(leaf) + 0.5 * rng.standard_normal(leaf.shape, np.float32)

    return jax.tree.map(moved, params)


def drawn(cell, in_features, key):
    """Parameters that are random alone, for which nothing is compiled."""
    shapes = jax.eval_shape(lambda: cell.init(jax.random.key(0), in_features))
    return randomised(jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes), key)
