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

  rnngen evaluate --workdir=runs/gan --classifier=runs/judge
  rnngen evaluate --workdir=runs/gan --classifier=runs/judge --samples=10000 --neighbours=near.png

With --classifier, which `rnngen classifier` makes, any model that samples is also measured by what
it draws: its samples against all images of --split, in the features of that classifier. Beside
these figures stands their floor, those of as many real images of the train split (of test for
--split=train) in the samples' place. They depend on the classifier and on the numbers of images,
and are no FID. A class-conditional model is given the train split's classes. --neighbours shows
the first 16 samples, each beside the 3 training images that are nearest to it pixel by pixel.
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

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
    check_seed,
    check_split,
    check_temperature,
    open_replicas,
)
from rnngen_jax.config import require
from rnngen_jax.errors import RunError, UserError

if TYPE_CHECKING:
    import numpy as np

    from rnngen_jax.data.base import Dataset
    from rnngen_jax.evaluation.classifying import Draw, Judge
    from rnngen_jax.evaluation.latents import Usage
    from rnngen_jax.models.base import Model

SHOWN = 16  # samples in the picture of neighbours
NEIGHBOURS = 3  # training images beside each
FEW = 20  # classes up to which the share of each is printed

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
      samples: how many of them, `None` for as many as the split has images.
      neighbours: the picture to write, or `None`.
      temperature, seed: of the samples, `None` for 1 and 0.

    Returns:
      0.

    Raises:
      UserError: no such run, checkpoint, replica or split, a model with nothing to measure or
        without the bound that is asked for, or a judge that does not fit.
      RunError: a likelihood that is not finite.
    """
    check_split(split)
    require(num >= 0, "--num", num, "0 for all, or 1 or more")
    require(iw_samples >= 0, "--iw_samples", iw_samples, "0 for the ELBO, or 1 or more")
    _check_samples(classifier, samples, neighbours, temperature, seed)
    opened = open_replicas(workdir, checkpoint, replica)

    from rnngen_jax.commands.classifier import open_judge
    from rnngen_jax.evaluation import classifying, likelihood
    from rnngen_jax.files import replacing
    from rnngen_jax.training.replicas import gather, summarise

    first = opened[0]
    judge = None if classifier is None else open_judge(classifier, first.dataset, "--classifier")
    _check_measurable(first.model, judge)
    draw = None
    if judge is not None or neighbours is not None:
        draw = classifying.drawer(first.model, first.dataset, track=bar)
    how = {"seed": seed or 0, "temperature": 1.0 if temperature is None else temperature}
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
    if judge is not None:
        record["samples"] = _judge(judge, draw, opened, split, samples, **how)
    if neighbours is not None:
        images = draw(first.params, first.extra, SHOWN, how["seed"], how["temperature"])
        _write_neighbours(neighbours, images, first.dataset)
    path = first.workdir / "evaluation.json"
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(record, indent=2) + "\n")
    print(f"checkpoint:     step {first.step} of {workdir}{whose}")
    _print_metrics(metrics, len(opened))
    _print_usage(metrics, usages)
    if "cross_entropy" in metrics:
        print(f"{'accuracy:':<15} {metrics['accuracy']:.4f}")
        print(f"{'cross-entropy:':<15} {metrics['cross_entropy']:.4f} nats")
    print(f"protocol:       {likelihood.describe(protocol)}")
    if judge is not None:
        _print_samples(record["samples"], len(opened))
    if neighbours is not None:
        print(f"neighbours:     {neighbours}")
    print(path)
    return 0


def _check_samples(
    classifier: str | None,
    samples: int | None,
    neighbours: str | None,
    temperature: float | None,
    seed: int | None,
) -> None:
    """Raises a `UserError` for flags of samples that do not fit each other."""
    from rnngen_jax.evaluation import pictures

    if classifier is None and samples is not None:
        raise UserError(f"--samples={samples} has no effect without --classifier; give both.")
    for flag, value in (("--temperature", temperature), ("--seed", seed)):
        if value is not None and classifier is None and neighbours is None:
            raise UserError(f"{flag}={value} has no effect without --classifier or --neighbours.")
    if samples is not None:
        require(samples >= 4, "--samples", samples, "4 or more")
    if temperature is not None:
        check_temperature(temperature)
    if seed is not None:
        check_seed(seed)
    if neighbours is not None:
        fits = pictures.ending(neighbours) == ".png"
        require(fits, "--neighbours", neighbours, "a file that ends in .png")


def _check_measurable(model: "Model", judge: "Judge | None") -> None:
    """Raises a `UserError` for a model of which nothing can be measured, and says what would do."""
    has = (model.log_prob, model.latent, model.classify, judge)
    if all(part is None for part in has):
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


def _judge(
    judge: "Judge",
    draw: "Draw",
    opened: Sequence[Run],
    split: str,
    num: int | None,
    seed: int,
    temperature: float,
) -> dict[str, Any]:
    """How the samples of each replica compare with a split: the section `samples`."""
    from rnngen_jax.evaluation import classifying
    from rnngen_jax.training.replicas import gather, summarise

    states = [(run.params, run.extra) for run in opened]
    judged = classifying.judge_samples(
        judge, draw, states, opened[0].dataset, split, num, seed, temperature, track=bar
    )
    return {
        "classifier": judge.name,
        "digest": judge.digest,
        "accuracy": dict(judge.accuracy),
        "split": split,
        **judged.counts,
        "seed": seed,
        "temperature": temperature,
        "metrics": summarise(gather([found.metrics() for found in judged.samples])),
        "missing": [found.missing.tolist() for found in judged.samples],
        "floor": judged.floor.metrics(),
    }


def _write_neighbours(path: str, images: "np.ndarray", dataset: "Dataset") -> None:
    """Writes a picture of samples, uint8 `[N, H, W, C]`, beside their nearest training images."""
    from rnngen_jax.evaluation import classifying, pictures
    from rnngen_jax.evaluation import neighbours as nearness

    read, levels = classifying.reader(dataset, "train"), dataset.spec.levels
    pool = classifying.pool(read, dataset.splits["train"].num, track=bar)
    index, _ = nearness.nearest(images, pool, NEIGHBOURS, levels)
    pictures.write_png(path, nearness.picture(images, index, read, levels))


def _print_samples(section: Mapping[str, Any], replicas: int) -> None:
    """Prints how samples compare with real images, and the floor; ± is over replicas."""
    from rnngen_jax.evaluation.validation import collapse

    metrics, floor = section["metrics"], section["floor"]
    print(
        f"judge:          {section['classifier']}, {section['accuracy']['test']:.4f} right on test"
    )
    print(
        f"samples:        {section['num_samples']}, seed {section['seed']}, temperature "
        f"{section['temperature']:g}, against {section['num_real']} images"
    )
    print(f"floor:          {section['num_floor']} real images in the samples' place")
    print(f"{'':<18} {'samples':>10}{' ' * 9 * (replicas > 1)} {'floor':>10}")
    for name, value in metrics.items():
        if "/" not in name:
            error = f" ± {metrics[f'{name}/standard_error']:.4f}" if replicas > 1 else ""
            print(f"{name:<18} {value:>10.4f}{error} {floor[name]:>10.4f}")
    shares = [metrics[name] for name in floor if name.startswith("class_share/")]
    if len(shares) <= FEW:
        print(f"{'class shares':<18} {' '.join(f'{share:.3f}' for share in shares)}")
    for missing in filter(None, section["missing"]):
        print(collapse(missing))


def _versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    import platform
    from importlib.metadata import version

    from rnngen_jax import __version__

    packages = {name: version(name) for name in ("jax", "jaxlib", "flax", "numpy")}
    return {"rnngen_jax": __version__, "python": platform.python_version(), **packages}
