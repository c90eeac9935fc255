"""Train a classifier once, whose features then judge samples of every model, offline.

  rnngen classifier --config=classifier:digits --workdir=runs/judge
  rnngen evaluate --workdir=runs/gan --classifier=runs/judge
  rnngen train --config=... --workdir=runs/gan --config.evaluation.classifier=runs/judge

Trains as `train` does, and goes on with a training that was interrupted. Then it measures the
accuracy on the train and the test split, and writes WORKDIR/classifier.json: the accuracies, which
images they are of, and a digest of the parameters. Of a classifier that is trained already it only
reports. The digest's beginning is part of the name that the classifier's figures go by: figures of
two classifiers cannot be compared.

A classifier judges images of its own data set and binarisation alone, such as
--config.data.binarisation=static for a run of that binarisation.
"""

import json
import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rnngen_jax.commands.base import (
    CONFIG,
    PREEMPTED_EXIT_CODE,
    WORKDIR,
    Run,
    bar,
    model_digest,
    start_backend,
)
from rnngen_jax.config import require
from rnngen_jax.errors import UserError

if TYPE_CHECKING:
    from rnngen_jax.data.base import Dataset
    from rnngen_jax.evaluation.classifying import Judge
    from rnngen_jax.experiment import Experiment
    from rnngen_jax.shapes import ImageSpec

FLAGS = (
    CONFIG._replace(help=f"{CONFIG.help}; not needed for a run that is there"),
    WORKDIR._replace(help="the classifier's folder, made if missing"),
    PREEMPTED_EXIT_CODE,
)

RECORD = "classifier.json"
# What the record says, and of which type.
_FIELDS = {
    "dataset": str,
    "binarisation": str,
    "spec": dict,
    "accuracy": dict,
    "digest": str,
    "features": int,
    "step": int,
    "versions": dict,
}


def run(config: Any, workdir: str, preempted_exit_code: int) -> int:
    """Trains a classifier, unless it is trained already, and reports on it.

    Args:
      config: the `ConfigDict` of --config, or `None` for a run that is there.
      workdir: the run's folder.
      preempted_exit_code: what a process ends with that SIGTERM has asked to.

    Returns:
      0, also when the training was asked to end early.

    Raises:
      UserError: a config that does not fit, or a folder that holds another run.
      RunError: the training failed.
    """
    from rnngen_jax import experiment
    from rnngen_jax.commands import train

    folder = pathlib.Path(workdir)
    if config is None:
        if not (folder / "config.json").exists():
            raise UserError(f"{folder} holds no run; give --config=classifier.")
        config = experiment.to_dict(experiment.from_json(folder / "config.json"))
    settings = experiment.check(config)
    require(settings.name == "classifier", "config.model.name", settings.name, "classifier")
    given = settings.training.replicas
    require(given == 1, "config.training.replicas", given, "1 for a classifier")
    train.refuse_other_run(folder, settings)
    if not _is_trained(folder, settings):
        train.run(config, workdir, preempted_exit_code)
        if not _is_trained(folder, settings):
            return 0  # interrupted, of which the training has told

    import jax

    if jax.process_index() == 0:
        _report(folder, _recorded(folder))
    return 0


def open_judge(workdir: str, dataset: "Dataset", where: str) -> "Judge":
    """Opens a classifier as the judge of a run's images.

    Args:
      workdir: the classifier's folder.
      dataset: the run's.
      where: the flag or field that names the folder, such as "--classifier".

    Raises:
      UserError: no classifier there, one of other images, or one whose parameters are no longer
        those that were measured.
    """
    from rnngen_jax.evaluation import classifying
    from rnngen_jax.shapes import ImageSpec

    folder, where = pathlib.Path(workdir), f"{where}={workdir}"
    again = f"rnngen classifier --workdir={folder}"
    if not (folder / RECORD).exists():
        raise UserError(
            f"{where} holds no {RECORD}; rnngen classifier --config=classifier "
            f"--workdir={folder} makes it."
        )
    record = _read(folder)
    if record is None:
        raise UserError(f"{folder / RECORD} is damaged; {again} measures anew.")
    spec = ImageSpec(**record["spec"])
    opened = _open(folder, str(record["step"]), spec)
    if model_digest(opened).hex() != record["digest"]:
        raise UserError(
            f"{where}: the parameters are not those that {RECORD} was written for; "
            f"{again} measures anew."
        )
    judge = classifying.make_judge(
        opened.model,
        opened.params,
        opened.extra,
        record["dataset"],
        record["binarisation"],
        record["digest"],
        record["accuracy"],
    )
    classifying.require_fit(judge, dataset, where)
    return judge


