"""Newton's method on all steps of a GRU at once, against the same GRU step by step."""

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
from rnngen_jax.benchmarks.timing import interleaved
from rnngen_jax.cells.base import Params, initial_carry
from rnngen_jax.config import options
from rnngen_jax.recurrence.base import Sequence as Steps
from rnngen_jax.recurrence.newton import Report, newton, solve

TITLE = "GRU by Newton's method against step by step"
COLUMNS = ("ms", "least", "most", "ratio", "iters", "solved %", "residual", "distance")
PLOTTED = "ms"

# The default weighs what a trial may cost; with overhead=inf all is tried.
STRATEGIES = ("newton", "newton:overhead=inf", "newton:jacobian=diagonal,overhead=inf")
# Forced upon 8192 steps of 64 features, a CPU needs more than a minute a call.
SHAPES = tuple(
    Shape(steps, 4, 1, hidden)
    for steps, hidden in ((1024, 8), (1024, 32), (1024, 64), (8192, 8), (8192, 32))
)
# Newton's method stops at 1e-5, and its errors may grow over the rest of the sequence.
TOLERANCE = 1e-3
# Factors of the orthogonal recurrent weights: with the first the GRU forgets where it began, with
# the second two runs from nearby carries part, and Newton's method cannot converge.
SCALES = {"contractive": 0.5, "chaotic": 4.0}


def run(settings: Settings, machine: Machine) -> Iterator[Record]:
    """Times both kinds of GRU at each shape."""
    for kind, scale in SCALES.items():
        for shape in settings.shapes_or(SHAPES):
            yield from _case(kind, scaled(draw("gru", shape), scale), settings.rounds)


def scaled(problem: Problem, scale: float) -> Problem:
    """The problem with its recurrent weights times `scale`."""
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
        timings = interleaved(_calls(contenders, work), rounds)
        for name in names:
            values = {
                **timings[name].milliseconds(),
                "ratio": timings[name].median / timings["sequential"].median,
                **accounts.get(name, {}),
            }
            if name != "sequential":
                values["distance"] = float(np.abs(ys[name] - ys["sequential"]).max())
            yield Record(f"{kind} {work} {problem.shape}", name, values)


def _calls(contenders: dict[str, Contender], work: str) -> dict[str, Any]:
    return {name: getattr(one, work) for name, one in contenders.items()}


def account(problem: Problem, strategy: str) -> dict[str, float | None]:
    """How Newton's method went: iterations, steps solved in percent, and the residual."""
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
    """What the columns are."""
    return [
        "ratio: the time divided by the sequential one, below 1 where Newton's method is faster. "
        "solved %: steps that it solved; the rest ran step by step. distance: largest difference "
        "of an output from the sequential run's."
    ]
