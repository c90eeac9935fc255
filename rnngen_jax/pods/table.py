"""The pod table: the training step of every config, compiled for machines of several sizes."""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from rnngen_jax.pods import compiling, steps, topology
from rnngen_jax.pods.compiling import Figures
from rnngen_jax.pods.hlo import Traffic
from rnngen_jax.pods.measuring import Measure

# Each config file's preset for a pod.
CONFIGS = (
    "classifier:mnist",
    "code_prior:mnist",
    "code_rnn:mnist",
    "dcgan:folder",
    "diagonal_bilstm:binary_mnist",
    "draw:paper",
    "gru_gan:mnist",
    "mlp_gan:mnist",
    "pixel_cnn:gated",
    "pixel_rnn:binary_mnist",
    "rnn_autoencoder:binary_mnist",
    "row_lstm:mnist",
    "row_rnn:mnist",
    "vae:folder",
    "video_rnn:mnist",
    "vqgan:mnist",
    "vqvae:mnist",
)
# One pod in three sizes, and one size of every other chip.
TOPOLOGIES = (
    *("v5e:2x2", "v5e:4x4", "v5e:16x16"),
    *("v4:2x2x4", "v5p:2x2x4", "v6e:4x4", "tpu7x:2x2x4"),
)

# A device's operations over those of one device that stands alone, at most.
MOST_RATIO = 1.02
_TITLES = (
    *("config", "batch", "GFLOP", "ratio", "collectives", "KiB", "gradients", "rest"),
    *("peak MiB", "predicted"),
)


class Row(NamedTuple):
    """A config on a machine.

    Attributes:
      config: with its preset.
      topology: the machine's name.
      devices: how many it has.
      gradients: bytes of all gradients of a step.
      figures: of the training step.
      seconds: what it took to compile it, and the program of one device if that was not there yet.
    """

    config: str
    topology: str
    devices: int
    gradients: int
    figures: Figures
    seconds: float

    @property
    def crossing(self) -> tuple[int, int]:
        """Bytes that a device hands in to all collectives, at least and at most."""
        least, most = self.figures.least.collectives, self.figures.collectives
        return _handed_in(least), _handed_in(most)

    @property
    def sound(self) -> bool:
        """Whether each device does its own work alone, and only sums cross the network.

        Whatever branches are taken.
        """
        alone = all(abs(ratio - 1) <= MOST_RATIO - 1 for ratio in self.figures.ratios)
        return alone and set(self.figures.collectives) <= {"all-reduce"} and self.figures.fits


def rows(configs: Sequence[str], names: Sequence[str], measure: Measure) -> Iterator[Row]:
    """Each config's training step on each machine, at the config's batch per device.

    The program of a single device is measured once for all machines of the same chip.

    Args:
      configs: as for --config.
      names: of machines, as for `topology.machine`.
      measure: see `measuring`.

    Raises:
      UserError: an unknown config or machine, or data whose shape is not known here.
      RunError: the TPU's compiler is not installed, or at work elsewhere.
    """
    kinds = [topology.named(name, f"--topologies={name}")[0] for name in names]
    for config in configs:
        program, gradients = steps.step(config)
        alone = {}
        for kind, name in zip(kinds, names, strict=True):
            seconds = 0.0
            if kind not in alone:
                alone[kind] = measure(config, name, True)
                seconds = alone[kind].seconds
            every = measure(config, name, False)
            found = compiling.compared(program.batch_size, alone[kind], every)
            yield Row(config, name, every.devices, gradients, found, seconds + every.seconds)


def line(row: Row) -> str:
    """A row in words, to be printed as it is found."""
    ratio = _between(*(f"{ratio:.4f}" for ratio in row.figures.ratios))
    return (
        f"{row.config} on {row.topology}: ratio {ratio}, {_collectives(row.figures)}, "
        f"{row.figures.peak_bytes / 2**20:,.1f} MiB, {row.seconds:.0f} s"
    )


def page(found: Sequence[Row], command: str) -> str:
    """A page in Markdown: what holds for all rows, then a table per machine.

    Args:
      found: at least one row.
      command: what makes the page.
    """
    ratios = [ratio for row in found for ratio in row.figures.ratios]
    minutes = sum(row.seconds for row in found) / 60
    broken = [f"{row.config} on {row.topology}" for row in found if not row.sound]
    kinds = sorted({kind for row in found for kind in row.figures.collectives})
    prose = [
        f"The training step of {len({row.config for row in found})} configs, compiled for "
        f"{len({row.topology for row in found})} machines that are not here. Made in "
        f"{minutes:.0f} minutes on a CPU by `{command}`.",
        f"Collectives: {', '.join(kinds) or 'none'}. A device's operations over those of one "
        f"device alone: {min(ratios):.4f} to {max(ratios):.4f}. "
        + (f"Not sound: {', '.join(broken)}." if broken else "Every program fits in its memory."),
        "`batch` is per device, the config's own. `KiB` is what a device hands in to all "
        "collectives of a step: the `gradients` of all players, and the `rest`, which is metrics "
        "and batch statistics. Where a step has conditionals, as that of a codebook's start, a "
        "cell has what is done at least and at most, and `predicted` is of the least. `peak MiB` "
        "is of a device, as the compiler assigns its memory. `predicted` is how well the step "
        "scales from one device, from published peaks of the chip and its links, without "
        "latencies; it is not measured.",
    ]
    lines = ["# Training steps on pods"]
    for text in prose:
        wrapped = textwrap.wrap(text, 100, break_on_hyphens=False, break_long_words=False)
        lines += ["", *wrapped]
    for name in dict.fromkeys(row.topology for row in found):
        those = [row for row in found if row.topology == name]
        lines += ["", f"## {name}, {those[0].devices} devices", ""]
        lines += [f"| {' | '.join(_TITLES)} |", "|---" + "|---:" * (len(_TITLES) - 1) + "|"]
        lines += [f"| {' | '.join(_cells(row))} |" for row in those]
    return "\n".join(lines) + "\n"


def _cells(row: Row) -> tuple[str, ...]:
    found = row.figures
    return (
        row.config,
        str(found.batch_size),
        _between(*(f"{flops / 1e9:,.3f}" for flops in (found.least.flops, found.flops_per_device))),
        _between(*(f"{ratio:.4f}" for ratio in found.ratios)),
        _collectives(found),
        _between(*(f"{handed / 1024:,.1f}" for handed in row.crossing)),
        f"{row.gradients / 1024:,.1f}",
        _between(*(f"{(handed - row.gradients) / 1024:,.1f}" for handed in row.crossing)),
        f"{found.peak_bytes / 2**20:,.1f}",
        "" if found.efficiency is None else f"{found.efficiency:.1%}",
    )


def _collectives(found: Figures) -> str:
    least, most = (
        ", ".join(f"{traffic.count} {kind}" for kind, traffic in each.items()) or "nothing"
        for each in (found.least.collectives, found.collectives)
    )
    return _between(least, most)


def _between(least: str, most: str) -> str:
    """What is done in any case, and with the dearest branches of all conditionals."""
    return least if least == most else f"{least} to {most}"


def _handed_in(collectives: Mapping[str, Traffic]) -> int:
    return sum(traffic.bytes for traffic in collectives.values())
