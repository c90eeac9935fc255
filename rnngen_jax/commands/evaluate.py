"""Measure a run's likelihood on a whole split, and say by which protocol.

  rnngen evaluate --workdir=runs/digits
  rnngen evaluate --workdir=runs/digits --split=validation --checkpoint=latest
  rnngen evaluate --workdir=runs/vae --iw_samples=1000 --num=1000

Prints nats per image and bits per dimension with their standard errors. The numbers do not depend
on the batch size. A run of several replicas is measured replica by replica: the numbers are the
mean over them and its standard error.

Appends them to WORKDIR/evaluations.jsonl, one JSON object per line and evaluation, of which nothing
is ever overwritten, with the step, the protocol, the time, and a digest of the model and the
parameters that were evaluated; WORKDIR/evaluation.json is the newest of them.

The likelihood of a model of latent variables is a bound: the ELBO, or with --iw_samples=K the
importance-weighted bound of K draws, which is tighter and costs K passes an image. Besides, the
reconstruction's and the KL's nats, the squared error of reconstructions, and how many latent
variables are in use; evaluation.json has the KL of each.

  rnngen evaluate --workdir=runs/gan --classifier=runs/judge
  rnngen evaluate --workdir=runs/gan --classifier=runs/judge --samples=10000 --neighbours=near.png

With --classifier, which `rnngen classifier` makes, any model that samples is also measured by what
it draws: its samples against all images of --split, in the features of that classifier. Beside
these figures stands their floor, those of as many real images of the train split (of test for
--split=train) in the samples' place. They depend on the classifier and on the numbers of images,
and are no FID. A class-conditional model is given the train split's classes. --neighbours shows
the first 16 samples, each beside the 3 training images that are nearest to it pixel by pixel.

  rnngen evaluate --workdir=runs/gan --inception=weights-inception-2015-12-05-6726825d.pth

With --inception, a file of the weights that torch-fidelity publishes, the same in the features of
the Inception network, whose Fréchet distance is the FID; with other weights the figures are named
after them. Grey images are repeated to RGB, and all are resized bilinearly to 299x299; a CPU does
a few images a second.
"""

import datetime
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rnngen_jax.commands import figures, judging
from rnngen_jax.commands.base import (
    CHECKPOINT,
    NUM,
    REPLICA,
    SEED,
    SPLIT,
    TEMPERATURE,
    WORKDIR,
    Flag,
    Run,
    bar,
    check_amount,
    check_split,
    model_digest,
    open_replicas,
)
from rnngen_jax.config import require
from rnngen_jax.errors import RunError, UserError

if TYPE_CHECKING:
    from rnngen_jax.evaluation.latents import Usage
    from rnngen_jax.models.base import Model

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
    Flag("classifier", "string", "folder of the classifier that judges samples"),
    Flag("inception", "string", "file of torch-fidelity's Inception weights, for the FID"),
    Flag("samples", "integer", "how many samples; by default as many as the split has images"),
    Flag("neighbours", "string", "FILE.png to write, of samples and their nearest training images"),
    TEMPERATURE._replace(help=f"of samples; {TEMPERATURE.help}; by default 1", default=None),
    SEED._replace(help="of samples, 0 or more; by default 0", default=None),
)


