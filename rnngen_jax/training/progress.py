"""What a person sees of a run: a progress bar on a terminal, plain lines elsewhere."""

import sys
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax

from rnngen_jax.training.replicas import Values, mean, standard_error


class Progress(NamedTuple):
    """Shows how far a run is; on processes other than the first it shows nothing.

    Attributes:
      say: prints a line, above the bar where there is one.
      metrics: `metrics(step, split, values)` prints a line of metrics, of several replicas the
        mean and its standard error; on a terminal those of training are in the bar instead.
      advance: `advance(steps, loss)` moves the bar on.
      close: ends the bar.
    """

    say: Callable[[str], None]
    metrics: Callable[[int, str, Mapping[str, Values]], None]
    advance: Callable[[int, float], None]
    close: Callable[[], None]


def make_progress(start: int, steps: int, batch_size: int) -> Progress:
    """Shows a run from step `start` to `steps` of `batch_size` images each, of all replicas."""
    if jax.process_index() != 0:
        return Progress(_nothing, _nothing, _nothing, _nothing)
    if sys.stderr.isatty():
        return _bar(start, steps, batch_size)
    return _lines(steps)


def _lines(steps: int) -> Progress:
    """Plain lines."""

    def say(line: str) -> None:
        print(line, flush=True)

    def metrics(step: int, split: str, values: Mapping[str, Values]) -> None:
        say(_metrics_line(step, steps, split, values))

    return Progress(say, metrics, _nothing, _nothing)


def _bar(start: int, steps: int, batch_size: int) -> Progress:
    """A bar that counts steps and shows images a second, the time left and the loss."""
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

    return Progress(say, metrics, advance, bar.close)


def _metrics_line(step: int, steps: int, split: str, values: Mapping[str, Values]) -> str:
    """One line of metrics."""
    numbers = "  ".join(f"{name} {_shown(value)}" for name, value in values.items())
    return f"step {step}/{steps}  {split}  {numbers}"


def _shown(values: Values) -> str:
    """A metric, of several replicas the mean and its standard error."""
    error = f" ± {standard_error(values):.2g}" if isinstance(values, list) else ""
    return f"{mean(values):.4g}{error}"


def _nothing(*args: object) -> None:
    """Shows nothing."""
