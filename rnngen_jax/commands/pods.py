"""Compile every config's training step for pods of several sizes, and write the table.

  rnngen pods --out=docs/pods_table.md
  rnngen pods --configs=row_rnn,dcgan:folder --topologies=cpu:2,cpu:8

Nothing is run, and no data are needed: images have the shape of the source that a config names.
TPUs need the compiler that comes with pip install rnngen_jax[pods], which runs on a CPU, in one
process at a time; `rnngen compile` shows one config in full, its evaluation and its sampler too.

A device should do the work of one device alone, to 2 %, and the network carry nothing but sums. A
program that does not, or does not fit in a device's memory, is named, and the exit code is 1.

A TPU's compiler is ended before it generates code, which takes most of its time and changes no
figure here; so there are no cycles, which `rnngen compile` has. With --out, what is found is also
kept beside that file until it is written: after an interruption the same command goes on from it.
"""

import pathlib

from rnngen_jax.commands.flags import OUT, Flag
from rnngen_jax.config import require

FLAGS = (
    Flag("configs", "string", "comma-separated, as for --config; by default one of each file"),
    Flag("topologies", "string", "comma-separated, as for compile; by default seven of TPUs"),
    OUT._replace(help="FILE.md to write; by default none"),
)


def run(configs: str | None, topologies: str | None, out: str | None) -> None:
    """Compiles.

    Args:
      configs: names with commas between, or `None` for one preset of each file.
      topologies: names of machines with commas between, or `None` for TPUs.
      out: the page to write, or `None`.

    Raises:
      UserError: a flag that does not fit.
      RunError: a program breaks the rules; or the compiler is not installed, or at work elsewhere.
    """
    require(out is None or out.endswith(".md"), "--out", out, "a file that ends in .md")

    import jax

    # The TPU's compiler needs no TPU, and must not look for one.
    jax.config.update("jax_platforms", "cpu")

    from rnngen_jax.errors import RunError
    from rnngen_jax.files import replacing
    from rnngen_jax.pods import table, topology
    from rnngen_jax.pods.measuring import measuring

    chosen = table.CONFIGS if configs is None else configs.split(",")
    names = table.TOPOLOGIES if topologies is None else topologies.split(",")
    topology.have_devices(names)
    found, kept = [], None
    if out is not None:
        kept = pathlib.Path(out).with_name(f".{pathlib.Path(out).name}.jsonl")
    for row in table.rows(chosen, names, measuring(kept)):
        found.append(row)
        print(table.line(row), flush=True)
    given = {"configs": configs, "topologies": topologies, "out": out}
    words = [f"--{name}={value}" for name, value in given.items() if value is not None]
    if kept is not None:
        with replacing(out) as temporary:
            temporary.write_text(table.page(found, " ".join(["rnngen pods", *words])))
        kept.unlink(missing_ok=True)
        print(out)
    broken = [f"{row.config} on {row.topology}" for row in found if not row.sound]
    if broken:
        raise RunError(
            f"{', '.join(broken)}: a device does another's work, the network carries more than "
            "sums, or the program does not fit in its memory; see the lines above."
        )
