"""Progress of a run for people: a progress bar on a terminal, plain lines elsewhere."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import NamedTuple

import jax

from rnngen_jax.training.seeds import Values, mean, standard_error


class Progress(NamedTuple):
    """Shows a run's progress; processes other than the first show nothing.

    Attributes:
      say: prints a line, above the bar if there is one.
      metrics: `metrics(step, split, values)` prints a line of metrics, for several seeds the mean
        and its standard error; on a terminal, the bar shows training metrics instead.
      advance: `advance(steps, loss)` counts completed steps.
      compiling: `with compiling():` shows that the step compiles and how long it took; the
        remaining time is estimated from its end on.
      close: ends the bar.
    """

    say: Callable[[str], None]
    metrics: Callable[[int, str, Mapping[str, Values]], None]
    advance: Callable[[int, float], None]
    compiling: Callable[[], AbstractContextManager[None]]
    close: Callable[[], None]


def make_progress(start: int, steps: int, batch_size: int) -> Progress:
    """Shows a run from step `start` to `steps`; `batch_size` images per step, over all seeds."""
    if jax.process_index() != 0:
        return Progress(_nothing, _nothing, _nothing, contextlib.nullcontext, _nothing)
    if sys.stderr.isatty():
        return _bar(start, steps, batch_size)
    return _lines(steps)


def _lines(steps: int) -> Progress:
    """Plain lines; a line of metrics ends with the estimated time left."""
    begin, done = time.perf_counter(), 0

    def say(line: str) -> None:
        print(line, flush=True)

    def metrics(step: int, split: str, values: Mapping[str, Values]) -> None:
        line = _metrics_line(step, steps, split, values)
        if done and step < steps:
            pace = (time.perf_counter() - begin) / done
            line = f"{line}  {_duration((steps - step) * pace)} left"
        say(line)

    def advance(count: int, loss: float) -> None:
        nonlocal done
        done += count

    @contextlib.contextmanager
    def compiling() -> Iterator[None]:
        nonlocal begin
        print("compiling ...", end="", flush=True)
        start = time.perf_counter()
        try:
            yield
        finally:
            begin = time.perf_counter()
            say(f" {_duration(begin - start)}")

    return Progress(say, metrics, advance, compiling, _nothing)


def _bar(start: int, steps: int, batch_size: int) -> Progress:
    """A bar that counts steps and shows images per second, the time left and the loss."""
    from tqdm import tqdm

    bar = tqdm(total=steps, initial=start, unit="step", dynamic_ncols=True, file=sys.stderr)

    def say(line: str) -> None:
        tqdm.write(line)

    def metrics(step: int, split: str, values: Mapping[str, Values]) -> None:
        if split != "train":
            say(_metrics_line(step, steps, split, values))

    def advance(done: int, loss: float) -> None:
        rate = (bar.format_dict["rate"] or 0.0) * batch_size
        bar.set_postfix_str(f"{rate:.0f} images/s, loss {loss:.4g}", refresh=False)
        bar.update(done)

    @contextlib.contextmanager
    def compiling() -> Iterator[None]:
        bar.set_description("compiling")
        start = time.perf_counter()
        yield
        bar.set_description()
        bar.unpause()
        say(f"compiling ... {_duration(time.perf_counter() - start)}")

    return Progress(say, metrics, advance, compiling, bar.close)


def _metrics_line(step: int, steps: int, split: str, values: Mapping[str, Values]) -> str:
    """One line of metrics."""
    numbers = "  ".join(f"{name} {_shown(value)}" for name, value in values.items())
    return f"step {step}/{steps}  {split}  {numbers}"


def _duration(seconds: float) -> str:
    """A duration in words."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes = seconds / 60
    return f"{minutes:.1f} min" if minutes < 100 else f"{minutes / 60:.1f} h"


def _shown(values: Values) -> str:
    """A metric; for several seeds, their mean and its standard error."""
    error = f" ± {standard_error(values):.2g}" if isinstance(values, list) else ""
    return f"{mean(values):.4g}{error}"


def _nothing(*args: object) -> None:
    """Shows nothing."""
