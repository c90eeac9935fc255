"""A cell that is linear in its carry, solved in parallel over time, against an LSTM in sequence."""

from collections.abc import Iterator, Sequence

import jax
from jax import Array

from rnngen_jax.benchmarks.agreement import check
from rnngen_jax.benchmarks.contenders import (
    Case,
    Layer,
    contender,
    lower_gradient,
    ours,
    peak_bytes,
)
from rnngen_jax.benchmarks.machine import Machine
from rnngen_jax.benchmarks.problem import Problem, Settings, Shape, build, draw
from rnngen_jax.benchmarks.report import Record
from rnngen_jax.benchmarks.timing import interleaved, times_and_ratios
from rnngen_jax.cells.base import Params

TITLE = "gradient of min_gru in parallel over time, against itself and an LSTM step by step"
COLUMNS = ("ms", "least", "most", "ratio", "MB")
PLOTTED = "ms"

# min_gru's strategies, the default first.
STRATEGIES = ("associative", "associative:solver=prefix", "sequential")
SHAPES = (Shape(784, 16, 1, 256), Shape(16384, 16, 1, 256))


def run(settings: Settings, machine: Machine) -> Iterator[Record]:
    """Times the gradient at each shape, after all strategies for min_gru agree."""
    for shape in settings.shapes_or(SHAPES):
        *same, lstm = _layers(shape)
        check(f"min_gru {shape}", [contender(way) for way in same])
        ways = [*same, lstm]
        calls = {way.name: contender(way).gradient for way in ways}
        values = times_and_ratios(interleaved(calls, settings.rounds))
        for way in ways:
            megabytes = peak_bytes(lower_gradient(way).compile()) / 1e6
            yield Record(f"gradient {shape}", way.name, {**values[way.name], "MB": megabytes})


def cases(settings: Settings) -> Iterator[Case]:
    """The same gradients, to be compiled for a machine that is not here."""
    for shape in settings.shapes_or(SHAPES):
        yield Case(f"gradient {shape}", "gradient", _layers(shape))


def _layers(shape: Shape) -> list[Layer]:
    """All ways to run min_gru, and the LSTM last."""
    problem, lstm = draw("min_gru", shape), draw("lstm", shape)
    ways = [ours(problem, strategy, f"min_gru {strategy}") for strategy in STRATEGIES]
    return [*ways, plain(problem), ours(lstm, "sequential", "lstm sequential")]


def plain(problem: Problem) -> Layer:
    """min_gru by one `jax.lax.associative_scan` over all of T, differentiated by JAX.

    It solves `h[t] = a[t] h[t-1] + b[t]` from the zero carry, by composing the maps `(a, b)`:
    `(a2, b2) after (a1, b1) = (a2 a1, a2 b1 + b2)` (Blelloch 1990, sec. 1.4.1).
    """
    cell = build(problem.cell, problem.shape.hidden)
    if cell.linear is None:
        raise ValueError(f"{problem.cell} is not linear in its carry")
    linear = cell.linear

    def after(first: tuple[Array, Array], second: tuple[Array, Array]) -> tuple[Array, Array]:
        (a1, b1), (a2, b2) = first, second
        return a2 * a1, a2 * b1 + b2

    def apply(params: Params, xs: Array) -> Array:
        maps = linear(params, cell.inputs(params, xs))
        return jax.lax.associative_scan(after, maps)[1]

    return ours(problem, "associative", "min_gru plain associative_scan")._replace(apply=apply)


def notes(records: Sequence[Record]) -> list[str]:
    """The meaning of the columns."""
    return [
        "ratio: the time divided by that of min_gru with the strategy associative. "
        "MB: the compiler's planned memory for temporaries and results."
    ]
