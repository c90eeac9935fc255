"""Machines that need not be there: their devices, for the compiler, and their published peaks.

A machine is named `KIND:SHAPE`. `cpu:N` is N virtual devices of this machine. The others are TPUs,
such as `v5e:4x4`: 16 chips, 4 by 4. Their compiler comes with the extra `pods` and runs on any CPU,
in one process at a time.
"""

import math
import os
import re
from collections.abc import Iterable
from typing import NamedTuple

import jax

from rnngen_jax.config import require
from rnngen_jax.errors import RunError, UserError

GIB = 2**30


class Chip(NamedTuple):
    """A chip's published peaks.

    Attributes:
      flops: operations per second in bfloat16, dense.
      memory: bytes.
      bandwidth: of its memory, bytes per second.
      network: of all its links to other chips, bytes per second.
    """

    flops: float
    memory: int
    bandwidth: float
    network: float


# cloud.google.com/tpu/docs, the page of each version; its bits per second are bytes here.
CHIPS = {
    "v4": Chip(275e12, 32 * GIB, 1228e9, 2400e9 / 8),
    "v5e": Chip(197e12, 16 * GIB, 819e9, 1600e9 / 8),
    "v5p": Chip(459e12, 95 * GIB, 2765e9, 4800e9 / 8),
    "v6e": Chip(918e12, 32 * GIB, 1640e9, 3584e9 / 8),
    "tpu7x": Chip(2307e12, 192 * GIB, 7380e9, 9600e9 / 8),
}
_NO_CLOUD = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-16",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_STDERR_LOG_LEVEL": "3",
    "TPU_MIN_LOG_LEVEL": "3",
}
ALLOWED = f"cpu:N, or a TPU such as v5e:4x4 (of {', '.join(CHIPS)})"


class Machine(NamedTuple):
    """Devices to compile for.

    Attributes:
      name: such as "v5e:4x4".
      devices: of all its hosts; on some chips there are two per chip.
      chip: the peaks of a device, which are a share of its chip's; `None` of a CPU.
    """

    name: str
    devices: tuple[jax.Device, ...]
    chip: Chip | None

    def alone(self) -> "Machine":
        """One of its devices."""
        return self._replace(devices=self.devices[:1])


def have_devices(names: Iterable[str]) -> None:
    """Asks for the virtual devices of machines by name, which JAX grants until it has started."""
    counts = [int(found[1]) for name in names if (found := re.fullmatch(r"cpu:(\d{1,4})", name))]
    if max(counts, default=0) < 1:
        return
    try:
        jax.config.update("jax_num_cpu_devices", max(counts))
    except RuntimeError:
        return  # it has started; whether there are enough is seen later


def named(name: str, given: str) -> tuple[str, list[int]]:
    """A machine's kind and sizes by its name.

    Args:
      name: such as "cpu:8" or "v5e:4x4".
      given: the flag that asks for it.

    Raises:
      UserError: no such machine.
    """
    found = re.fullmatch(r"(cpu|" + "|".join(CHIPS) + r"):(\d+(?:x\d+)*)", name)
    flag = given.partition("=")[0]
    require(found is not None, flag, name, ALLOWED)
    kind, sizes = found[1], [int(size) for size in found[2].split("x")]
    if kind == "cpu":
        require(len(sizes) == 1 and sizes[0] >= 1, flag, name, ALLOWED)
        return kind, sizes
    flat = kind in ("v5e", "v6e")
    example = f"{kind}:{'4x4' if flat else '2x2x4'}, for example"
    require(len(sizes) == (2 if flat else 3), flag, name, example)
    return kind, sizes


def machine(name: str, given: str | None = None) -> Machine:
    """Finds a machine by its name.

    Args:
      name: such as "cpu:8" or "v5e:4x4".
      given: the flag that asks for it, for messages; `None` stands for "--topology=NAME".

    Raises:
      UserError: no such machine.
      RunError: the TPU's compiler is not installed, or at work in another process.
    """
    given = given or f"--topology={name}"
    kind, sizes = named(name, given)
    if kind == "cpu":
        return Machine(name, virtual(sizes[0]), None)
    # This machine is no cloud's, so the compiler is not to ask one what it is.
    for name_of, value in _NO_CLOUD.items():
        os.environ.setdefault(name_of, value)
    from jax.experimental import topologies

    try:
        devices = topologies.get_topology_desc(platform="tpu", topology_name=name).devices
    except Exception as error:  # of the plugin's own kinds
        raise _refusal(given, error) from None
    devices = tuple(sorted(devices, key=lambda device: (device.process_index, device.id)))
    per_chip = len(devices) // math.prod(sizes)
    whole = CHIPS[kind]
    return Machine(name, devices, Chip(*(peak / per_chip for peak in whole)))


def virtual(count: int) -> tuple[jax.Device, ...]:
    """Virtual devices of this machine's CPU, made where JAX has not started yet.

    Raises:
      UserError: JAX has started with fewer.
    """
    devices = jax.devices("cpu")
    if len(devices) < count:
        raise UserError(
            f"--topology=cpu:{count} needs {count} virtual devices and JAX has {len(devices)}; set "
            f"XLA_FLAGS=--xla_force_host_platform_device_count={count}."
        )
    return tuple(devices[:count])


def _refusal(given: str, error: Exception) -> UserError | RunError:
    """The TPU compiler's error in one line."""
    text = str(error)
    if "lockfile" in text or "already in use" in text:
        return RunError(
            "the TPU's compiler is in use by another process, and only one can use it at a time; "
            "try again when that has ended."
        )
    if "not installed" in text:
        return RunError(f"{given} needs the TPU's compiler; pip install 'rnngen_jax[pods]'.")
    line = next((line for line in text.splitlines() if line.strip()), type(error).__name__)
    return UserError(f"{given} is refused by the TPU's compiler: {line}")