def run(
    workdir: str,
    checkpoint: str | None,
    replica: int | None,
    split: str,
    num: int,
    iw_samples: int,
    classifier: str | None,
    inception: str | None,
    samples: int | None,
    neighbours: str | None,
    temperature: float | None,
    seed: int | None,
) -> int:
    """Evaluates.

    Args:
      workdir: the run's folder.
      checkpoint: "best", "latest", a step, or `None`.
      replica: which replica of a run of several, or `None` for all.
      split: the split to score.
      num: how many images, 0 for all.
      iw_samples: of the importance-weighted bound, 0 for the model's own likelihood.
      classifier: folder of the samples' judge, or `None`.
      inception: file of the Inception network's weights, or `None`.
      samples: how many of them, `None` for as many as the split has images.
      neighbours: the picture to write, or `None`.
      temperature, seed: of the samples, `None` for 1 and 0.

    Returns:
      0.

    Raises:
      UserError: no such run, checkpoint, replica or split, a model with nothing to measure or
        without the bound that is asked for, or a judge that does not fit.
      RunError: a likelihood that is not finite.
      OSError: the record cannot be written.
    """
    check_split(split)
    require(num >= 0, "--num", num, "0 for all, or 1 or more")
    require(iw_samples >= 0, "--iw_samples", iw_samples, "0 for the ELBO, or 1 or more")
    judging.check(classifier, inception, samples, neighbours, temperature, seed)
    opened = open_replicas(workdir, checkpoint, replica)

    from rnngen_jax.commands.classifier import open_judge
    from rnngen_jax.evaluation import classifying, likelihood, records
    from rnngen_jax.training.replicas import gather, summarise

    first = opened[0]
    judge = None if classifier is None else open_judge(classifier, first.dataset, "--classifier")
    network = judging.open_network(inception, first.dataset.spec)
    _check_measurable(first.model, judge is not None or network is not None)
    draw = None
    if judge is not None or network is not None or neighbours is not None:
        draw = classifying.drawer(first.model, first.dataset, track=bar)
    asked = judging.Asked(split, samples, seed or 0, 1.0 if temperature is None else temperature)
    check_amount("--samples", samples or 0, first.model.spec, "memory")
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
        "digest": _digest(opened),
        "dataset": first.dataset.name,
        "split": split,
        "num_images": num_images,
        "metrics": metrics,
        "protocol": protocol,
        "versions": _versions(),
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    whose = "" if len(opened) == 1 else f", {len(opened)} replicas"
    if len(opened) < first.experiment.training.replicas:  # one of several, by --replica
        record["replica"] = first.replica
        whose = f", replica {first.replica}"
    if first.model.latent is not None:
        record["latents"] = [arrays for _, arrays in usages]
    if judge is not None:
        record["samples"] = judging.by_classifier(judge, draw, opened, asked)
    if network is not None:
        record["inception"] = judging.by_inception(network, draw, opened, asked)
    if neighbours is not None:
        judging.write_neighbours(neighbours, draw, first, asked)
    print(f"checkpoint:     step {first.step} of {workdir}{whose}")
    figures.print_metrics(metrics, len(opened))
    figures.print_usage(metrics, usages)
    if "cross_entropy" in metrics:
        print(f"{'accuracy:':<15} {metrics['accuracy']:.4f}")
        print(f"{'cross-entropy:':<15} {metrics['cross_entropy']:.4f} nats")
    print(f"protocol:       {likelihood.describe(protocol)}")
    for name in ("samples", "inception"):
        if name in record:
            figures.print_samples(record[name], len(opened))
    if neighbours is not None:
        print(f"neighbours:     {neighbours}")
    # Last, so that a folder that cannot be written to does not cost the figures.
    records.add(first.workdir, record)
    print(first.workdir / records.NEWEST)
    return 0


def _check_measurable(model: "Model", judged: bool) -> None:
    """Raises a `UserError` for a model of which nothing can be measured, and says what would do."""
    has = (model.log_prob, model.latent, model.classify)
    if not judged and all(part is None for part in has):
        raise UserError(
            f"{model.name} has neither a likelihood nor latents; give --classifier=FOLDER to have "
            "its samples judged, by what rnngen classifier makes."
        )


def _measure(
    opened: Sequence[Run], split: str, num: int, iw_samples: int
) -> list[dict[str, float]]:
    """The likelihood of each replica, with one compiled program; nothing without a likelihood.

    Beside an importance-weighted bound stands the ELBO. Of classifiers, how well they do.
    """
    from rnngen_jax.data.transforms import evaluation_transform
    from rnngen_jax.evaluation import classifying, likelihood

    first = opened[0]
    transform = evaluation_transform(first.dataset)
    if first.model.classify is not None and not iw_samples:
        classified = classifying.scorer(first.model, transform)
        data, size = first.dataset.splits[split], first.experiment.evaluation.batch_size
        return [
            classifying.measure(classified, run.params, run.extra, data, size, num, track=bar)
            for run in opened
        ]
    if first.model.log_prob is None and not iw_samples:
        return [{} for _ in opened]
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


def _digest(opened: Sequence[Run]) -> str:
    """Tells a model and its parameters from all others, with several replicas all of theirs."""
    from rnngen_jax.evaluation import container

    each = [model_digest(run) for run in opened]
    return (each[0] if len(each) == 1 else container.digest(each)).hex()


def _versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    import platform
    from importlib.metadata import version

    from rnngen_jax import __version__

    packages = {name: version(name) for name in ("jax", "jaxlib", "flax", "numpy")}
    return {"rnngen_jax": __version__, "python": platform.python_version(), **packages}
