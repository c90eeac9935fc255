"""Where metrics go: metrics.jsonl, which is the truth, and TensorBoard's event files."""

import json
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from rnngen_jax.errors import UserError
from rnngen_jax.files import replacing

Line = dict[str, Any]


def _no_image(step: int, name: str, picture: np.ndarray) -> None:
    """Keeps no pictures."""


class Sink(NamedTuple):
    """A place for metrics, and for pictures where it takes them.

    Attributes:
      write: `write(step, split, metrics)`, split "train" or "validation", metrics finite numbers
        by name.
      close: releases the file.
      image: `image(step, name, picture)`, uint8 RGB `[H, W, 3]`.
    """

    write: Callable[[int, str, Mapping[str, float]], None]
    close: Callable[[], None]
    image: Callable[[int, str, np.ndarray], None] = _no_image


def jsonl(path: str | os.PathLike[str]) -> Sink:
    """Appends a JSON object a line: {"step": 100, "split": "train", "loss/model": 1.5, ...}.

    A line is with the operating system when `write` returns, so it outlives the process.
    """
    file = open(path, "a", encoding="utf-8")  # noqa: SIM115 (closed by `close`)

    def write(step: int, split: str, metrics: Mapping[str, float]) -> None:
        values = {name: float(value) for name, value in metrics.items()}
        file.write(json.dumps({"step": step, "split": split, **values}, allow_nan=False) + "\n")
        file.flush()

    return Sink(write, file.close)


def tensorboard(
    folder: str | os.PathLike[str],
    step: int,
    hyperparameters: Mapping[str, bool | int | float | str] | None = None,
) -> Sink:
    """Writes event files: metrics as `<split>/<metric>`, and pictures by their names.

    Args:
      folder: their folder.
      step: where the run stands; what older event files hold after it, TensorBoard leaves out.
      hyperparameters: by name, for the table of runs, whose metrics are those written.
    """
    from tensorboardX import SummaryWriter, summary

    writer = SummaryWriter(os.fspath(folder), purge_step=step + 1)
    if hyperparameters:
        # SummaryWriter.add_hparams would make a run of its own for them, without the metrics.
        _, session, _ = summary.hparams(dict(hyperparameters), {})
        writer.file_writer.add_summary(session)
        writer.flush()

    def write(step: int, split: str, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            writer.add_scalar(f"{split}/{name}", float(value), step)
        writer.flush()

    def image(step: int, name: str, picture: np.ndarray) -> None:
        writer.add_image(name, picture, step, dataformats="HWC")
        writer.flush()

    return Sink(write, writer.close, image)


def together(sinks: Sequence[Sink]) -> Sink:
    """Several sinks, or none, as one."""

    def write(step: int, split: str, metrics: Mapping[str, float]) -> None:
        for sink in sinks:
            sink.write(step, split, metrics)

    def close() -> None:
        for sink in sinks:
            sink.close()

    def image(step: int, name: str, picture: np.ndarray) -> None:
        for sink in sinks:
            sink.image(step, name, picture)

    return Sink(write, close, image)


def read(path: str | os.PathLike[str]) -> list[Line]:
    """The lines of metrics.jsonl, but for a last line that was torn by the end of a process.

    Raises:
      UserError: the file is missing, or a line is no metrics.
    """
    try:
        return [line for line, _ in _lines(pathlib.Path(path))]
    except FileNotFoundError:
        raise UserError(f"there is no {path}; run train first.") from None


def truncate_after(path: str | os.PathLike[str], step: int) -> None:
    """Drops the lines after `step`, and a torn last line, for a run to go on from `step`.

    The file is replaced in one piece, or not touched where there is nothing to drop.

    Raises:
      UserError: a line is no metrics.
    """
    path = pathlib.Path(path)
    if not path.exists():
        return
    kept = b"".join(raw for line, raw in _lines(path) if line["step"] <= step)
    if kept != path.read_bytes():
        with replacing(path) as temporary:
            temporary.write_bytes(kept)


def _lines(path: pathlib.Path) -> list[tuple[Line, bytes]]:
    """The whole lines, parsed and as they are."""
    lines = []
    for number, raw in enumerate(path.read_bytes().splitlines(keepends=True), start=1):
        if not raw.endswith(b"\n"):
            break  # torn: a whole line ends with its line break
        try:
            line = json.loads(raw)
        except ValueError:
            line = None
        if not isinstance(line, dict) or not isinstance(line.get("step"), int):
            raise UserError(
                f"{path}, line {number}, is no line of metrics; remove it, or give another "
                "--workdir."
            )
        lines.append((line, raw))
    return lines
