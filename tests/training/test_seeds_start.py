"""Creating several seeds in one program never deadlocks."""

import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from rnngen_jax import cells
from rnngen_jax.training.seeds import create_each

# The program that makes the states, over and over, with the compiler's and the machine's own
# settings, in a process of its own, as only the end of the process ends a deadlock.
CHILD = """
import os, sys, jax
from rnngen_jax import cells
from rnngen_jax.training.seeds import create_each
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, range(os.cpu_count()))
cell = cells.build("gru", features=16)
make = lambda seed: cell.init(jax.random.key(seed), in_features=8)
start = jax.jit(lambda: create_each(make, 0, int(sys.argv[1])))
for _ in range(60):
    jax.block_until_ready(start())
print("started")
"""
FACTORISATIONS = ("geqrf", "qr", "householder_product", "lu", "cholesky", "eigh", "svd", "schur")


def primitives(jaxpr):
    """Every equation of a program, inner programs included."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in jaxprs_in_params(equation.params):
            yield from primitives(inner)


@pytest.mark.parametrize("seeds", [3, 8])
def test_several_seeds_start_again_and_again(seeds):
    environment = {**os.environ, "XLA_FLAGS": "", "JAX_COMPILATION_CACHE_DIR": ""}
    child = [sys.executable, "-c", CHILD, str(seeds)]
    done = subprocess.run(child, env=environment, capture_output=True, text=True, timeout=100)
    assert done.stdout == "started\n", done.stderr


def test_no_factorisation_is_batched():
    """On CPU two batched ones can deadlock on one thread pool."""
    cell = cells.build("gru", features=8, layers=2)

    def make(seed):
        return cell.init(jax.random.key(seed), in_features=4)

    found = [
        equation.invars[0].aval.shape
        for equation in primitives(jax.make_jaxpr(lambda: create_each(make, 0, 3))().jaxpr)
        if equation.primitive.name in FACTORISATIONS
    ]
    assert found
    assert all(len(shape) == 2 for shape in found)


def test_the_states_are_those_of_the_seeds():
    cell = cells.build("gru", features=8, layers=2)

    def make(seed):
        return cell.init(jax.random.key(seed), in_features=4)

    together = create_each(make, 5, 3)
    for r in range(3):
        alone = make(np.uint32(5 + r))
        jax.tree.map(
            lambda x, y, r=r: np.testing.assert_allclose(x[r], y, 1e-5, 1e-6), together, alone
        )
