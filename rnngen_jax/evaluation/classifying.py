"""A trained classifier as the judge of samples: its accuracy, its features, samples against data.

Samples are compared with a split by the classifier's features (`evaluation.fidelity`). The baseline
has the same figures for as many real images of another split in the samples' place.
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array
from optax.losses import softmax_cross_entropy_with_integer_labels as cross_entropy

from rnngen_jax import keys
from rnngen_jax.data import canonical
from rnngen_jax.data.base import Dataset
from rnngen_jax.data.transforms import evaluation_transform
from rnngen_jax.errors import UserError
from rnngen_jax.evaluation import sampling
from rnngen_jax.evaluation.batching import Batches, Track, filled
from rnngen_jax.evaluation.fidelity import Features, Fidelity, compare
from rnngen_jax.evaluation.likelihood import SEED, Transform
from rnngen_jax.evaluation.spread import spread
from rnngen_jax.models.base import Batch, Extra, Model, Params
from rnngen_jax.shapes import ImageSpec

BATCH = 200  # images that a judge classifies at once; it does not change the numbers

Read = Callable[[np.ndarray], np.ndarray]
Score = Callable[[Params, Extra, Batch, Array], tuple[Array, Array]]
Sample = Callable[[Params, Extra, int, int, float], np.ndarray]
Classify = Callable[[np.ndarray], tuple[Any, Any]]


class Judge(NamedTuple):
    """A trained classifier.

    Attributes:
      name: the data set and the start of the digest, such as "digits-classifier-1a2b3c4d".
      digest: in hexadecimal, of its parameters and its config.
      dataset: name of the data set that it was trained on.
      binarisation: of that data set.
      spec: the images.
      accuracy: share of correct classes on each whole split, by split.
      classify: compiled `classify(image) -> (features, logits)`, for uint8 `[B, H, W, C]`.
    """

    name: str
    digest: str
    dataset: str
    binarisation: str
    spec: ImageSpec
    accuracy: Mapping[str, float]
    classify: Callable[[np.ndarray], tuple[Array, Array]]


def make_judge(
    model: Model,
    params: Params,
    extra: Extra,
    dataset: str,
    binarisation: str,
    digest: str,
    accuracy: Mapping[str, float],
) -> Judge:
    """A judge from a classifier and its parameters.

    Args:
      model: the model.
      params, extra: its parameters and state.
      dataset, binarisation, digest, accuracy: as in `Judge`.
    """
    classify = functools.partial(jax.jit(_classifying(model)), params, extra)
    name = name_of(dataset, binarisation, digest)
    return Judge(name, digest, dataset, binarisation, model.spec, accuracy, classify)


def name_of(dataset: str, binarisation: str, digest: str) -> str:
    """A judge's name: the last part of the data set's name, its binarisation and the digest."""
    kind, _, argument = dataset.partition(":")
    last = (argument or kind).rstrip("/").rpartition("/")[-1].removesuffix(".npz")
    drawn = [] if binarisation == "none" else [binarisation]
    return "-".join([last.replace(":", "-"), *drawn, "classifier", digest[:8]])


class Trained(NamedTuple):
    """What a classifier was trained on; each as in `Judge`."""

    dataset: str
    spec: ImageSpec
    binarisation: str


def require_fit(judge: Judge | Trained, dataset: Dataset, where: str) -> None:
    """Raises a `UserError` unless a judge was trained on a run's images, binarised alike.

    Args:
      judge: the judge.
      dataset: the run's data set.
      where: the judge in messages, such as "--classifier=runs/judge".
    """

    def images(name: str, spec: ImageSpec, binarisation: str) -> str:
        size = f"{spec.height}x{spec.width}x{spec.channels}, {spec.levels} levels"
        return f"{name} ({size}, binarisation={binarisation})"

    has = (judge.dataset, judge.spec, judge.binarisation)
    wants = (dataset.name, dataset.spec, dataset.binarisation)
    if (canonical(has[0]), *has[1:]) != (canonical(wants[0]), *wants[1:]):
        raise UserError(
            f"{where} is of {images(*has)}, the run of {images(*wants)}; train one with "
            f"rnngen train --config=classifier --config.data.name={dataset.name} "
            f"--config.data.binarisation={dataset.binarisation}."
        )


def reader(dataset: Dataset, split: str) -> Read:
    """`read(index [B]) -> uint8 [B, H, W, C]`: a split's images as a model sees them.

    Under dynamic binarisation, this is the draw that likelihoods are measured on.
    """
    transform = jax.jit(evaluation_transform(dataset))
    key = keys.named(jax.random.key(SEED), "transform")

    def read(index: np.ndarray) -> np.ndarray:
        image, label = dataset.splits[split].read(index)
        if dataset.binarisation != "dynamic":
            return image
        batch = {dataset.spec.key: image, "label": label, "index": index.astype(np.int32)}
        return np.asarray(transform(batch, key)[dataset.spec.key])

    return read


def chosen(available: int, num: int, seed: int = SEED) -> np.ndarray:
    """Indices of `num` random images of a split, without replacement, or of all if it has fewer.

    Random, as many data sets are sorted by class. A longer choice starts with a shorter one.

    Returns:
      int64 `[min(num, available)]`.
    """
    return np.random.default_rng(seed).permutation(available)[:num]


def of_images(classify: Classify, images: np.ndarray, track: Track = iter) -> Features:
    """A judge's features and logits for images, uint8 `[N, H, W, C]`."""
    starts = track(range(0, len(images), BATCH))
    return _features(classify, (images[start : start + BATCH] for start in starts))


