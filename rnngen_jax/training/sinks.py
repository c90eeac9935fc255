"""Metric sinks: metrics.jsonl, which is authoritative, and TensorBoard's event files."""

import contextlib
import json
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from rnngen_jax import paths
from rnngen_jax.errors import UserError
from rnngen_jax.files import append_line, growing, naming, read_regular, replacing
from rnngen_jax.paths import Path

Line = dict[str, Any]


def _no_image(step: int, name: str, picture: np.ndarray) -> None:
    """Discards pictures."""


class Sink(NamedTuple):
    """A destination for metrics, and optionally pictures.

    Attributes:
      write: `write(step, split, metrics)`, split "train" or "validation", metrics finite numbers
        by name. It raises an `OSError` that names the file if that cannot be written.
      close: releases the file.
      image: `image(step, name, picture)`, uint8 RGB `[H, W, 3]`.
      flush: waits until all is in the run's folder, which may be in a bucket; raises an `OSError`.
    """

    write: Callable[[int, str, Mapping[str, float]], None]
    close: Callable[[], None]
    image: Callable[[int, str, np.ndarray], None] = _no_image
    flush: Callable[[], None] = lambda: None


def jsonl(path: str | os.PathLike[str]) -> Sink:
    """Appends one JSON object per line: {"step": 100, "split": "train", "loss/model": 1.5, ...}.

    A line is on disk when `write` returns; in a bucket, when `flush` does.
    """
    file = growing(paths.of(path))
    with open(file.local, "ab"):  # raises now, before training, if the file cannot be written
        pass

    def write(step: int, split: str, metrics: Mapping[str, float]) -> None:
        values = {name: float(value) for name, value in metrics.items()}
        line = json.dumps({"step": step, "split": split, **values}, allow_nan=False)
        append_line(file.local, line)
        file.sync(False)

    return Sink(write, _quietly(file.close), flush=lambda: file.sync(True))


def tensorboard(
    folder: str | os.PathLike[str],
    step: int,
    hyperparameters: Mapping[str, bool | int | float | str] | None = None,
) -> Sink:
    """Writes an event file: metrics as `<split>/<metric>`, and pictures by their names.

    Args:
      folder: for the file; made if missing.
      step: the run's current step; TensorBoard hides later entries of older event files.
      hyperparameters: by name, for TensorBoard's table of runs.
    """
    # Not tensorboardX's SummaryWriter: on a full disk its thread dies with a traceback, and it
    # writes hyper-parameters to a run of their own, without the metrics.
    from tensorboardX import RecordWriter, summary
    from tensorboardX.proto.event_pb2 import Event, SessionLog

    folder = paths.of(folder)
    if not paths.is_remote(folder):
        folder.mkdir(parents=True, exist_ok=True)
    # TensorBoard reads the files in the order of their names.
    path = folder / f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}"
    file = growing(path)
    writer = RecordWriter(os.fspath(file.local))

    def put(*events: Event) -> None:
        with naming(file.local):
            for event in events:
                event.wall_time = time.time()
                writer.write(event.SerializeToString())
            writer.flush()
        file.sync(False)

    def write(step: int, split: str, metrics: Mapping[str, float]) -> None:
        scalars = [summary.scalar(f"{split}/{name}", float(x)) for name, x in metrics.items()]
        put(*(Event(step=step, summary=scalar) for scalar in scalars))

    def image(step: int, name: str, picture: np.ndarray) -> None:
        put(Event(step=step, summary=summary.image(name, picture, dataformats="HWC")))

    def close() -> None:
        writer.close()
        file.close()

    start = SessionLog(status=SessionLog.START)
    put(Event(file_version="brain.Event:2"), Event(step=step + 1, session_log=start))
    if hyperparameters:
        _, session, _ = summary.hparams(dict(hyperparameters), {})
        put(Event(summary=session))
    return Sink(write, _quietly(close), image, lambda: file.sync(True))


def _quietly(close: Callable[[], None]) -> Callable[[], None]:
    """Closes without an error: `write` and `flush` have raised it, and closing would try again."""

    def quiet() -> None:
        with contextlib.suppress(OSError):
            close()

    return quiet


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

    def flush() -> None:
        for sink in sinks:
            sink.flush()

    return Sink(write, close, image, flush)


def read(path: str | os.PathLike[str]) -> list[Line]:
    """The lines of metrics.jsonl, except a last line that the end of a process left incomplete.

    Raises:
      UserError: the file is missing, or a line does not hold metrics.
    """
    try:
        return [line for line, _ in _lines(paths.of(path))]
    except FileNotFoundError:
        raise UserError(f"there is no {path}; run train first.") from None


def truncate_after(path: str | os.PathLike[str], step: int) -> None:
    """Drops the lines after `step`, and an incomplete last line, for a run to resume from `step`.

    The file is replaced atomically, or left alone if there is nothing to drop.

    Raises:
      UserError: a line does not hold metrics.
    """
    path = paths.of(path)
    if not path.exists():
        return
    kept = b"".join(raw for line, raw in _lines(path) if line["step"] <= step)
    if len(kept) != paths.size(path):
        with replacing(path) as temporary:
            temporary.write_bytes(kept)


def shortfall(path: str | os.PathLike[str], logged: int) -> str | None:
    """What is missing from metrics.jsonl, if anything, where it should reach the step `logged`.

    Raises:
      UserError: a line does not hold metrics.
    """
    if logged == 0:
        return None
    path = paths.of(path)
    if not path.exists():
        return f"{path} is missing, and with it the lines up to step {logged}"
    last = max((line["step"] for line, _ in _lines(path)), default=0)
    if last >= logged:
        return None
    return f"{path} ends at step {last}: the lines from there to step {logged} are gone"


def _lines(path: Path) -> list[tuple[Line, bytes]]:
    """The complete lines, parsed and as bytes."""
    lines = []
    for number, raw in enumerate(read_regular(path).splitlines(keepends=True), start=1):
        if not raw.endswith(b"\n"):
            break  # incomplete: a complete line ends with its line break
        try:
            line = json.loads(raw)
        except (ValueError, RecursionError):
            line = None
        if not isinstance(line, dict) or not isinstance(line.get("step"), int):
            raise UserError(
                f"{path}, line {number}, does not hold metrics; remove it, or give another "
                "--workdir."
            )
        lines.append((line, raw))
    return lines
