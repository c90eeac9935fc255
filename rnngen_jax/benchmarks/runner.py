"""Runs suites one after another, prints their tables and writes their results."""

import pathlib

import jax

from rnngen_jax.benchmarks import estimates, machine, peers, report, suites
from rnngen_jax.benchmarks.problem import Settings, parse_shapes
from rnngen_jax.config import require, require_choice

ALL = "all"


def run(
    chosen: str, rounds: int, shapes: str | None, out: str | None, target: str | None = None
) -> None:
    """Runs the suites named on the command line.

    Args:
      chosen: comma-separated names of suites, or "all".
      rounds: timed calls per contender.
      shapes: replace each suite's own, in the format of `parse_shapes`; `None` keeps those.
      out: the folder for `bench.json` and plots; `None` writes nothing.
      target: a chip to compile for, in the place of timing anything; `None` times here.

    Raises:
      UserError: an unknown suite, invalid shapes or rounds, or a folder that cannot be written to.
      RunError: a contender's outputs or gradients differ from ours.
    """
    names = list(dict.fromkeys(chosen.split(",")))
    for name in names:
        require_choice("--suite", name, [ALL, *suites.names()])
    able = suites.names() if target is None else suites.compilable()
    names = able if ALL in names else names
    for name in names:
        require(name in able, f"--suite with --target={target}", name, f"of {', '.join(able)}")
    require(rounds >= 1, "--rounds", rounds, "≥ 1")
    settings = Settings(rounds, None if shapes is None else parse_shapes(shapes))
    if out:
        require(not pathlib.Path(out).is_file(), "--out", out, "a folder")
        report.require_writable(out, names)

    # By default, GPUs and TPUs compute float32 products in lower precision.
    with jax.default_matmul_precision("float32"):
        measured = machine.measure() if target is None else estimates.chip(target)
        for line in [measured.describe(), *peers.left_out(target is not None)]:
            print(line, flush=True)
        results = {name: _suite(name, settings, measured) for name in names}
    if out:
        options = {"suites": names, "rounds": rounds, "shapes": shapes, "target": target}
        for line in report.write(out, measured, options, results):
            print(line)


def _suite(
    name: str, settings: Settings, measured: machine.Machine | estimates.Target
) -> report.Result:
    """Runs one suite, printing its table row by row."""
    suite = suites.load(name)
    if isinstance(measured, estimates.Target):
        title, columns, plotted = f"{suite.TITLE}: estimates", estimates.COLUMNS, estimates.PLOTTED
        found, notes_on = estimates.run(suite.cases(settings), measured), estimates.notes
    else:
        title, columns, plotted = suite.TITLE, suite.COLUMNS, suite.PLOTTED
        found, notes_on = suite.run(settings, measured), suite.notes
    print(f"\n{name}: {title}\n\n{report.heading(columns)}", flush=True)
    records = []
    for record in found:
        records.append(record)
        print(report.line(record, columns), flush=True)
    notes = notes_on(records)
    print("\n" + "\n".join(notes), flush=True)
    return report.Result(title, plotted, records, notes)
