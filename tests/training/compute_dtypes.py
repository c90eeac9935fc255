"""Trains a config in float32 and in bfloat16, from the same seeds and batches, and compares."""

import importlib.util
import pathlib
from typing import NamedTuple

import jax
import numpy as np

from rnngen_jax import continuing, data, experiment
from rnngen_jax.data.feed import fetch, make_feed
from rnngen_jax.data.transforms import evaluation_transform, training_transform
from rnngen_jax.evaluation import fidelity
from rnngen_jax.evaluation.sampling import sampler
from rnngen_jax.evaluation.validation import validator
from rnngen_jax.training import program
from rnngen_jax.training.parallel import make_parallel
from rnngen_jax.training.state import evaluated_params

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"
STEPS, LAST, CALL = 200, 50, 50
SEEDS, BATCH, IMAGES = 3, 32, 200


class Trained(NamedTuple):
    """A training's figures, `[SEEDS]` by name: losses over the last steps, and a validation."""

    losses: dict[str, np.ndarray]
    measure: str
    measured: np.ndarray


def settings(name, dtype):
    """A config's first preset, which trains on the digits, for a few steps."""
    spec = importlib.util.spec_from_file_location(name, CONFIGS / f"{name}.py")
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    config = loaded.get_config()
    config.training.update(steps=STEPS, batch_size=BATCH, seeds=SEEDS, compute_dtype=dtype)
    config.evaluation.num_images = IMAGES
    return continuing.resolve(experiment.check(config))


def train(name, dtype):
    """All seeds of a config, validated in float32."""
    given = settings(name, dtype)
    dataset, training = data.load(given.data), given.training
    model = experiment.build(given, dataset.spec)
    step = program.one_step(
        model, given.optimizers, training, training_transform(given.data, dataset)
    )
    devices = jax.devices()[:1]
    parallel = make_parallel("jit", step, fetch, training.seed, BATCH, devices, SEEDS)
    batch = BATCH * program.batches_per_step(given.optimizers)
    feed = make_feed(dataset.splits["train"], batch, training.seed, "device", SEEDS)
    make_state = program.initial_state(model, given.optimizers, training)
    state = parallel.place(jax.jit(make_state)())
    resident, told = parallel.place_resident(feed.resident), []
    for chunk in feed.chunks([(n, n + CALL) for n in range(0, STEPS, CALL)]):
        placed = parallel.place_chunk(chunk)
        state, metrics = parallel.compiled(state, resident, placed)(state, resident, placed)
        told.append(parallel.host(metrics))
    losses = {
        player: np.concatenate([each[f"loss/{player}"] for each in told])[-LAST:].mean(0)
        for player in model.losses
    }
    measure, score = scored(model, dataset, given)
    found = [parallel.local(state, seed) for seed in range(SEEDS)]
    return Trained(
        losses, measure, np.array([score(evaluated_params(one), one.extra) for one in found])
    )


def scored(model, dataset, given):
    """The first metric of a validation; of samples alone, the Fréchet distance of their pixels."""
    validate = validator(model, evaluation_transform(dataset), dataset, given.evaluation)
    if validate is not None:
        probe = ("bits_per_dim", "cross_entropy", "reconstruction_nats")

        def score(params, extra):
            metrics = validate(params, extra)
            return metrics[next(name for name in probe if name in metrics)]

        measure = "cross_entropy" if model.classify else "bits_per_dim"
        if model.log_prob is None and model.classify is None:
            measure = "reconstruction_nats"
        return measure, score
    draw = sampler(model)
    real, _ = dataset.splits["validation"].read(np.arange(IMAGES))

    def distance(params, extra):
        labels = np.arange(IMAGES, dtype=np.int32) % 10 if model.conditional else None
        images = np.asarray(draw(params, extra, jax.random.key(0), IMAGES, labels, 1.0))
        top = model.spec.levels - 1
        return fidelity.frechet(
            *(x.reshape(IMAGES, -1).astype(np.float64) / top for x in (real, images))
        )

    return "Fréchet distance of pixels", distance


def rows(name, exact, rounded):
    """Lines of a Markdown table: means over seeds, and their range in float32."""
    figures = {f"loss/{player}": exact.losses[player] for player in exact.losses}
    others = {f"loss/{player}": rounded.losses[player] for player in exact.losses}
    figures[exact.measure], others[exact.measure] = exact.measured, rounded.measured
    for figure, values in figures.items():
        one, other = values.mean(), others[figure].mean()
        yield (
            f"| {name} | {figure} | {one:.4f} | {other:.4f} | {other - one:+.1e} "
            f"| {np.ptp(values):.4f} |"
        )
