"""A config's programs for the devices of a machine: training step, evaluation and sampler."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from rnngen_jax import experiment
from rnngen_jax.data.base import SPLITS, Dataset, Split
from rnngen_jax.data.feed import fetch, lies_on_device
from rnngen_jax.data.transforms import evaluation_transform, training_transform
from rnngen_jax.evaluation import likelihood, sampling, spread
from rnngen_jax.experiment import Experiment
from rnngen_jax.ops.batch import BATCH_AXIS
from rnngen_jax.shapes import ImageSpec
from rnngen_jax.training import program
from rnngen_jax.training.parallel import make_mesh, make_parallel

Devices = Sequence[jax.Device]


class Program(NamedTuple):
    """One program of a config.

    Attributes:
      batch_size: images on each device unless another number is asked for.
      lower: `lower(devices, batch_size)` traces it for these devices, with as many images on each,
        and gives a `jax.stages.Lowered`; nothing is compiled or run, and no image is read.
    """

    batch_size: int
    lower: Callable[[Devices, int], Any]


def programs(settings: Experiment, dataset: Dataset) -> dict[str, Program]:
    """The programs of a config by name: "train", and "evaluate" and "sample" if its model has them.

    A training step takes the config's batch on each device, as a run on a machine that is larger
    would: at equal work for each.

    Args:
      settings: the resolved config.
      dataset: what it is trained on; its specs and numbers of images alone are looked at.
    """
    model, training = experiment.build(settings, dataset.spec), settings.training
    state = jax.eval_shape(program.initial_state(model, settings.optimizers, training))
    one = state
    if training.seeds > 1:
        one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), state)
    params, extra = one.params if one.ema is None else one.ema, one.extra
    key = jax.eval_shape(lambda: jax.random.key(0))

    def train(devices: Devices, batch_size: int) -> Any:
        seeds = training.seeds
        size = batch_size * make_mesh(devices, seeds).shape[BATCH_AXIS]
        transform = training_transform(settings.data, dataset)
        parallel = make_parallel(
            "jit",
            program.one_step(model, settings.optimizers, training, transform),
            fetch,
            training.seed,
            size,
            devices,
            seeds,
            training.micro_batches,
        )
        lead = (1, size * program.batches_per_step(settings.optimizers))
        lead = lead if seeds == 1 else (1, seeds, lead[1])
        chunk, resident = {"index": jax.ShapeDtypeStruct(lead, np.int32)}, None
        split = dataset.splits["train"]
        if lies_on_device(settings.data.placement, split, _bytes(dataset)):
            resident = _items(dataset, (split.num,))
        else:
            chunk |= _items(dataset, lead)
        return parallel.lowered(state, resident, chunk)

    def evaluate(devices: Devices, batch_size: int) -> Any:
        score = likelihood.scorer(model, evaluation_transform(dataset))
        lead = (len(devices), batch_size)
        batches = _items(dataset, lead) | {"index": jax.ShapeDtypeStruct(lead, np.int32)}
        mapped = spread.on_each(score, spread.make_mesh(tuple(devices)))
        return mapped.lower((params, extra, key), batches)

    def sample(devices: Devices, batch_size: int) -> Any:
        draw = sampling.sample_function(model.sample, batch_size)
        lead = (len(devices), batch_size)
        label = jax.ShapeDtypeStruct(lead, np.int32) if model.conditional else None
        number = jax.ShapeDtypeStruct(lead[:1], np.int32)
        mapped = spread.on_each(draw, spread.make_mesh(tuple(devices)))
        temperature = jax.ShapeDtypeStruct((), np.float32)
        return mapped.lower((params, extra, (key, temperature)), (number, label))

    made = {"train": Program(training.batch_size, train)}
    if model.log_prob is not None:
        made["evaluate"] = Program(settings.evaluation.batch_size, evaluate)
    if model.sample is not None:
        made["sample"] = Program(sampling.BATCH, sample)
    return made


def unseen(settings: Experiment, numbers: Sequence[int], frames: int = 0) -> Dataset:
    """A data set of which only the shapes are known.

    Args:
      settings: the config, whose binarisation it gets.
      numbers: the images' height, width, channels, levels and classes, and how many there are.
      frames: of each sequence; 0 for still images.
    """
    *shape, levels, classes, num = numbers
    binarisation = settings.data.binarisation
    spec = ImageSpec(*shape, 2 if binarisation != "none" else levels, classes, frames)

    def read(indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        raise AssertionError("nothing is read to compile")

    splits = {name: Split(num, read, spec.key) for name in SPLITS}
    return Dataset(settings.data.name, spec, splits, binarisation, levels)


def gradient_bytes(settings: Experiment, dataset: Dataset) -> int:
    """Bytes of all gradients of a training step, of every player and each of its updates."""
    model = experiment.build(settings, dataset.spec)
    params = jax.eval_shape(lambda: model.init(jax.random.key(0))[0])
    each = settings.training.seeds
    return each * sum(
        section.updates_per_step * sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(own))
        for player, section in settings.optimizers.items()
        for own in (params[player],)
    )


def _bytes(dataset: Dataset) -> int:
    """Bytes of an item."""
    return dataset.spec.dims * dataset.spec.dtype.itemsize


def _items(dataset: Dataset, lead: tuple[int, ...]) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes of items and their labels."""
    spec = dataset.spec
    return {
        spec.key: jax.ShapeDtypeStruct((*lead, *spec.shape), spec.dtype),
        "label": jax.ShapeDtypeStruct(lead, np.int32),
    }
