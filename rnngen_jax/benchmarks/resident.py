"""Independent measurement of memory: the growth of a fresh process that computes one gradient.

`python -m rnngen_jax.benchmarks.resident CELL T,B,I,H CONTENDER` is that process.
"""

import os
import pathlib
import re
import subprocess
import sys

import jax

from rnngen_jax.benchmarks.contenders import lower_gradient
from rnngen_jax.benchmarks.problem import Shape, draw, parse_shapes
from rnngen_jax.errors import RunError
from rnngen_jax.ops.devices import compiled_for

_STATUS = pathlib.Path("/proc/self/status")
_CLEAR = pathlib.Path("/proc/self/clear_refs")


def growth(cell: str, shape: Shape, name: str) -> int | None:
    """Peak resident memory of a fresh process during one step, minus that before the step, bytes.

    Args:
      cell: "lstm" or "gru".
      shape: the sizes.
      name: one of the `memory` suite's contenders.

    Returns:
      The bytes; `None` on an accelerator, whose memory does not belong to the process, and on
      systems other than Linux, where the step's peak cannot be told from the compiler's.

    Raises:
      RunError: the process failed.
    """
    if compiled_for() != "cpu" or not _CLEAR.exists():
        return None
    command = [sys.executable, "-m", __name__, cell, str(shape), name]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise RunError(f"{cell} {shape}: the process that measures {name} failed: {last}")
    return int(done.stdout)


def main(cell: str, shape: str, name: str) -> None:
    """Computes one gradient and prints the growth of the process in bytes."""
    from rnngen_jax.benchmarks.suites.memory import layers

    found = {layer.name: layer for layer in layers(draw(cell, *parse_shapes(shape)))}
    layer = found[name]
    arguments = jax.device_put((layer.params, layer.xs, layer.weights))
    compiled = lower_gradient(layer).compile()
    jax.block_until_ready(arguments)
    _CLEAR.write_text("5")  # resets the peak to the current size, see proc(5)
    before = _kilobytes("VmRSS")
    jax.block_until_ready(compiled(*arguments))
    print(1024 * (_kilobytes("VmHWM") - before))


def _kilobytes(field: str) -> int:
    """A field of /proc/self/status, in kB."""
    found = re.search(rf"^{field}:\s*(\d+) kB", _STATUS.read_text(), re.MULTILINE)
    if found is None:
        raise RunError(f"{_STATUS} has no {field}")
    return int(found[1])


if __name__ == "__main__":
    main(*sys.argv[1:])
