"""Measure a run's likelihood on a whole split, and say by which protocol.

  rnngen evaluate --workdir=runs/digits
  rnngen evaluate --workdir=runs/digits --split=validation --checkpoint=latest
  rnngen evaluate --workdir=runs/vae --iw_samples=1000 --num=1000

Prints nats per image and bits per dimension with their standard errors, and writes them to
WORKDIR/evaluation.json. The numbers do not depend on the batch size. A run of several replicas is
measured replica by replica: the numbers are the mean over them and its standard error.

The likelihood of a model of latent variables is a bound: the ELBO, or with --iw_samples=K the
importance-weighted bound of K draws, which is tighter and costs K passes an image. Besides, the
reconstruction's and the KL's nats, the squared error of reconstructions, and how many latent
variables are in use; evaluation.json has the KL of each.
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rnngen_jax.commands.base import (
    CHECKPOINT,
    NUM,
    REPLICA,
    SPLIT,
    WORKDIR,
    Flag,
    Run,
    bar,
    check_split,
    open_replicas,
)
from rnngen_jax.config import require
from rnngen_jax.errors import RunError

if TYPE_CHECKING:
    from rnngen_jax.evaluation.latents import Usage

FLAGS = (
    WORKDIR,
    CHECKPOINT,
    REPLICA._replace(help=f"{REPLICA.help}; by default all of them", default=None),
    SPLIT,
    NUM._replace(help="how many images, from the split's start; 0 for all", default=0),
    Flag(
        "iw_samples",
        "integer",
        "draws of the latents for the importance-weighted bound; 0 for the ELBO",
        0,
    ),
)


def run(
    workdir: str,
    checkpoint: str | None,
    replica: int | None,
    split: str,
    num: int,
    iw_samples: int,
) -> int:
    """Evaluates.

    Args:
      workdir: the run's folder.
      checkpoint: "best", "latest", a step, or `None`.
      replica: which replica of a run of several, or `None` for all.
      split: the split to score.
      num: how many images, 0 for all.
      iw_samples: of the importance-weighted bound, 0 for the model's own likelihood.

    Returns:
      0.

    Raises:
      UserError: no such run, checkpoint, replica or split, or a model with neither a likelihood nor
        latents, or without the bound that is asked for.
      RunError: a likelihood that is not finite.
    """
    check_split(split)
    require(num >= 0, "--num", num, "0 for all, or 1 or more")
    require(iw_samples >= 0, "--iw_samples", iw_samples, "0 for the ELBO, or 1 or more")
    opened = open_replicas(workdir, checkpoint, replica)

    from rnngen_jax.evaluation import likelihood
    from rnngen_jax.files import replacing
    from rnngen_jax.training.replicas import gather, summarise

    first = opened[0]
    scores = _measure(opened, split, num, iw_samples)
    usages = _inspect(opened, split, num)
    each = [score | usage for score, (usage, _) in zip(scores, usages, strict=True)]
    metrics = summarise(gather(each))
    available = first.dataset.splits[split].num
    num_images = min(num, available) if num else available
    protocol = likelihood.protocol(
        first.model, first.dataset, split, num_images, len(opened), iw_samples
    )
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
    if first.model.latent is not None:
        record["latents"] = [arrays for _, arrays in usages]
    path = first.workdir / "evaluation.json"
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(record, indent=2) + "\n")
    print(f"checkpoint:     step {first.step} of {workdir}{whose}")
    _print_metrics(metrics, len(opened))
    _print_usage(metrics, usages)
    print(f"protocol:       {likelihood.describe(protocol)}")
    print(path)
    return 0


def _measure(
    opened: Sequence[Run], split: str, num: int, iw_samples: int
) -> list[dict[str, float]]:
    """The likelihood of each replica, with one compiled program; nothing without a likelihood.

    Beside an importance-weighted bound stands the ELBO.
    """
    from rnngen_jax.data.transforms import evaluation_transform
    from rnngen_jax.evaluation import likelihood

    first = opened[0]
    if first.model.log_prob is None and first.model.latent is not None and not iw_samples:
        return [{} for _ in opened]
    transform = evaluation_transform(first.dataset)
    score = likelihood.scorer(first.model, transform, iw_samples)
    own = likelihood.scorer(first.model, transform) if iw_samples else None

    def evaluated(score: likelihood.Score, run: Run) -> likelihood.Result:
        result = likelihood.evaluate(
            score,
            run.params,
            run.extra,
            run.dataset.splits[split],
            run.model.spec.dims,
            run.experiment.evaluation.batch_size,
            num,
            track=bar,
        )
        if not math.isfinite(result.nats_per_image):
            whose = f" of replica {run.replica}" if run.experiment.training.replicas > 1 else ""
            raise RunError(
                f"the likelihood{whose} of {run.workdir} at step {run.step} is not finite; "
                "give another --checkpoint."
            )
        return result

    found = []
    for run in opened:
        result = evaluated(score, run)
        metrics = {
            "nats_per_image": result.nats_per_image,
            "nats_per_image_error": result.nats_per_image_error,
            "bits_per_dim": result.bits_per_dim,
            "bits_per_dim_error": result.bits_per_dim_error,
        }
        if own is not None:
            metrics["elbo_nats_per_image"] = evaluated(own, run).nats_per_image
        found.append(metrics)
    return found


def _inspect(
    opened: Sequence[Run], split: str, num: int
) -> list[tuple[dict[str, float], dict[str, Any]]]:
    """Of each replica how its latents are used: scalars, and lists `[S, Z]` by name."""
    if opened[0].model.latent is None:
        return [({}, {}) for _ in opened]
    from rnngen_jax.data.transforms import evaluation_transform
    from rnngen_jax.evaluation import latents

    look = latents.inspector(opened[0].model, evaluation_transform(opened[0].dataset))

    def of(run: Run) -> "Usage":
        data, batch_size = run.dataset.splits[split], run.experiment.evaluation.batch_size
        return latents.measure(look, run.params, run.extra, data, batch_size, num, track=bar)

    found = []
    for usage in map(of, opened):
        arrays = {"variance": usage.variance.tolist()}
        if usage.kl is not None:
            arrays["kl"] = usage.kl.tolist()
        found.append((usage.metrics(), arrays))
    return found


def _print_metrics(metrics: Mapping[str, float], replicas: int) -> None:
    """Prints the likelihood; ± is over images, or over replicas where there are several."""
    if "nats_per_image" not in metrics:
        return
    error = "_error" if replicas == 1 else "/standard_error"
    for title, name in (("nats per image:", "nats_per_image"), ("bits per dim:", "bits_per_dim")):
        print(f"{title:<15} {metrics[name]:.4f} ± {metrics[name + error]:.4f}")
        if replicas > 1:
            each = (f"{metrics[f'{name}/replica_{r}']:.4f}" for r in range(replicas))
            print(f"{'  of each:':<15} {', '.join(each)}")


def _print_usage(
    metrics: Mapping[str, float], usages: Sequence[tuple[dict[str, float], dict[str, Any]]]
) -> None:
    """Prints what a bound is made of, means over replicas, and the KL of each step."""
    if "active_units" not in metrics:
        return
    if "elbo_nats_per_image" in metrics:
        print(f"{'ELBO:':<15} {metrics['elbo_nats_per_image']:.4f} nats")
    print(
        f"{'reconstruction:':<15} {metrics['reconstruction_nats']:.4f} nats, squared error", end=""
    )
    print(f" {metrics['mean_squared_error']:.5f}")
    variance = usages[0][1]["variance"]
    print(f"{'active units:':<15} {metrics['active_units']:g} of {sum(map(len, variance))}")
    if "kl" in metrics:
        print(f"{'KL:':<15} {metrics['kl']:.4f} nats", end="")
        each = [sum(step) for step in usages[0][1]["kl"]]
        print(f"; by step {' '.join(f'{nats:.2f}' for nats in each)}" if len(each) > 1 else "")


def _versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    import platform
    from importlib.metadata import version

    from rnngen_jax import __version__

    packages = {name: version(name) for name in ("jax", "jaxlib", "flax", "numpy")}
    return {"rnngen_jax": __version__, "python": platform.python_version(), **packages}
