"""What a program costs on each device of a machine, from compiling it for that machine."""

import time
from typing import Any, NamedTuple

import jax

from rnngen_jax.pods import hlo
from rnngen_jax.pods.programs import Program
from rnngen_jax.pods.topology import Chip, Machine

# What a device sends of the bytes that it hands in, over n devices, as a multiple of (n - 1) / n:
# a ring reduces and then gathers.
_SENT = {"all-reduce": 2.0}


class Measured(NamedTuple):
    """What the compiler says of a program.

    Attributes:
      devices: that it is for.
      chip: the peaks of one of them; `None` of a CPU.
      least, most: what a device does, counted in the program's text; see `hlo.Bounds`.
      peak_bytes: of arguments, results and all between, on each device.
      seconds: what compiling took.
    """

    devices: int
    chip: Chip | None
    least: hlo.Costs
    most: hlo.Costs
    peak_bytes: int
    seconds: float


class Figures(NamedTuple):
    """A program on a machine.

    Where it has conditionals, its figures are what a device does at most, but for `least`, `cycles`
    and the predictions.

    Attributes:
      batch_size: images on each device.
      flops_per_device, flops_one_device: operations of a device, and of the program for one device
        at the same batch per device; see `hlo.Costs`.
      bytes_per_device: moved in memory; see `hlo.Costs`.
      peak_bytes: of arguments, results and all between, on each device.
      memory_bytes: that a device has; 0 of a CPU.
      collectives: by kind, what a device hands in per step.
      least: what a device does at least.
      least_flops_one_device: operations of the program for one device at least.
      cycles: the compiler's estimate, 0 where it makes none.
      seconds_one_device, seconds: predictions from published peaks, 0 of a CPU: the longer of
        arithmetic and memory traffic, for one device, and for all with the network after it.
      unknown_loops: loops that are counted as if they ran once, since the compiler does not say how
        often they do.
      compile_seconds: what the larger compilation took.
    """

    batch_size: int
    flops_per_device: float
    flops_one_device: float
    bytes_per_device: float
    peak_bytes: int
    memory_bytes: int
    collectives: dict[str, hlo.Traffic]
    least: hlo.Costs
    least_flops_one_device: float
    cycles: float
    seconds_one_device: float
    seconds: float
    unknown_loops: int
    compile_seconds: float

    @property
    def fits(self) -> bool:
        """Whether it fits in a device's memory, as far as that is known."""
        return not self.memory_bytes or self.peak_bytes <= self.memory_bytes

    @property
    def ratios(self) -> tuple[float, float]:
        """A device's operations over those of one device alone, at least and at most."""
        pairs = (
            (self.least.flops, self.least_flops_one_device),
            (self.flops_per_device, self.flops_one_device),
        )
        return tuple(every / alone if alone else 1.0 for every, alone in pairs)

    @property
    def efficiency(self) -> float | None:
        """The predicted share of perfect scaling, ≤ 1; `None` where nothing is predicted."""
        return min(self.seconds_one_device / self.seconds, 1.0) if self.seconds else None


def measure(
    lowered: jax.stages.Lowered, machine: Machine, options: dict[str, Any] | None = None
) -> Measured:
    """Compiles a program, and counts what it does.

    Args:
      lowered: the program, traced for the machine's devices.
      machine: the machine.
      options: of the compiler.
    """
    start = time.perf_counter()
    compiled = lowered.compile(options)
    seconds = time.perf_counter() - start
    memory = compiled.memory_analysis()
    kept = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    counted = hlo.bounds(compiled.as_text())
    peak = kept + memory.temp_size_in_bytes
    return Measured(len(machine.devices), machine.chip, *counted, peak, seconds)


def figures(program: Program, machine: Machine, batch_size: int = 0) -> Figures:
    """Compiles a program for a machine and for one device of it.

    Args:
      program: the program.
      machine: the machine.
      batch_size: images on each device; 0 for the program's own number.
    """
    size = batch_size or program.batch_size
    one = machine.alone()
    alone = measure(program.lower(one.devices, size), one)
    return compared(size, alone, measure(program.lower(machine.devices, size), machine))


def compared(batch_size: int, one: Measured, every: Measured) -> Figures:
    """A program on a machine, beside the same on one device of it.

    Args:
      batch_size: images on each device.
      one: of one device, with the same batch.
      every: of all devices.
    """
    chip, devices = every.chip, every.devices
    alone = 0.0 if chip is None else _seconds(one.least, chip)
    together = 0.0
    if chip is not None:
        together = _seconds(every.least, chip) + _network(every.least, chip, devices)
    return Figures(
        batch_size,
        every.most.flops,
        one.most.flops,
        every.most.bytes,
        every.peak_bytes,
        0 if chip is None else int(chip.memory),
        every.most.collectives,
        every.least,
        one.least.flops,
        every.least.cycles,
        alone,
        together,
        every.most.unknown_loops,
        every.seconds,
    )


def to_json(found: Figures) -> dict[str, Any]:
    """The values of one program in the file that `compile` writes."""
    derived = {"fits": found.fits, "predicted_efficiency": found.efficiency}
    return {
        **found._asdict(),
        **derived,
        "collectives": _traffic(found.collectives),
        "least": {**found.least._asdict(), "collectives": _traffic(found.least.collectives)},
    }


def _traffic(collectives: dict[str, hlo.Traffic]) -> dict[str, dict[str, int]]:
    return {kind: moved._asdict() for kind, moved in collectives.items()}


def _seconds(costs: hlo.Costs, chip: Chip) -> float:
    """The roofline of a device: the longer of its arithmetic and its memory traffic."""
    return max(costs.flops / chip.flops, costs.bytes / chip.bandwidth)


def _network(costs: hlo.Costs, chip: Chip, devices: int) -> float:
    """Seconds of all collectives over the chip's links, one after the other, without latency."""
    share = (devices - 1) / devices
    sent = sum(_SENT.get(kind, 1.0) * moved.bytes for kind, moved in costs.collectives.items())
    return share * sent / chip.network
