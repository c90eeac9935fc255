"""Memory and time of a parameter gradient over long sequences."""

from collections.abc import Iterator, Sequence

from rnngen_jax.benchmarks import agreement
from rnngen_jax.benchmarks.contenders import Layer, contender, lower_gradient, ours, peak_bytes
from rnngen_jax.benchmarks.machine import Machine
from rnngen_jax.benchmarks.peers import flax_linen
from rnngen_jax.benchmarks.problem import Problem, Settings, Shape, draw
from rnngen_jax.benchmarks.report import Record
from rnngen_jax.benchmarks.resident import growth
from rnngen_jax.benchmarks.timing import interleaved, times_and_ratios

TITLE = "gradients over long sequences: memory and time"
COLUMNS = ("ms", "least", "most", "ratio", "MB", "RSS MB")
PLOTTED = "MB"

# Our strategies with their `remat`, fastest first.
WAYS = (("sequential", None), ("sequential:gates=recompute", None), ("sequential", 128))
SHAPES = (Shape(16384, 8, 1, 128),)


def run(settings: Settings, machine: Machine) -> Iterator[Record]:
    """Measures each cell at each shape, after all contenders agree."""
    for cell in ("lstm", "gru"):
        for shape in settings.shapes_or(SHAPES):
            problem = draw(cell, shape)
            found = layers(problem)
            contenders = [contender(layer) for layer in found]
            agreement.check(str(problem), contenders)
            calls = {one.name: one.gradient for one in contenders}
            times = times_and_ratios(interleaved(calls, settings.rounds))
            for layer in found:
                resident = growth(cell, shape, layer.name)
                values = {
                    **times[layer.name],
                    "MB": peak_bytes(lower_gradient(layer).compile()) / 1e6,
                    "RSS MB": None if resident is None else resident / 1e6,
                }
                yield Record(f"{cell} gradient {shape}", layer.name, values)


def layers(problem: Problem) -> list[Layer]:
    """Our layer with each strategy, then Flax's."""
    own = [
        ours(problem, strategy, f"ours {strategy}" + (f", remat={remat}" if remat else ""), remat)
        for strategy, remat in WAYS
    ]
    return [*own, *flax_linen.layers(problem)]


def notes(records: Sequence[Record]) -> list[str]:
    """The meaning of the columns."""
    return [
        "ratio: the time divided by that of the case's first line. MB: the compiler's planned "
        "memory for temporaries and results. RSS MB: growth of a fresh process's resident memory "
        "in one step, on a CPU under Linux."
    ]
