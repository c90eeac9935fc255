"""Measure a run's likelihood on a whole split, and say by which protocol.

  rnngen evaluate --workdir=runs/digits
  rnngen evaluate --workdir=runs/digits --split=validation --checkpoint=latest

Prints nats per image and bits per dimension with their standard errors, and writes them to
WORKDIR/evaluation.json. The numbers do not depend on the batch size.
"""

import json
import math

from rnngen_jax.commands.base import CHECKPOINT, SPLIT, WORKDIR, bar, check_split, open_run
from rnngen_jax.errors import RunError

FLAGS = (WORKDIR, CHECKPOINT, SPLIT)


def run(workdir: str, checkpoint: str | None, split: str) -> int:
    """Evaluates.

    Args:
      workdir: the run's folder.
      checkpoint: "best", "latest", a step, or `None`.
      split: the split to score.

    Returns:
      0.

    Raises:
      UserError: no such run, checkpoint or split, or a model without a likelihood.
      RunError: a likelihood that is not finite.
    """
    check_split(split)
    opened = open_run(workdir, checkpoint)

    from rnngen_jax.data.transforms import evaluation_transform
    from rnngen_jax.evaluation import likelihood
    from rnngen_jax.files import replacing

    result = likelihood.evaluate(
        likelihood.scorer(opened.model, evaluation_transform(opened.dataset)),
        opened.params,
        opened.extra,
        opened.dataset.splits[split],
        opened.model.spec.dims,
        opened.experiment.evaluation.batch_size,
        track=bar,
    )
    if not math.isfinite(result.nats_per_image):
        raise RunError(
            f"the likelihood of {workdir} at step {opened.step} is not finite; "
            "give another --checkpoint."
        )
    protocol = likelihood.protocol(opened.model, opened.dataset, split, result.num_images)
    record = {
        "step": opened.step,
        "dataset": opened.dataset.name,
        "split": split,
        "num_images": result.num_images,
        "metrics": {
            "nats_per_image": result.nats_per_image,
            "nats_per_image_error": result.nats_per_image_error,
            "bits_per_dim": result.bits_per_dim,
            "bits_per_dim_error": result.bits_per_dim_error,
        },
        "protocol": protocol,
        "versions": _versions(),
    }
    path = opened.workdir / "evaluation.json"
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(record, indent=2) + "\n")
    print(f"checkpoint:     step {opened.step} of {workdir}")
    print(f"nats per image: {result.nats_per_image:.4f} ± {result.nats_per_image_error:.4f}")
    print(f"bits per dim:   {result.bits_per_dim:.4f} ± {result.bits_per_dim_error:.4f}")
    print(f"protocol:       {likelihood.describe(protocol)}")
    print(path)
    return 0


def _versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    import platform
    from importlib.metadata import version

    from rnngen_jax import __version__

    packages = {name: version(name) for name in ("jax", "jaxlib", "flax", "numpy")}
    return {"rnngen_jax": __version__, "python": platform.python_version(), **packages}
