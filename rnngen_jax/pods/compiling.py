"""What a program costs on each device of a machine, from compiling it for that machine."""

import time
from typing import Any, NamedTuple

from rnngen_jax.pods import hlo
from rnngen_jax.pods.programs import Program
from rnngen_jax.pods.topology import Chip, Machine

# What a device sends of the bytes that it hands in, over n devices, as a multiple of (n - 1) / n:
# a ring reduces and then gathers.
_SENT = {"all-reduce": 2.0}


class Figures(NamedTuple):
    """A program on a machine.

    Attributes:
      batch_size: images on each device.
      flops_per_device, flops_one_device: operations of a device, and of the program for one device
        at the same batch per device; see `hlo.Costs`.
      bytes_per_device: moved in memory; see `hlo.Costs`.
      peak_bytes: of arguments, results and all between, on each device.
      memory_bytes: that a device has; 0 of a CPU.
      collectives: by kind, what a device hands in per step.
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
    def efficiency(self) -> float | None:
        """The predicted share of perfect scaling, ≤ 1; `None` where nothing is predicted."""
        return min(self.seconds_one_device / self.seconds, 1.0) if self.seconds else None


def on_one_device(program: Program, machine: Machine, batch_size: int = 0) -> hlo.Costs:
    """Compiles a program for one device of a machine; see `figures`."""
    size = batch_size or program.batch_size
    return hlo.costs(program.lower(machine.devices[:1], size).compile().as_text())


def figures(
    program: Program, machine: Machine, batch_size: int = 0, one: hlo.Costs | None = None
) -> Figures:
    """Compiles a program for a machine and for one device of it.

    Args:
      program: the program.
      machine: the machine.
      batch_size: images on each device; 0 for the program's own number.
      one: what `on_one_device` gave for a machine of the same chips and the same batch; compiled
        here if `None`.
    """
    size = batch_size or program.batch_size
    one = on_one_device(program, machine, size) if one is None else one
    start = time.perf_counter()
    compiled = program.lower(machine.devices, size).compile()
    seconds = time.perf_counter() - start
    every, memory = hlo.costs(compiled.as_text()), compiled.memory_analysis()
    kept = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    chip = machine.chip
    alone = 0.0 if chip is None else _seconds(one, chip)
    together = 0.0
    if chip is not None:
        together = _seconds(every, chip) + _network(every, chip, len(machine.devices))
    return Figures(
        size,
        every.flops,
        one.flops,
        every.bytes,
        kept + memory.temp_size_in_bytes,
        0 if chip is None else int(chip.memory),
        every.collectives,
        every.cycles,
        alone,
        together,
        every.unknown_loops,
        seconds,
    )


def to_json(found: Figures) -> dict[str, Any]:
    """The values of one program in the file that `compile` writes."""
    collectives = {kind: traffic._asdict() for kind, traffic in found.collectives.items()}
    derived = {"fits": found.fits, "predicted_efficiency": found.efficiency}
    return {**found._asdict(), **derived, "collectives": collectives}


def _seconds(costs: hlo.Costs, chip: Chip) -> float:
    """The roofline of a device: the longer of its arithmetic and its memory traffic."""
    return max(costs.flops / chip.flops, costs.bytes / chip.bandwidth)


def _network(costs: hlo.Costs, chip: Chip, devices: int) -> float:
    """Seconds of all collectives over the chip's links, one after the other, without latency."""
    share = (devices - 1) / devices
    sent = sum(_SENT.get(kind, 1.0) * moved.bytes for kind, moved in costs.collectives.items())
    return share * sent / chip.network
