"""Measure a run's likelihood on a whole split, and say by which protocol.

  rnngen evaluate --workdir=runs/digits
  rnngen evaluate --workdir=runs/digits --split=validation --checkpoint=latest

Prints nats per image and bits per dimension with their standard errors, and writes them to
WORKDIR/evaluation.json. The numbers do not depend on the batch size. A run of several replicas is
measured replica by replica: the numbers are the mean over them and its standard error.
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rnngen_jax.commands.base import (
    CHECKPOINT,
    REPLICA,
    SPLIT,
    WORKDIR,
    Run,
    bar,
    check_split,
    open_replicas,
)
from rnngen_jax.errors import RunError

if TYPE_CHECKING:
    from rnngen_jax.evaluation.likelihood import Result

FLAGS = (
    WORKDIR,
    CHECKPOINT,
    REPLICA._replace(help=f"{REPLICA.help}; by default all of them", default=None),
    SPLIT,
)


def run(workdir: str, checkpoint: str | None, replica: int | None, split: str) -> int:
    """Evaluates.

    Args:
      workdir: the run's folder.
      checkpoint: "best", "latest", a step, or `None`.
      replica: which replica of a run of several, or `None` for all.
      split: the split to score.

    Returns:
      0.

    Raises:
      UserError: no such run, checkpoint, replica or split, or a model without a likelihood.
      RunError: a likelihood that is not finite.
    """
    check_split(split)
    opened = open_replicas(workdir, checkpoint, replica)

    from rnngen_jax.evaluation import likelihood
    from rnngen_jax.files import replacing
    from rnngen_jax.training.replicas import gather, summarise

    results = _measure(opened, split)
    first, num_images = opened[0], results[0].num_images
    metrics = summarise(gather([_metrics(result) for result in results]))
    protocol = likelihood.protocol(first.model, first.dataset, split, num_images, len(opened))
    record = {
        "step": first.step,
        "dataset": first.dataset.name,
        "split": split,
        "num_images": num_images,
        "metrics": metrics,
        "protocol": protocol,
        "versions": _versions(),
    }
    whose = "" if len(opened) == 1 else f", {len(opened)} replicas"
    if len(opened) < first.experiment.training.replicas:  # one of several, by --replica
        record["replica"] = first.replica
        whose = f", replica {first.replica}"
    path = first.workdir / "evaluation.json"
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(record, indent=2) + "\n")
    print(f"checkpoint:     step {first.step} of {workdir}{whose}")
    _print_metrics(metrics, len(opened))
    print(f"protocol:       {likelihood.describe(protocol)}")
    print(path)
    return 0


def _measure(opened: Sequence[Run], split: str) -> "list[Result]":
    """The likelihood of each replica, with one compiled program."""
    from rnngen_jax.data.transforms import evaluation_transform
    from rnngen_jax.evaluation import likelihood

    score = likelihood.scorer(opened[0].model, evaluation_transform(opened[0].dataset))
    results = []
    for run in opened:
        result = likelihood.evaluate(
            score,
            run.params,
            run.extra,
            run.dataset.splits[split],
            run.model.spec.dims,
            run.experiment.evaluation.batch_size,
            track=bar,
        )
        if not math.isfinite(result.nats_per_image):
            whose = f" of replica {run.replica}" if run.experiment.training.replicas > 1 else ""
            raise RunError(
                f"the likelihood{whose} of {run.workdir} at step {run.step} is not finite; "
                "give another --checkpoint."
            )
        results.append(result)
    return results


def _metrics(result: "Result") -> dict[str, float]:
    """What goes into evaluation.json of one replica's likelihood."""
    return {
        "nats_per_image": result.nats_per_image,
        "nats_per_image_error": result.nats_per_image_error,
        "bits_per_dim": result.bits_per_dim,
        "bits_per_dim_error": result.bits_per_dim_error,
    }


def _print_metrics(metrics: Mapping[str, float], replicas: int) -> None:
    """Prints the likelihood; ± is over images, or over replicas where there are several."""
    error = "_error" if replicas == 1 else "/standard_error"
    for title, name in (("nats per image:", "nats_per_image"), ("bits per dim:", "bits_per_dim")):
        print(f"{title:<15} {metrics[name]:.4f} ± {metrics[name + error]:.4f}")
        if replicas > 1:
            each = (f"{metrics[f'{name}/replica_{r}']:.4f}" for r in range(replicas))
            print(f"{'  of each:':<15} {', '.join(each)}")


def _versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    import platform
    from importlib.metadata import version

    from rnngen_jax import __version__

    packages = {name: version(name) for name in ("jax", "jaxlib", "flax", "numpy")}
    return {"rnngen_jax": __version__, "python": platform.python_version(), **packages}
