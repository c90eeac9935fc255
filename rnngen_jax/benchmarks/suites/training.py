"""LSTM and GRU layers of all libraries, forwards and their parameters' gradient."""

import statistics
from collections.abc import Iterator, Sequence

from rnngen_jax.benchmarks import agreement, peers, roofline
from rnngen_jax.benchmarks.contenders import contender, ours
from rnngen_jax.benchmarks.machine import Machine
from rnngen_jax.benchmarks.problem import Problem, Settings, Shape, draw
from rnngen_jax.benchmarks.report import Record, compare, number
from rnngen_jax.benchmarks.timing import interleaved

TITLE = "forward passes and parameter gradients of sum(ys * weights)"
COLUMNS = ("ms", "least", "most", "ratio", "% roofline")
PLOTTED = "ms"

STRATEGY = "sequential"
SHAPES = (
    Shape(784, 64, 1, 128),
    Shape(64, 64, 128, 256),
    Shape(28, 64, 28, 256),
    Shape(784, 16, 1, 512),
    Shape(3072, 8, 3, 256),
)
JAX_LIBRARIES = ("flax", "keras", "equinox")


def run(settings: Settings, machine: Machine) -> Iterator[Record]:
    """Times each cell at each shape, after all contenders agree."""
    for cell in ("lstm", "gru"):
        for shape in settings.shapes_or(SHAPES):
            yield from _case(draw(cell, shape), settings.rounds, machine)


def _case(problem: Problem, rounds: int, machine: Machine) -> Iterator[Record]:
    contenders = [contender(ours(problem, STRATEGY)), *peers.contenders(problem)]
    agreement.check(str(problem), contenders)
    for work in ("forward", "gradient"):
        timings = interleaved({one.name: getattr(one, work) for one in contenders}, rounds)
        least = roofline.seconds(problem.cell, problem.shape, machine, gradient=work == "gradient")
        for name, timing in timings.items():
            values = {
                **timing.milliseconds(),
                "ratio": timing.median / timings["ours"].median,
                "% roofline": 100 * least / timing.median,
            }
            yield Record(f"{problem.cell} {work} {problem.shape}", name, values)


def notes(records: Sequence[Record]) -> list[str]:
    """Medians over cells and shapes, for each kind of pass."""
    lines = [
        "ratio: a contender's median time divided by ours, above 1 where ours is faster. "
        "% roofline: the share of the time that the machine would need at best."
    ]
    for work in ("forward", "gradient"):
        those = [record for record in records if f" {work} " in record.case]
        if torch := compare(those, "ratio", ("torch",)):
            median, lowest = number(statistics.median(torch)), number(min(torch))
            lines.append(f"{work}: torch / ours: median {median}, lowest {lowest}")
        best = compare(those, "ratio", JAX_LIBRARIES)
        median, lowest = number(statistics.median(best)), number(min(best))
        lines.append(
            f"{work}: best of {', '.join(JAX_LIBRARIES)} that are installed / ours: "
            f"median {median}, lowest {lowest}"
        )
    return lines
