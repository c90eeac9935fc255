"""An outside check of memory: how a fresh process grows while it computes one gradient.

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
    """Bytes by which a fresh process's resident memory peaks above what it had before the step.

    Args:
      cell: "lstm" or "gru".
      shape: the sizes.
      name: one of the `memory` suite's contenders.

    Returns:
      The bytes; `None` on an accelerator, whose memory is not the process's, and on systems other
      than Linux, which cannot tell the peak of the step from that of compiling it.

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
    """Computes one gradient and prints by how many bytes the process grew."""
    from rnngen_jax.benchmarks.suites.memory import layers

    found = {layer.name: layer for layer in layers(draw(cell, *parse_shapes(shape)))}
    layer = found[name]
    arguments = jax.device_put((layer.params, layer.xs, layer.weights))
    compiled = lower_gradient(layer).compile()
    jax.block_until_ready(arguments)
    _CLEAR.write_text("5")  # sets the peak to the present size, see proc(5)
    before = _kilobytes("VmRSS")
    jax.block_until_ready(compiled(*arguments))
    print(1024 * (_kilobytes("VmHWM") - before))


def _kilobytes(field: str) -> int:
    """A size in /proc/self/status."""
    found = re.search(rf"^{field}:\s*(\d+) kB", _STATUS.read_text(), re.MULTILINE)
    if found is None:
        raise RunError(f"{_STATUS} has no {field}")
    return int(found[1])


if __name__ == "__main__":
    main(*sys.argv[1:])
