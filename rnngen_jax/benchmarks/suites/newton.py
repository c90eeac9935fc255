"""A GRU by Newton's method on all steps at once, against the same GRU step by step."""

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax import Array

from rnngen_jax.benchmarks.agreement import require_close
from rnngen_jax.benchmarks.contenders import Contender, contender, ours
from rnngen_jax.benchmarks.machine import Machine
from rnngen_jax.benchmarks.problem import Problem, Settings, Shape, build, draw
from rnngen_jax.benchmarks.report import Record
from rnngen_jax.benchmarks.timing import interleaved, times_and_ratios
from rnngen_jax.cells.base import Params, initial_carry
from rnngen_jax.config import options
from rnngen_jax.recurrence.base import Sequence as Steps
from rnngen_jax.recurrence.newton import Report, newton, solve

TITLE = "a GRU by Newton's method, against the same step by step"
COLUMNS = ("ms", "least", "most", "ratio", "iters", "solved %", "residual", "distance")
PLOTTED = "ms"

# The default limits the cost of a trial; overhead=inf sets no limit.
STRATEGIES = ("newton", "newton:overhead=inf", "newton:jacobian=diagonal,overhead=inf")
# Without 8192 steps of 64 features, for which a CPU takes more than a minute per call if forced.
SHAPES = tuple(
    Shape(steps, 4, 1, hidden)
    for steps, hidden in ((1024, 8), (1024, 32), (1024, 64), (8192, 8), (8192, 32))
)
# Newton's method stops at 1e-5, and its error may grow over the rest of the sequence.
TOLERANCE = 1e-3
# Factors of the orthogonal recurrent weights. With the first, the GRU forgets its initial carry;
# with the second, runs from nearby carries diverge, and Newton's method cannot converge.
SCALES = {"contractive": 0.5, "chaotic": 4.0}


def run(settings: Settings, machine: Machine) -> Iterator[Record]:
    """Times both kinds of GRU at each shape."""
    for kind, scale in SCALES.items():
        for shape in settings.shapes_or(SHAPES):
            yield from _case(kind, scaled(draw("gru", shape), scale), settings.rounds)


def scaled(problem: Problem, scale: float) -> Problem:
    """The problem with its recurrent weights multiplied by `scale`."""
    recurrent = jax.tree.map(lambda u: np.float32(scale) * u, problem.params["recurrent"])
    return problem._replace(params={**problem.params, "recurrent": recurrent})


def _case(kind: str, problem: Problem, rounds: int) -> Iterator[Record]:
    names = ("sequential", *STRATEGIES)
    contenders = {name: contender(ours(problem, name, name)) for name in names}
    ys = {name: one.outputs(one.forward()) for name, one in contenders.items()}
    for name in STRATEGIES:
        what = f"{kind} {problem}: outputs of {name}"
        require_close(what, ys[name], ys["sequential"], TOLERANCE)
    accounts = {name: account(problem, name) for name in STRATEGIES}
    for work in ("forward", "gradient"):
        times = times_and_ratios(interleaved(_calls(contenders, work), rounds))
        for name in names:
            values: dict[str, float | None] = {**times[name], **accounts.get(name, {})}
            if name != "sequential":
                values["distance"] = float(np.abs(ys[name] - ys["sequential"]).max())
            yield Record(f"{kind} {work} {problem.shape}", name, values)


def _calls(contenders: dict[str, Contender], work: str) -> dict[str, Any]:
    return {name: getattr(one, work) for name, one in contenders.items()}


def account(problem: Problem, strategy: str) -> dict[str, float | None]:
    """The outcome of Newton's method: iterations, percentage of steps solved, and residual."""
    cell = build(problem.cell, problem.shape.hidden)
    chosen = options(newton, "strategy 'newton'", strategy.partition(":")[2])

    def report(params: Params, xs: Array) -> Report:
        first = initial_carry(cell, params, (problem.shape.batch,), xs.dtype)
        return solve(cell, params, Steps(xs, first, first, None, False), **chosen)[2]

    found = jax.jit(report)(problem.params, problem.xs)
    solved = 100 * int(found.newton_steps) / problem.shape.steps
    return {
        "iters": float(found.iterations),
        "solved %": solved,
        "residual": float(found.residual) if solved else None,
    }


def notes(records: Sequence[Record]) -> list[str]:
    """The meaning of the columns."""
    return [
        "ratio: the time divided by the sequential one, so Newton's method is faster below 1. "
        "solved %: steps that it solved; the rest ran step by step. distance: largest difference "
        "between an output and the sequential run's."
    ]
