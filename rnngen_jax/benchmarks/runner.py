"""Runs suites one after another, prints their tables and writes their results."""

import pathlib

import jax

from rnngen_jax.benchmarks import machine, peers, report, suites
from rnngen_jax.benchmarks.problem import Settings, parse_shapes
from rnngen_jax.config import require, require_choice

ALL = "all"


def run(chosen: str, rounds: int, shapes: str | None, out: str | None) -> None:
    """Runs the suites named on the command line.

    Args:
      chosen: comma-separated names of suites, or "all".
      rounds: timed calls per contender.
      shapes: replace each suite's own, in the format of `parse_shapes`; `None` keeps those.
      out: the folder for `bench.json` and plots; `None` writes nothing.

    Raises:
      UserError: an unknown suite, invalid shapes or rounds, or a folder that cannot be written to.
      RunError: a contender's outputs or gradients differ from ours.
    """
    names = list(dict.fromkeys(chosen.split(",")))
    for name in names:
        require_choice("--suite", name, [ALL, *suites.names()])
    if ALL in names:
        names = suites.names()
    require(rounds >= 1, "--rounds", rounds, "≥ 1")
    settings = Settings(rounds, None if shapes is None else parse_shapes(shapes))
    if out:
        require(not pathlib.Path(out).is_file(), "--out", out, "a folder")
        report.require_writable(out, names)

    # By default, GPUs and TPUs compute float32 products in lower precision.
    with jax.default_matmul_precision("float32"):
        measured = machine.measure()
        for line in [measured.describe(), *peers.left_out()]:
            print(line, flush=True)
        results = {name: _suite(name, settings, measured) for name in names}
    if out:
        options = {"suites": names, "rounds": rounds, "shapes": shapes}
        for line in report.write(out, measured, options, results):
            print(line)


def _suite(name: str, settings: Settings, measured: machine.Machine) -> report.Result:
    """Runs one suite, printing its table row by row."""
    suite = suites.load(name)
    print(f"\n{name}: {suite.TITLE}\n\n{report.heading(suite.COLUMNS)}", flush=True)
    records = []
    for record in suite.run(settings, measured):
        records.append(record)
        print(report.line(record, suite.COLUMNS), flush=True)
    notes = suite.notes(records)
    print("\n" + "\n".join(notes), flush=True)
    return report.Result(suite.TITLE, suite.PLOTTED, records, notes)