def of_split(classify: Classify, read: Read, index: np.ndarray, track: Track = iter) -> Features:
    """A judge's features and logits for the images with indices `[N]`, read batch by batch."""
    starts = track(range(0, len(index), BATCH))
    return _features(classify, (read(index[start : start + BATCH]) for start in starts))


def pool(read: Read, num: int, track: Track = iter) -> Iterator[tuple[int, np.ndarray]]:
    """The `num` images of a split in pieces, each with the index of its first image."""
    for start in track(range(0, num, BATCH)):
        yield start, read(np.arange(start, min(start + BATCH, num)))


def sampler(model: Model, dataset: Dataset, track: Track = iter) -> Sample:
    """`sample(params, extra, num, seed, temperature) -> uint8 [num, H, W, C]`: samples to judge.

    A class-conditional model is given the classes of random training images, so that its samples
    represent the whole data set.

    Raises:
      UserError: the model cannot sample.
    """
    sample_labelled = sampling.sampler(model, track)
    split = dataset.splits["train"]

    @functools.cache  # reading labels may read images, too
    def labels(num: int) -> np.ndarray:
        _, found = split.read(chosen(split.num, num))
        return np.resize(found, num).astype(np.int32)  # repeated if there are fewer

    def sample(params: Params, extra: Extra, num: int, seed: int, temperature: float) -> np.ndarray:
        given = labels(num) if model.conditional else None
        return sample_labelled(params, extra, jax.random.key(seed), num, given, temperature)

    return sample


class Judged(NamedTuple):
    """A judge's comparison of samples with real images.

    Attributes:
      samples: figures of each seed's samples.
      baseline: figures of real images of another split in the samples' place.
      counts: `num_samples`, `num_real` and `num_baseline`, the numbers of images.
    """

    samples: list[Fidelity]
    baseline: Fidelity
    counts: dict[str, int]


def judge_samples(
    classify: Classify,
    sample: Sample,
    states: Sequence[tuple[Params, Extra]],
    dataset: Dataset,
    split: str,
    num: int | None,
    seed: int,
    temperature: float,
    track: Track = iter,
) -> Judged:
    """Compares each seed's samples, of the same noise, with all images of a split.

    Args:
      classify: `classify(image) -> (features, logits)` for uint8 `[B, H, W, C]`, as in `Judge`.
      sample: from `sampler`.
      states: parameters and state of each seed.
      dataset: the images.
      split: the real images' split. The baseline is from the train split, or from test for train.
      num: number of samples, and at most of baseline images; `None` for as many as the split has.
      seed, temperature: of the samples.
      track: wraps the ranges over batches.

    Raises:
      UserError: there are too few images to compare.
    """
    num_real = dataset.splits[split].num
    num = num or num_real
    other = "test" if split == "train" else "train"
    index = chosen(dataset.splits[other].num, num)
    real = of_split(classify, reader(dataset, split), np.arange(num_real), track)
    baseline = compare(real, of_split(classify, reader(dataset, other), index, track))
    samples = [
        compare(real, of_images(classify, sample(*state, num, seed, temperature), track))
        for state in states
    ]
    counts = {"num_samples": num, "num_real": num_real, "num_baseline": len(index)}
    return Judged(samples, baseline, counts)


def scorer(model: Model, transform: Transform) -> Score:
    """The jitted `score(params, extra, batch, key) -> (nats [B], right [B])` for `measure`.

    Raises:
      UserError: the model does not classify.
    """
    classify = _classifying(model)

    @jax.jit
    def score(params: Params, extra: Extra, batch: Batch, key: Array) -> tuple[Array, Array]:
        batch = transform(batch, keys.named(key, "transform"))
        _, logits = classify(params, extra, batch["image"])
        return cross_entropy(logits, batch["label"]), logits.argmax(-1) == batch["label"]

    return score


def measure(score: Score, params: Params, extra: Extra, batches: Batches) -> dict[str, float]:
    """How well a classifier does on a split; each image counts once, sums are float64.

    Args:
      score: from `scorer`.
      params, extra: the model's parameters and state.
      batches: from `split_batches`; their size does not change the numbers.

    Returns:
      `cross_entropy` in nats per image, and `accuracy` in [0, 1].
    """
    key = jax.random.key(SEED)
    sums, total = np.zeros(2), 0
    for num, found in spread(score)(params, extra, batches, key):
        sums += [np.asarray(values, np.float64)[:num].sum() for values in found]
        total += num
    return {"cross_entropy": float(sums[0] / total), "accuracy": float(sums[1] / total)}


def _classifying(model: Model) -> Callable[..., tuple[Array, Array]]:
    if model.classify is None:
        raise UserError(f"{model.name} is not a classifier.")
    return model.classify


def _features(classify: Classify, parts: Iterable[np.ndarray]) -> Features:
    """Features and logits of images given in parts of at most `BATCH`."""
    found: list[Any] = []
    for images in parts:
        whole = classify(filled(images, BATCH))
        found.append([np.asarray(values)[: len(images)] for values in whole])
    features, logits = map(np.concatenate, zip(*found, strict=True))
    return Features(features, logits)
