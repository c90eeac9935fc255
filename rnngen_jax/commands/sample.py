"""Draw images from a trained run.

  rnngen sample --workdir=runs/digits --num=64 --out=digits.png
  rnngen sample --workdir=runs/digits --num=1000 --temperature=0.8 --out=digits.npz
  rnngen sample --workdir=runs/digits --num=10 --out=pictures/

--out ends in .png for one grid, in .npz for the array `image` of grey levels (uint8
[N, H, W, C], with `levels`, and `label` for a class-conditional model), or in / for a folder of
single PNGs. Without --label, a class-conditional model goes round its classes, 0, 1, 2, ... The
same seed gives the same images, and --num=10 gives the first ten of --num=1000.
"""

from rnngen_jax.commands.base import (
    CHECKPOINT,
    LABEL,
    NUM,
    OUT,
    REPLICA,
    SEED,
    TEMPERATURE,
    WORKDIR,
    bar,
    check_amount,
    check_label,
    check_seed,
    check_temperature,
    open_run,
)
from rnngen_jax.config import require

FLAGS = (
    WORKDIR,
    CHECKPOINT,
    REPLICA,
    NUM._replace(default=64),
    LABEL._replace(help="the class, a number, or all to go round the classes", default="all"),
    TEMPERATURE,
    SEED,
    OUT._replace(default="samples.png", help="FILE.png (a grid), FILE.npz or FOLDER/"),
)


def run(
    workdir: str,
    checkpoint: str | None,
    replica: int,
    num: int,
    label: str,
    temperature: float,
    seed: int,
    out: str,
) -> int:
    """Samples.

    Args:
      workdir: the run's folder.
      checkpoint: "best", "latest", a step, or `None`.
      replica: which replica of a run of several.
      num: how many images.
      label: a class, or "all".
      temperature: what logits are divided by.
      seed: seed of the draw.
      out: what to write.

    Returns:
      0.

    Raises:
      UserError: a flag that does not fit, no such run, checkpoint or replica, or a model that
        cannot sample.
    """
    require(num >= 1, "--num", num, "1 or more")
    check_seed(seed)
    check_temperature(temperature)
    from rnngen_jax.evaluation import pictures

    pictures.require_out(out, folder=True)
    opened = open_run(workdir, checkpoint, replica)
    check_amount("--num", num, opened.model.spec, out)

    import jax
    import numpy as np

    from rnngen_jax.evaluation import sampling

    one = check_label(None if label == "all" else label, opened.model)
    labels = sampling.cycled(opened.model, num) if one is None else np.full(num, one, np.int32)
    images = sampling.sampler(opened.model, bar)(
        opened.params, opened.extra, jax.random.key(seed), num, labels, temperature
    )
    pictures.write_samples(out, images, labels, opened.model.spec.levels)
    print(out)
    return 0
