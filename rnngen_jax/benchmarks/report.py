"""Reports of a suite's measurements: a growing table, notes, JSON and plots."""

import importlib.util
import json
import pathlib
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from rnngen_jax.benchmarks.timing import Timing, times_and_ratios
from rnngen_jax.errors import UserError
from rnngen_jax.files import filling

_CASE, _CONTENDER, _NUMBER = 44, 38, 9  # widths of the table's columns


class Record(NamedTuple):
    """One row of a table.

    Attributes:
      case: the work and its shape.
      contender: the contender's name.
      values: by column; `None` where nothing was measured.
    """

    case: str
    contender: str
    values: dict[str, float | None]


class Result(NamedTuple):
    """The outcome of a suite.

    Attributes:
      title: the table's title.
      plotted: the column shown in the plot.
      records: the rows of the table.
      notes: the lines below the table.
    """

    title: str
    plotted: str
    records: list[Record]
    notes: list[str]


def timed(
    case: str, timings: Mapping[str, Timing], amounts: Mapping[str, float] | None = None
) -> Iterator[Record]:
    """A case's records: times, ratios to the first contender, and rates.

    Args:
      case: the work and its shape.
      timings: by contender.
      amounts: by column, an amount of work to be divided by the median time in seconds.
    """
    for name, values in times_and_ratios(timings).items():
        rates = {column: a / timings[name].median for column, a in (amounts or {}).items()}
        yield Record(case, name, {**values, **rates})


def heading(columns: Sequence[str]) -> str:
    """The first two lines of a table in Markdown."""
    names = [f"{'case (T,B,I,H)':<{_CASE}}", f"{'contender':<{_CONTENDER}}"]
    names += [f"{column:>{_NUMBER}}" for column in columns]
    lines = ["-" * len(name) for name in names[:2]] + ["-" * (len(n) - 1) + ":" for n in names[2:]]
    return f"| {' | '.join(names)} |\n| {' | '.join(lines)} |"


def line(record: Record, columns: Sequence[str]) -> str:
    """A record as a row of the table."""
    cells = [f"{record.case:<{_CASE}}", f"{record.contender:<{_CONTENDER}}"]
    for column in columns:
        width = max(_NUMBER, len(column))
        cells.append(f"{number(record.values.get(column)):>{width}}")
    return f"| {' | '.join(cells)} |"


def number(value: float | None) -> str:
    """A value with three significant digits, or as an integer from 100 on; "" for `None`."""
    if value is None:
        return ""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def compare(records: Sequence[Record], column: str, prefixes: Sequence[str]) -> list[float]:
    """The smallest `column` among certain contenders, for each case that has any of them.

    Args:
      records: those of all cases.
      column: a ratio to the case's first contender.
      prefixes: first words of the contenders' names.
    """
    found: dict[str, float] = {}
    for record in records:
        value = record.values.get(column)
        if value is not None and record.contender.split()[0] in prefixes:
            found[record.case] = min(value, found.get(record.case, value))
    return list(found.values())


def summary(ratios: Sequence[float]) -> str:
    """The median and the lowest of some ratios, for a note."""
    return f"median {number(statistics.median(ratios))}, lowest {number(min(ratios))}"


def of_work(records: Sequence[Record], work: str) -> list[Record]:
    """The records whose case includes the word `work`, such as "gradient"."""
    return [record for record in records if work in record.case.split()]


def torch_notes(records: Sequence[Record], works: Sequence[str] = ()) -> list[str]:
    """Notes on torch's times over ours, one per kind of work; none if torch was not timed."""
    found = {f"{work}: ": of_work(records, work) for work in works} or {"": records}
    ratios = {label: compare(those, "ratio", ("torch",)) for label, those in found.items()}
    return [f"{label}torch / ours: {summary(each)}" for label, each in ratios.items() if each]


def require_writable(folder: str, suites: Sequence[str]) -> None:
    """Checks that `write` will succeed, before anything is measured.

    Args:
      folder: as for `write`. The check leaves nothing behind, not even the folder if it is new.
      suites: names of the suites to be written.

    Raises:
      UserError: the folder cannot be written to, or a file to be written exists as a folder.
    """
    with filling(folder):
        for name in ("bench.json", *(f"{suite}.png" for suite in suites)):
            path = pathlib.Path(folder) / name
            if path.is_dir():
                raise UserError(f"cannot write {path}: it is a folder; move it away.")


def write(
    folder: str, machine: NamedTuple, settings: Mapping[str, Any], results: Mapping[str, Result]
) -> list[str]:
    """Writes `bench.json` and one plot per suite into a folder, all of them or none.

    Args:
      folder: created if missing.
      machine: the `Machine` that the suites ran on, or the `Target` they were compiled for.
      settings: the options that they ran with.
      results: by suite.

    Returns:
      Lines that report what was written, and what was not.

    Raises:
      UserError: the folder cannot be written to.
    """
    said = []
    with filling(folder) as temporary:
        suites = {
            name: {
                "title": result.title,
                "records": [
                    {"case": r.case, "contender": r.contender, **r.values} for r in result.records
                ],
                "notes": result.notes,
            }
            for name, result in results.items()
        }
        content = {"machine": machine._asdict(), "settings": dict(settings), "suites": suites}
        (temporary / "bench.json").write_text(json.dumps(content, indent=1) + "\n")
        said.append(f"wrote {pathlib.Path(folder) / 'bench.json'}")
        if importlib.util.find_spec("matplotlib") is None:
            said.append("matplotlib is not installed (pip install rnngen_jax[bench]): no plots")
            return said
        for name, result in results.items():
            _plot(temporary / f"{name}.png", result)
            said.append(f"wrote {pathlib.Path(folder) / f'{name}.png'}")
    return said


def _plot(path: pathlib.Path, result: Result) -> None:
    """Draws the plotted column as bars, grouped by case and coloured by contender."""
    # Not pyplot, which would select a GUI backend.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = [r for r in result.records if r.values.get(result.plotted) is not None]
    names = list(dict.fromkeys(record.contender for record in shown))
    cases = [record.case for record in shown]
    # A bar's position counts the bars before it, plus one gap per case so far.
    places = [n + len(set(cases[: n + 1])) for n in range(len(shown))]
    figure = Figure(figsize=(9, 1 + 0.17 * (len(shown) + len(set(cases)))))
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for name in names:
        bars = [
            (place, record.values[result.plotted])
            for place, record in zip(places, shown, strict=True)
            if record.contender == name
        ]
        axes.barh([place for place, _ in bars], [value for _, value in bars], label=name)
    first = [places[cases.index(case)] for case in dict.fromkeys(cases)]
    axes.set_yticks(first, dict.fromkeys(cases), fontsize=7)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel(result.plotted)
    axes.set_title(result.title, fontsize=9)
    axes.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))
    figure.savefig(path, dpi=150, bbox_inches="tight")
