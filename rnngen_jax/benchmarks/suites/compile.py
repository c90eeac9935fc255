"""Compile time of a gradient, by strategy and number of steps."""

import contextlib
import statistics
import time
from collections.abc import Iterator, Sequence

import jax
from jax.experimental.compilation_cache import compilation_cache

from rnngen_jax.benchmarks.contenders import lower_gradient, ours
from rnngen_jax.benchmarks.machine import Machine
from rnngen_jax.benchmarks.problem import Settings, Shape, draw
from rnngen_jax.benchmarks.report import Record, number

TITLE = "tracing and compiling a parameter gradient, without the persistent cache"
COLUMNS = ("trace s", "compile s", "ratio")
PLOTTED = "compile s"

# Without "loop", the tests' reference, whose program grows with the sequence.
CELLS = (
    ("lstm", "sequential"),
    ("gru", "sequential"),
    ("gru", "newton"),
    ("min_gru", "sequential"),
    ("min_gru", "associative"),
)
SHAPES = (Shape(64, 16, 1, 64), Shape(4096, 16, 1, 64))


def run(settings: Settings, machine: Machine) -> Iterator[Record]:
    """Compiles each cell and strategy at each shape, `rounds` times."""
    shapes = settings.shapes_or(SHAPES)
    with no_persistent_cache():
        _seconds("lstm", "sequential", shapes[0])  # a process's first compilation is slower
        for cell, strategy in CELLS:
            least = None
            for shape in shapes:
                rounds = [_seconds(cell, strategy, shape) for _ in range(settings.rounds)]
                traced, compiled = (statistics.median(taken) for taken in zip(*rounds, strict=True))
                least = least or traced + compiled
                values = {
                    "trace s": traced,
                    "compile s": compiled,
                    "ratio": (traced + compiled) / least,
                }
                yield Record(f"gradient {shape}", f"{cell} {strategy}", values)


@contextlib.contextmanager
def no_persistent_cache() -> Iterator[None]:
    """Temporarily disables JAX's on-disk cache of compiled programs."""
    before = jax.config.jax_enable_compilation_cache
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()  # JAX reads the setting only once
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", before)
        compilation_cache.reset_cache()


def _seconds(cell: str, strategy: str, shape: Shape) -> tuple[float, float]:
    """Seconds of tracing and of compiling, with empty caches."""
    layer = ours(draw(cell, shape), strategy)
    jax.clear_caches()
    start = time.perf_counter()
    lowered = lower_gradient(layer)
    traced = time.perf_counter()
    lowered.compile()
    return traced - start, time.perf_counter() - traced


def notes(records: Sequence[Record]) -> list[str]:
    """The largest ratio."""
    largest = max(record.values["ratio"] or 0.0 for record in records)
    return [
        "ratio: tracing plus compiling, divided by the same for the contender's first shape; "
        f"largest {number(largest)}"
    ]
