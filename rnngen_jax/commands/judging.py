"""Samples that `rnngen evaluate` has judged: by a classifier, by the Inception network, by eye."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from rnngen_jax.commands.base import Run, bar, check_seed, check_temperature
from rnngen_jax.config import require
from rnngen_jax.errors import UserError

if TYPE_CHECKING:
    from rnngen_jax.evaluation.classifying import Classify, Draw, Judge, Judged
    from rnngen_jax.evaluation.inception import Inception
    from rnngen_jax.shapes import ImageSpec

SHOWN = 16  # samples in the picture of neighbours
NEIGHBOURS = 3  # training images beside each
DISTANCES = ("frechet", "kid", "kid_error", "precision", "recall", "density", "coverage")


class Asked(NamedTuple):
    """Which samples, and beside what.

    Attributes:
      split: whose images are the real ones.
      num: how many samples, `None` for as many as the split has images.
      seed, temperature: of the samples.
    """

    split: str
    num: int | None
    seed: int
    temperature: float


def check(
    classifier: str | None,
    inception: str | None,
    samples: int | None,
    neighbours: str | None,
    temperature: float | None,
    seed: int | None,
) -> None:
    """Raises a `UserError` for flags of samples that do not fit each other."""
    from rnngen_jax.evaluation import pictures

    judged = classifier is not None or inception is not None
    if samples is not None and not judged:
        raise UserError(
            f"--samples={samples} has no effect without --classifier or --inception; give both."
        )
    for flag, value in (("--temperature", temperature), ("--seed", seed)):
        if value is not None and not judged and neighbours is None:
            raise UserError(
                f"{flag}={value} has no effect without --classifier, --inception or --neighbours."
            )
    if samples is not None:
        require(samples >= 4, "--samples", samples, "4 or more")
    if temperature is not None:
        check_temperature(temperature)
    if seed is not None:
        check_seed(seed)
    if neighbours is not None:
        fits = pictures.ending(neighbours) == ".png"
        require(fits, "--neighbours", neighbours, "a file that ends in .png")


def open_network(path: str | None, spec: "ImageSpec") -> "Inception | None":
    """The Inception network for such images, or `None` for no file."""
    if path is None:
        return None
    from rnngen_jax.evaluation.inception import open_inception

    return open_inception(path, spec.levels, spec.channels)


def by_classifier(
    judge: "Judge", draw: "Draw", opened: Sequence[Run], asked: Asked
) -> dict[str, Any]:
    """How the samples of each replica compare with a split: the section `samples`."""
    judged, section = _compared(judge.classify, draw, opened, asked)
    return {
        "classifier": judge.name,
        "digest": judge.digest,
        "accuracy": dict(judge.accuracy),
        **section,
        "missing": [found.missing.tolist() for found in judged.samples],
    }


def by_inception(
    network: "Inception", draw: "Draw", opened: Sequence[Run], asked: Asked
) -> dict[str, Any]:
    """The same in the Inception network's features, less what is of classes: `inception`."""
    from rnngen_jax.evaluation.inception import RESIZE

    _, section = _compared(network.classify, draw, opened, asked)
    for part in ("metrics", "floor"):
        found = section[part]
        section[part] = {name: found[name] for name in found if name.split("/")[0] in DISTANCES}
    return {
        "inception": network.name,
        "digest": network.digest,
        "resize": RESIZE,
        **section,
    }


def _compared(
    classify: "Classify", draw: "Draw", opened: Sequence[Run], asked: Asked
) -> tuple["Judged", dict[str, Any]]:
    """Samples beside a split in the eyes of a judge, and what every section says of that."""
    from rnngen_jax.evaluation import classifying
    from rnngen_jax.training.replicas import gather, summarise

    states = [(run.params, run.extra) for run in opened]
    judged = classifying.judge_samples(classify, draw, states, opened[0].dataset, *asked, track=bar)
    return judged, {
        "split": asked.split,
        **judged.counts,
        "seed": asked.seed,
        "temperature": asked.temperature,
        "metrics": summarise(gather([found.metrics() for found in judged.samples])),
        "floor": judged.floor.metrics(),
    }


def write_neighbours(path: str, draw: "Draw", run: Run, asked: Asked) -> None:
    """Writes a picture of samples beside their nearest training images."""
    images = draw(run.params, run.extra, SHOWN, asked.seed, asked.temperature)
    from rnngen_jax.evaluation import classifying, pictures
    from rnngen_jax.evaluation import neighbours as nearness

    dataset = run.dataset
    read, levels = classifying.reader(dataset, "train"), dataset.spec.levels
    pool = classifying.pool(read, dataset.splits["train"].num, track=bar)
    index, _ = nearness.nearest(images, pool, NEIGHBOURS, levels)
    pictures.write_png(path, nearness.picture(images, index, read, levels))
