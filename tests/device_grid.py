"""Each model at a tiny size, trained, scored and sampled on any devices of any processes."""

import functools
import importlib.util
import pathlib
from typing import NamedTuple

import jax
import numpy as np
from tiny_runs import sizes_of

from rnngen_jax import continuing, data, experiment
from rnngen_jax.data.feed import fetch, make_feed
from rnngen_jax.data.transforms import evaluation_transform, training_transform
from rnngen_jax.evaluation import likelihood, sampling
from rnngen_jax.evaluation.batching import split_batches
from rnngen_jax.training import program
from rnngen_jax.training.parallel import make_parallel

CONFIGS = pathlib.Path(__file__).parent.parent / "configs"
NAMES = sorted(file.stem for file in CONFIGS.glob("[!_]*.py"))
STEPS, BATCH = 3, 16
RATES = {"sgd": 0.1, "adam": 1e-3}


class Case(NamedTuple):
    """A model on the digits, how it is trained, and the state that it starts from."""

    settings: experiment.Experiment
    dataset: data.base.Dataset
    model: object
    state: object


class Trained(NamedTuple):
    """Metrics of each step `[STEPS]` by name, and the compiled call that gave them."""

    metrics: dict
    compiled: object


def module(file):
    """A config file as a module."""
    spec = importlib.util.spec_from_file_location(file.stem, file)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def names_of(config):
    """The sections of a config that train a player."""
    return [section for section, fields in config.items() if "learning_rate" in fields]


@functools.cache
def case(name, optimizer="sgd"):
    """The first preset of a config file with tiny sizes."""
    config = module(CONFIGS / f"{name}.py").get_config()
    config.model.update({k: v for k, v in sizes_of(name).items() if k in config.model})
    config.training.batch_size = BATCH
    for section in names_of(config):
        config[section].name, config[section].learning_rate = optimizer, RATES[optimizer]
    experiment.reset_unread(config, {f"config.{s}.name" for s in names_of(config)})
    settings = continuing.resolve(experiment.check(config))
    whole = data.load(settings.data)
    split = whole.splits["train"]
    few = split._replace(num=64, read=lambda index: split.read(index % 64))
    dataset = whole._replace(splits=dict.fromkeys(whole.splits, few))
    model = experiment.build(settings, dataset.spec)
    state = jax.jit(program.initial_state(model, settings.optimizers, settings.training))()
    return Case(settings, dataset, model, jax.tree.map(np.asarray, state))


def train(case, kind, devices):
    """Trains for `STEPS` steps in one call, from all processes of the devices."""
    settings, dataset, model, start = case
    step = program.one_step(
        model,
        settings.optimizers,
        settings.training,
        training_transform(settings.data, dataset),
    )
    parallel = make_parallel(kind, step, fetch, settings.training.seed, BATCH, devices)
    images = BATCH * program.batches_per_step(settings.optimizers)
    feed = make_feed(dataset.splits["train"], images, 0, "device")
    state = parallel.place(start)
    resident = parallel.place_resident(feed.resident)
    calls = feed.chunks([(0, STEPS)], jax.process_index(), jax.process_count())
    chunk = parallel.place_chunk(next(iter(calls)))
    compiled = parallel.compiled(state, resident, chunk)
    _, metrics = compiled(state, resident, chunk)
    return Trained(parallel.host(metrics), compiled)


def params_of(case):
    """Parameters of a model that are not as flat as the first ones are."""
    params, extra = jax.jit(case.model.init)(jax.random.key(0))
    rng = np.random.default_rng(0)

    def moved(x):
        return np.asarray(x) + 0.3 * rng.standard_normal(x.shape, np.float32)

    return jax.tree.map(moved, params), extra


def measured(case):
    """Scores of 44 images in batches of 8, and 70 samples in batches of 64, as the model has them.

    From all devices of all processes.
    """
    model, found, state = case.model, {}, params_of(case)
    if model.log_prob is not None:
        score = likelihood.scorer(model, evaluation_transform(case.dataset))
        batches = split_batches(case.dataset.splits["test"], 8, 44)
        found["nats"] = likelihood.nats_of_each(score, *state, batches)
    if model.sample is not None:
        draw, labels = sampling.sampler(model), sampling.cycled(model, 70)
        found["samples"] = draw(*state, jax.random.key(1), 70, labels, 1.0)
    return found


def work(out):
    """Trains and measures all, in one of several processes, and writes what it finds."""
    found = {}
    for optimizer in RATES:
        for name in NAMES:
            trained = train(case(name, optimizer), "jit", jax.devices())
            for metric, values in trained.metrics.items():
                found[f"{name} {optimizer} {metric}"] = values
            jax.clear_caches()
    if jax.process_count() == 2:
        for name in NAMES:
            for what, values in measured(case(name)).items():
                found[f"{name} {what}"] = values
            jax.clear_caches()
    np.savez(f"{out}.{jax.process_index()}.npz", **found)