def _is_trained(folder: pathlib.Path, settings: "Experiment") -> bool:
    """Whether the training has come to its end: its last step, or where its patience ended."""
    from rnngen_jax.training.checkpoints import open_checkpoints

    with open_checkpoints(folder / "checkpoints") as checkpoints:
        steps = checkpoints.steps()
    if not steps:
        return False
    if steps[-1] >= settings.training.steps:
        return True
    return bool(settings.training.patience) and _is_out_of_patience(folder, settings)


def _is_out_of_patience(folder: pathlib.Path, settings: "Experiment") -> bool:
    """Whether the validations at the metrics' end are as many without a best as is allowed."""
    from rnngen_jax.training import sinks

    lines = sinks.read(folder / "metrics.jsonl")
    scores = [line["cross_entropy"] for line in lines if line.get("split") == "validation"]
    stale = len(scores) - 1 - scores.index(min(scores)) if scores else 0
    return stale >= settings.training.patience


def _open(folder: pathlib.Path, checkpoint: str | None, spec: "ImageSpec | None" = None) -> Run:
    """Opens a classifier's run; with a spec without its data, of which a judge needs none."""
    import jax

    from rnngen_jax import data, experiment
    from rnngen_jax.data.base import Dataset
    from rnngen_jax.training.checkpoints import open_checkpoints

    settings = experiment.from_json(folder / "config.json")
    start_backend()
    named = settings.data
    dataset = (
        data.load(named)
        if spec is None
        else Dataset(named.name, spec, {}, named.binarisation, spec.levels)
    )
    model = experiment.build(settings, dataset.spec)
    identity = experiment.identity(settings, dataset.spec)
    with open_checkpoints(folder / "checkpoints") as checkpoints:
        which = checkpoint or checkpoints.default()
        found = checkpoints.restore_evaluated(which, model, identity)
    params, extra = jax.device_put((found.params, found.extra))
    return Run(folder, settings, dataset, model, params, extra, found.step, 0)


def _recorded(folder: pathlib.Path) -> dict[str, Any]:
    """The record of a trained classifier; measured and written, unless it is there and true."""
    from rnngen_jax import __version__
    from rnngen_jax.data.transforms import evaluation_transform
    from rnngen_jax.evaluation import classifying
    from rnngen_jax.files import replacing
    from rnngen_jax.training import digests

    opened = _open(folder, None)
    dataset, digest = opened.dataset, model_digest(opened).hex()
    record = _read(folder)
    if record is not None and record["digest"] == digest and record["step"] == opened.step:
        return record
    score = classifying.scorer(opened.model, evaluation_transform(dataset))
    size = opened.experiment.evaluation.batch_size

    def accuracy(split: str) -> float:
        images = dataset.splits[split]
        found = classifying.measure(score, opened.params, opened.extra, images, size, track=bar)
        return found["accuracy"]

    record = {
        "dataset": dataset.name,
        "binarisation": dataset.binarisation,
        "spec": dict(dataset.spec._asdict()),
        "accuracy": {split: accuracy(split) for split in ("train", "test")},
        "digest": digest,
        "features": opened.experiment.model.hidden,
        "step": opened.step,
        "versions": {"rnngen_jax": __version__, **digests.versions()},
    }
    with replacing(folder / RECORD) as temporary:
        temporary.write_text(json.dumps(record, indent=2) + "\n")
    return record


def _read(folder: pathlib.Path) -> dict[str, Any] | None:
    """The record in a folder; `None` where there is none, or one that is damaged."""
    from rnngen_jax.experiment import MOST_BYTES
    from rnngen_jax.files import read_regular
    from rnngen_jax.shapes import ImageSpec

    try:
        record = json.loads(read_regular(folder / RECORD, MOST_BYTES))
    except (FileNotFoundError, ValueError, RecursionError):
        return None
    whole = isinstance(record, dict) and all(
        isinstance(record.get(name), kind) for name, kind in _FIELDS.items()
    )
    whole = whole and set(record["spec"]) == set(ImageSpec._fields)
    return record if whole and {"train", "test"} <= set(record["accuracy"]) else None


def _report(folder: pathlib.Path, record: Mapping[str, Any]) -> None:
    """Prints a record."""
    from rnngen_jax.evaluation import classifying

    name = classifying.name_of(record["dataset"], record["binarisation"], record["digest"])
    print(f"{'classifier:':<12} {name}, {record['features']} features, step {record['step']}")
    for split in ("train", "test"):
        print(f"{'accuracy:':<12} {record['accuracy'][split]:.4f} of the {split} split")
    print(f"judge with:  rnngen evaluate --workdir=RUN --classifier={folder}")
    print(folder / RECORD)
