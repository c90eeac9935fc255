"""LSTM and GRU layers of all libraries: forward pass and gradient of the parameters."""

from collections.abc import Iterator, Sequence

from rnngen_jax.benchmarks import agreement, peers, roofline
from rnngen_jax.benchmarks.contenders import Case, contender, ours
from rnngen_jax.benchmarks.machine import Machine
from rnngen_jax.benchmarks.problem import Problem, Settings, Shape, draw
from rnngen_jax.benchmarks.report import Record, compare, of_work, summary, timed, torch_notes
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
WORKS = ("forward", "gradient")


def run(settings: Settings, machine: Machine) -> Iterator[Record]:
    """Times each cell at each shape, after all contenders agree."""
    for cell in ("lstm", "gru"):
        for shape in settings.shapes_or(SHAPES):
            yield from _case(draw(cell, shape), settings.rounds, machine)


def cases(settings: Settings) -> Iterator[Case]:
    """The same work of the layers that can be compiled for a machine that is not here."""
    for cell in ("lstm", "gru"):
        for shape in settings.shapes_or(SHAPES):
            problem = draw(cell, shape)
            layers = [ours(problem, STRATEGY), *peers.layers(problem)]
            for work in WORKS:
                yield Case(f"{problem.cell} {work} {shape}", work, layers)


def _case(problem: Problem, rounds: int, machine: Machine) -> Iterator[Record]:
    contenders = [contender(ours(problem, STRATEGY)), *peers.contenders(problem)]
    agreement.check(str(problem), contenders)
    for work in WORKS:
        timings = interleaved({one.name: getattr(one, work) for one in contenders}, rounds)
        least = roofline.seconds(problem.cell, problem.shape, machine, gradient=work == "gradient")
        case = f"{problem.cell} {work} {problem.shape}"
        yield from timed(case, timings, {"% roofline": 100 * least})


def notes(records: Sequence[Record]) -> list[str]:
    """The meaning of the columns, and medians over cells and shapes for each kind of work."""
    libraries = ", ".join(JAX_LIBRARIES)
    best = {work: compare(of_work(records, work), "ratio", JAX_LIBRARIES) for work in WORKS}
    return [
        "ratio: a contender's median time divided by ours, so ours is faster above 1. "
        "% roofline: the machine's best possible time as a percentage of the time.",
        *torch_notes(records, WORKS),
        *(f"{w}: best of {libraries} (if installed) / ours: {summary(best[w])}" for w in WORKS),
    ]
