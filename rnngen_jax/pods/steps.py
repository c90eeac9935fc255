"""The training step of a config that is named, traced for a machine that is named."""

import functools
import hashlib
from importlib import metadata
from typing import NamedTuple

import jax

from rnngen_jax import config_files, continuing, experiment
from rnngen_jax.config import require
from rnngen_jax.pods import programs, topology
from rnngen_jax.pods.programs import Program

# The training images of a source, which need not be here: height, width, channels, levels, classes
# and their number.
ITEMS = {
    "digits": (8, 8, 1, 17, 10, 1437),
    "idx": (28, 28, 1, 256, 10, 50_000),
    "folder": (32, 32, 3, 256, 0, 50_000),
    "tfds": (32, 32, 3, 256, 10, 45_000),
}
MOVING = "moving:"  # of a source of stills
_COMPILERS = ("jax", "jaxlib", "libtpu")


class Step(NamedTuple):
    """A training step.

    Attributes:
      program: it.
      gradients: bytes of all gradients.
    """

    program: Program
    gradients: int


class Traced(NamedTuple):
    """A training step for a machine.

    Attributes:
      lowered: the program.
      machine: the machine, or one device of it.
    """

    lowered: jax.stages.Lowered
    machine: topology.Machine

    def digest(self) -> str:
        """Of all that its figures hang on: text, devices and the compiler's version."""
        first, count = self.machine.devices[0], len(self.machine.devices)
        versions = [f"{name} {_version(name)}" for name in _COMPILERS]
        given = [*versions, first.platform, first.device_kind, str(count), self.lowered.as_text()]
        return hashlib.sha256("\n".join(given).encode()).hexdigest()


def step(config: str) -> Step:
    """The training step of a config.

    Args:
      config: as for --config.

    Raises:
      UserError: an unknown config, or data whose shape is not known here.
    """
    settings = continuing.resolve(experiment.check(config_files.load(config)))
    name, frames = settings.data.name, 0
    if name.startswith(MOVING):
        name, frames = name.removeprefix(MOVING), settings.data.context + settings.data.horizon
    source = name.partition(":")[0]
    require(source in ITEMS, f"data of {config}", settings.data.name, f"one of {[*ITEMS]}")
    height, width, channels, levels, classes, num = ITEMS[source]
    if frames:
        height = width = settings.data.canvas or (64 if height == 28 else 2 * height)
        classes = classes if settings.data.objects == 1 else 0
    numbers = height, width, channels, levels, classes, num
    dataset = programs.unseen(settings, numbers, frames)
    program = programs.programs(settings, dataset)["train"]
    return Step(program, programs.gradient_bytes(settings, dataset))


def trace(config: str, name: str, alone: bool) -> Traced:
    """Traces a training step at the config's batch per device.

    Args:
      config: as for --config.
      name: the machine's, as for `topology.machine`.
      alone: for one device of it.

    Raises:
      UserError: as `step`, or no such machine.
      RunError: the TPU's compiler is not installed, or at work elsewhere.
    """
    machine = topology.machine(name, f"--topologies={name}")
    machine = machine.alone() if alone else machine
    program = step(config).program
    return Traced(program.lower(machine.devices, program.batch_size), machine)


@functools.cache
def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "none"
