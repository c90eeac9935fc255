"""Judges of samples: a trained classifier, the Inception network, and a picture to look at."""

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax

from rnngen_jax import paths
from rnngen_jax.data.base import Dataset
from rnngen_jax.errors import UserError
from rnngen_jax.evaluation import classifying, pictures, records
from rnngen_jax.evaluation import neighbours as nearness
from rnngen_jax.evaluation.classifying import Classify, Judge, Judged, Sample
from rnngen_jax.evaluation.inception import RESIZE, Inception, open_inception
from rnngen_jax.experiment import Experiment
from rnngen_jax.models.frozen import Frozen
from rnngen_jax.paths import Path
from rnngen_jax.runs.run import Run, load
from rnngen_jax.shapes import ImageSpec
from rnngen_jax.training.seeds import gather, summarise

SHOWN = 16  # samples in the picture of neighbours
NEIGHBOURS = 3  # training images beside each sample
DISTANCES = ("frechet", "kid", "kid_error", "precision", "recall", "density", "coverage")


class Asked(NamedTuple):
    """Which samples to judge, against which real images.

    Attributes:
      split: split of the real images.
      num: number of samples, or `None` for as many as the split has images.
      seed, temperature: of the samples.
    """

    split: str
    num: int | None
    seed: int
    temperature: float


def open_judge(workdir: str | os.PathLike[str], dataset: Dataset, where: str) -> Judge:
    """Opens a trained classifier as the judge of a run's images; does not read its own data.

    Args:
      workdir: the classifier's folder.
      dataset: the run's data.
      where: the flag or field that names the folder, such as "--classifier".

    Raises:
      UserError: not a classifier, one for other images, or one whose parameters have not been
        evaluated on the whole test split.
    """
    folder, where = paths.of(workdir), f"{where}={workdir}"
    run = open_classifier(folder, where)
    digest, data = run.digest.hex(), run.experiment.data
    # Evaluations of a part of a split, by --num, do not count.
    accuracy = {
        record["split"]: record["metrics"]["accuracy"]
        for record in records.read(folder)
        if record.get("digest") == digest
        and "accuracy" in record["metrics"]
        and record["num_images"] == record.get("split_images")
    }
    if "test" not in accuracy:
        raise UserError(
            f"{where} has not been evaluated on the whole test split, so its accuracy is unknown; "
            f"run rnngen evaluate --workdir={folder} first."
        )
    judge = classifying.make_judge(
        run.model, run.params, run.extra, data.name, data.binarisation, digest, accuracy
    )
    classifying.require_fit(judge, dataset, where)
    return judge


def open_classifier(folder: Path, where: str) -> Run:
    """Opens the run of a trained classifier.

    Args:
      folder: the run's.
      where: the flag or field that names it, with its value.

    Raises:
      UserError: no such run, or not one of a classifier.
    """
    try:
        run = load(folder)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    if run.model.classify is None:
        raise UserError(f"{where} must hold a run of classifier, got {run.model.name}.")
    return run


def open_perceptual(settings: Experiment, dataset: Dataset) -> Run:
    """Opens the classifier of a perceptual loss, which need not have been evaluated.

    Args:
      settings: of the run; `settings.perceptual` names the classifier's.
      dataset: the run's data.

    Raises:
      UserError: not a classifier, or one for other images.
    """
    where = f"config.perceptual={settings.perceptual}"
    run = open_classifier(paths.of(settings.perceptual), where)
    data = run.experiment.data
    trained = classifying.Trained(data.name, run.spec, data.binarisation)
    classifying.require_fit(trained, dataset, where)
    return run


def adopt(settings: Experiment, run: Run) -> tuple[Experiment, Frozen]:
    """Settings with the fields and digest of a perceptual loss's classifier, and its arrays.

    Args:
      settings: of the run.
      run: the classifier's.
    """
    found = replace(settings, judge=run.experiment.model, perceptual_digest=run.digest.hex())
    return found, Frozen(run.params, run.extra)


def open_network(path: str | None, spec: ImageSpec) -> Inception | None:
    """Opens the Inception network for images like `spec`; `None` without a file."""
    if path is None:
        return None
    return open_inception(path, spec.levels, spec.channels)


def by_classifier(
    judge: Judge, sample: Sample, opened: Sequence[Run], asked: Asked
) -> dict[str, Any]:
    """Compares the samples of each seed with a split: the record's section `samples`."""
    judged, section = _compared(judge.classify, sample, opened, asked)
    return {
        "classifier": judge.name,
        "digest": judge.digest,
        "accuracy": dict(judge.accuracy),
        **section,
        "missing": [found.missing.tolist() for found in judged.samples],
    }


def by_inception(
    network: Inception, sample: Sample, opened: Sequence[Run], asked: Asked
) -> dict[str, Any]:
    """Compares in the Inception network's features, without metrics of classes: `inception`."""
    _, section = _compared(network.classify, sample, opened, asked)
    for part in ("metrics", "baseline"):
        found = section[part]
        section[part] = {name: found[name] for name in found if name.split("/")[0] in DISTANCES}
    return {
        "inception": network.name,
        "digest": network.digest,
        "resize": RESIZE,
        **section,
    }


def _compared(
    classify: Classify, sample: Sample, opened: Sequence[Run], asked: Asked
) -> tuple[Judged, dict[str, Any]]:
    """Judges samples against a split; returns the result and the fields that sections share."""
    states = [(run.params, run.extra) for run in opened]
    dataset, track = opened[0].dataset, opened[0].track
    judged = classifying.judge_samples(classify, sample, states, dataset, *asked, track=track)
    return judged, {
        "split": asked.split,
        **judged.counts,
        "seed": asked.seed,
        "temperature": asked.temperature,
        "metrics": summarise(gather([found.metrics() for found in judged.samples]), opened[0].seed),
        "baseline": judged.baseline.metrics(),
    }


def write_neighbours(path: str, run: Run, seed: int, temperature: float) -> None:
    """Writes a picture of samples beside their nearest training images, from the first process."""
    dataset = run.dataset
    sample = classifying.sampler(run.model, dataset, track=run.track)
    images = sample(run.params, run.extra, SHOWN, seed, temperature)
    read, levels = classifying.reader(dataset, "train"), dataset.spec.levels
    if jax.process_index() != 0:
        return
    pool = classifying.pool(read, dataset.splits["train"].num, track=run.track)
    index, _ = nearness.nearest(images, pool, NEIGHBOURS, levels)
    pictures.write_png(path, nearness.picture(images, index, read, levels))
