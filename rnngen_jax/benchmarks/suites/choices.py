"""LSTM and GRU by each choice of the sequential strategy (`recurrence/choices.py`)."""

import itertools
from collections.abc import Iterator, Sequence

from rnngen_jax.benchmarks import agreement
from rnngen_jax.benchmarks.contenders import Case, contender, ours
from rnngen_jax.benchmarks.machine import Machine
from rnngen_jax.benchmarks.problem import Settings, draw
from rnngen_jax.benchmarks.report import Record, timed
from rnngen_jax.benchmarks.suites.training import SHAPES
from rnngen_jax.benchmarks.timing import interleaved

TITLE = "gradients by gates that are stored or rematerialised, and by steps per iteration"
COLUMNS = ("ms", "least", "most", "ratio")
PLOTTED = "ms"

# The default first.
STRATEGIES = (
    "sequential",
    *(
        f"sequential:gates={gates},unroll={steps}"
        for gates, steps in itertools.product(("store", "recompute"), (1, 2, 4, 8))
    ),
)


def run(settings: Settings, machine: Machine) -> Iterator[Record]:
    """Times each cell at each shape, after all choices agree."""
    for case in cases(settings):
        contenders = [contender(layer) for layer in case.layers]
        agreement.check(case.name, contenders)
        calls = {one.name: one.gradient for one in contenders}
        yield from timed(case.name, interleaved(calls, settings.rounds))


def cases(settings: Settings) -> Iterator[Case]:
    """The same gradients, to be compiled for a machine that is not here."""
    for cell, shape in itertools.product(("lstm", "gru"), settings.shapes_or(SHAPES)):
        problem = draw(cell, shape)
        layers = [ours(problem, strategy, strategy) for strategy in STRATEGIES]
        yield Case(f"{cell} gradient {shape}", "gradient", layers)


def notes(records: Sequence[Record]) -> list[str]:
    """The meaning of the ratio."""
    return ["ratio: the time divided by that of the default choice."]
