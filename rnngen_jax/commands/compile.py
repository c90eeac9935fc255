"""Compile a config for a machine that is not here, and say what each of its devices would do.

  rnngen compile --config=row_lstm --topology=cpu:8
  rnngen compile --config=pixel_rnn --topology=v5e:4x4 --batch_size=64 --out=pod.json
  rnngen compile --config=dcgan:folder --topology=v5e:16x16 --items=32,32,3,256,0,50000

--topology=cpu:N is N virtual devices of this machine; v4:2x2x4, v5e:4x4, v5p:2x2x4, v6e:4x4 and
tpu7x:2x2x4 are TPUs, whose compiler comes with pip install rnngen_jax[pods] and runs on a CPU, in
one process at a time. Nothing is run.

The training step, the evaluation of a batch and the sampler are compiled for all devices of the
machine and for one, at the same batch on each device. A row says whether the program fits in a
device's memory; its operations on each device, and their ratio to those of one device, which is 1
where no device does another's work; what crosses the network per step; the compiler's estimate of
cycles, where it makes one; and two predictions from the chip's published peaks: the least time of
a step, and how well it would scale. They leave out latencies and all that hides transfers behind
arithmetic. Loops count as often as they run. Where a program has conditionals, a cell has what is
done at least and at most, and predictions are of the least.

--batch_size is per device; by default it is the config's batch on each device. --items replaces the
data, which then need not be here: the training images' height, width, channels, levels, classes and
number. --out=FILE.json has all figures.
"""

import json
from typing import TYPE_CHECKING, Any

from rnngen_jax.commands.flags import CONFIG, OUT, Flag
from rnngen_jax.config import require, require_choice

if TYPE_CHECKING:
    from rnngen_jax.experiment import Experiment
    from rnngen_jax.pods.compiling import Figures
    from rnngen_jax.pods.hlo import Traffic
    from rnngen_jax.pods.topology import Machine

FLAGS = (
    CONFIG._replace(required=True),
    Flag("topology", "string", "the machine, such as cpu:8 or v5e:4x4", required=True),
    Flag("batch_size", "integer", "images on each device; by default the config's batch", 0),
    Flag("programs", "string", "of train, evaluate and sample, comma-separated; by default all"),
    Flag("items", "string", "HEIGHT,WIDTH,CHANNELS,LEVELS,CLASSES,NUMBER in the place of the data"),
    OUT._replace(help="FILE.json for all figures"),
)
NAMES = ("train", "evaluate", "sample")
TITLES = ("program", "batch", "memory", "GFLOP", "ratio", "network", "cycles", "predicted")


def run(
    config: Any,
    topology: str,
    batch_size: int,
    programs: str | None,
    items: str | None,
    out: str | None,
) -> None:
    """Compiles.

    Args:
      config: the `ConfigDict` of --config.
      topology: the machine.
      batch_size: images on each device, 0 for the config's.
      programs: names with commas between, `None` for all that the model has.
      items: six numbers, or `None` for the config's data.
      out: a JSON file to write, or `None`.

    Raises:
      UserError: a flag that does not fit, or data or a run that are not there.
      RunError: the compiler is not installed, or at work elsewhere.
    """
    require(batch_size >= 0, "--batch_size", batch_size, "≥ 1, or 0 for the config's batch")
    chosen = list(NAMES) if programs is None else [name.strip() for name in programs.split(",")]
    for name in chosen:
        require_choice("--programs", name, NAMES)
    fits = out is None or out.endswith(".json")
    require(fits, "--out", out, "a file that ends in .json")
    numbers = None if items is None else _numbers(items)

    import jax

    # The TPU's compiler needs no TPU, and must not look for one.
    jax.config.update("jax_platforms", "cpu")

    from rnngen_jax import continuing, data, experiment
    from rnngen_jax.files import replacing
    from rnngen_jax.pods import compiling
    from rnngen_jax.pods import programs as made
    from rnngen_jax.pods import topology as topologies
    from rnngen_jax.runs import coded, judging, tokenizers

    topologies.have_devices([topology])
    settings = continuing.resolve(experiment.check(config))
    machine = topologies.machine(topology)
    if numbers is None:
        dataset = data.load(coded.pinned(settings.data))
    else:
        dataset = made.unseen(settings, numbers)
    if settings.tokenizer:
        settings, _ = tokenizers.adopt(settings, tokenizers.open_tokenizer(settings))
    if settings.perceptual:
        settings, _ = judging.adopt(settings, judging.open_perceptual(settings, dataset))
    available = made.programs(settings, dataset)
    found = {
        name: compiling.figures(available[name], machine, batch_size)
        for name in chosen
        if name in available
    }
    print("\n".join(_page(settings, machine, found)))
    if out is not None:
        record = {
            "config": experiment.to_dict(settings),
            "topology": topology,
            "devices": len(machine.devices),
            "programs": {name: compiling.to_json(each) for name, each in found.items()},
        }
        with replacing(out) as temporary:
            temporary.write_text(json.dumps(record, indent=2) + "\n")
        print(out)


def _numbers(items: str) -> list[int]:
    words = items.split(",")
    fits = len(words) == 6 and all(word.isascii() and word.isdigit() for word in words)
    numbers = [int(word) for word in words] if fits else []
    fits = fits and min(numbers[:3]) >= 1 and numbers[3] >= 2 and numbers[5] >= 1
    require(fits, "--items", items, "six integers, such as 28,28,1,256,10,60000")
    return numbers


def _page(settings: "Experiment", machine: "Machine", found: "dict[str, Figures]") -> list[str]:
    """The lines to print."""
    devices = len(machine.devices)
    kind = machine.devices[0].device_kind
    rows = [TITLES, *(_row(name, each) for name, each in found.items())]
    widths = [max(len(row[n]) for row in rows) for n in range(len(TITLES))]
    lines = [f"{settings.name} on {machine.name}: {devices} devices, {kind}"]
    for row in rows:
        lines.append("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)))
    lines = [line.rstrip() for line in lines]
    if machine.chip is not None:
        lines.append("Predictions are from published peaks, not measured.")
    if any(each.unknown_loops for each in found.values()):
        lines.append("Loops of unknown length are counted as if they ran once: the least there is.")
    if not all(each.fits for each in found.values()):
        lines.append("A program that does not fit needs a smaller --batch_size, or remat.")
    return lines


def _row(name: str, each: "Figures") -> tuple[str, ...]:
    """One program's cells."""
    memory = f"{each.peak_bytes / 2**20:,.1f} MiB"
    if each.memory_bytes:
        share = each.peak_bytes / each.memory_bytes
        memory += f" ({share:.0%})" if each.fits else f" ({share:.0%}: does not fit)"
    predicted = ""
    if each.efficiency is not None:
        predicted = f"≥ {1e3 * each.seconds:,.3f} ms, scales to {each.efficiency:.1%}"
    return (
        name,
        str(each.batch_size),
        memory,
        _between(*(f"{flops / 1e9:,.4f}" for flops in (each.least.flops, each.flops_per_device))),
        _between(*(f"{ratio:.3f}" for ratio in each.ratios)),
        _between(_moved(each.least.collectives), _moved(each.collectives)),
        f"{each.cycles:,.0f}" if each.cycles else "",
        predicted,
    )


def _between(least: str, most: str) -> str:
    """What is done in any case, and with the dearest branches of all conditionals."""
    return least if least == most else f"{least} to {most}"


def _moved(collectives: "dict[str, Traffic]") -> str:
    moved = [
        f"{traffic.count} {kind}, {traffic.bytes / 2**20:,.2f} MiB"
        for kind, traffic in collectives.items()
    ]
    return "; ".join(moved) or "nothing"
