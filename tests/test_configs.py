"""Every preset of every file in configs/ is a training, and says what it gives."""

import functools
import importlib.util
import json
import pathlib
import re
from typing import NamedTuple

import jax
import numpy as np
import pytest
from tiny_runs import sizes_of

from rnngen_jax import continuing, experiment, main, models
from rnngen_jax.data.base import Dataset, Split
from rnngen_jax.errors import UserError
from rnngen_jax.models import rnn_autoencoder
from rnngen_jax.modules.vqvae import last_layer
from rnngen_jax.ops import penalties
from rnngen_jax.pods.programs import programs
from rnngen_jax.shapes import spec_of
from rnngen_jax.training.config import OPTIMIZERS, SCHEDULES

ROOT = pathlib.Path(__file__).parent.parent
FILES = sorted((ROOT / "configs").glob("[!_]*.py"))

# The size of what crosses the network in an all-reduce, in a program that is lowered.
REDUCED = re.compile(r'"stablehlo\.all_reduce".*?\}\) : \(tensor<(?:(\d+)x)?f32>\)', re.DOTALL)

TINY = {
    "training": {
        "steps": 2,
        "steps_per_call": 1,
        "log_every": 1,
        "batch_size": 8,
        "validate_every": 0,
        "sample_every": 0,
    },
}
# The trainings of a page of docs/ are run by test_readme.py, with the same sizes.
ON_A_PAGE = {
    name
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    for name in re.findall(r"^rnngen train --config=configs/(\w+)\.py", page.read_text(), re.M)
}


def module(file):
    spec = importlib.util.spec_from_file_location(file.stem, file)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


# The embedded images, still or moving.
DIGITS = ("digits", "moving:digits")

CASES = [(file, preset) for file in FILES for preset in module(file).PRESETS]


def tiny(file, preset):
    """A preset's config with tiny sizes."""
    config = module(file).get_config(preset)
    for section, fields in {"model": sizes_of(file.stem), **TINY}.items():
        config[section].update({k: v for k, v in fields.items() if k in config[section]})
    if "quantiser" in config.model:  # so that its statistics are fewer than the gradients
        config.model.quantiser = "codebook:codes=8"
    return config


# What changes no array's shape and nothing that crosses the network: numbers and their schedules.
NUMBERS = {"learning_rate", "schedule", "warmup_steps", "decay_steps", "weight_decay"}
TRACED = {}


class Traced(NamedTuple):
    """What a preset's tiny program is on eight devices, and what its model draws and scores."""

    settings: experiment.Experiment
    model: object
    before: object
    after: object
    metrics: dict
    text: str
    drawn: object
    scored: object


def traced(file, preset):
    """A preset's program, which presets that differ in numbers alone share."""
    settings = continuing.resolve(experiment.check(tiny(file, preset)))
    named, digits = settings.data.name, settings.data.name in DIGITS
    levels = 2 if settings.data.binarisation != "none" else 17 if digits else 256
    size = 8 if digits else 12
    colour = named.startswith(("tfds:cifar", "folder:"))
    frames = (5,) if named.startswith("moving:") else ()
    spec = spec_of((*frames, size, size, 3 if colour else 1), levels, 10)
    every = experiment.to_dict(settings)
    every["data"]["name"] = every["evaluation"] = None
    shaped = {
        name: {field: value for field, value in fields.items() if field not in NUMBERS}
        if isinstance(fields, dict)
        else fields
        for name, fields in every.items()
    }
    which = f"{spec} {shaped}"
    if which not in TRACED:
        TRACED[which] = trace(settings, spec)
    return TRACED[which]


def trace(settings, spec):
    binarisation = settings.data.binarisation
    dataset = Dataset(settings.data.name, spec, {"train": Split(64, None)}, binarisation, 256)
    lowered = programs(settings, dataset)["train"].lower(jax.devices(), 2)
    (state, *_), _ = lowered.args_info
    before = jax.tree.map(lambda given: jax.ShapeDtypeStruct(given.shape, given.dtype), state)
    after, metrics = lowered.out_info
    model, given = experiment.build(settings, spec), (before.params, before.extra)
    key = jax.eval_shape(lambda: jax.random.key(0))

    def integers(*shape):
        return jax.ShapeDtypeStruct(shape, np.int32)

    drawn = scored = None
    if model.sample is not None:
        draw = functools.partial(model.sample, num=2)
        drawn = jax.eval_shape(draw, *given, key, label=integers(2))
    if model.log_prob is not None:
        image = jax.ShapeDtypeStruct((3, *spec.shape), spec.dtype)
        batch = {spec.key: image, "label": integers(3), "index": integers(3)}
        scored = jax.eval_shape(model.log_prob, *given, batch, key)
    return Traced(settings, model, before, after, metrics, lowered.as_text(), drawn, scored)


# test_device_grid.py compiles and runs the first presets, and looks at the same.
@pytest.mark.parametrize(
    ("file", "preset"),
    [(file, preset) for file, preset in CASES if preset != "digits"],
    ids=lambda value: getattr(value, "stem", value),
)
def test_a_preset_is_a_training(file, preset):
    """Traced for eight devices and not run: its step keeps the state's shapes, and on the network
    are its gradients and batch statistics alone; it draws and scores its images."""
    settings, model, before, after, metrics, text, drawn, scored = traced(file, preset)
    spec, prior = model.spec, settings.codes is not None

    def described(tree):
        return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)

    assert described(after) == described(before)
    assert {leaf.shape for leaf in jax.tree.leaves(metrics)} == {(1,)}
    assert {f"loss/{player}" for player in model.losses} <= set(metrics)
    assert not re.search("all_gather|all_to_all|collective_permute|reduce_scatter", text)
    crossing = [int(size) for size in REDUCED.findall(text)]
    own = {
        player: sum(x.size for x in jax.tree.leaves(before.params[player]))
        for player in model.losses
    }
    if "adaptive_weight" in metrics:  # of two losses, with respect to the last layer
        decoder = before.params["model"]["decoder"]
        last = sum(x.size for x in jax.tree.leaves(decoder[last_layer(decoder)]))
        crossing.remove(2 * last)
    gradients = [size for size in crossing if size >= min(own.values())]
    statistics = [size for size in crossing if size < min(own.values())]
    told = len(metrics) - len(own)  # all but the norms, which are of gradients that have crossed
    assert sum(gradients) == sum(own.values()) + told
    assert len(gradients) == len(own)
    # Those of codes are a tokenizer's own: to begin with by k-means of each level, then once a step
    # for all levels; a prior only counts them.
    assert not statistics or "batch" in str(settings.model) or prior or "codebook" in str(settings)
    if prior or "codebook" in str(settings):
        assert len(statistics) <= (1 if prior else 2 + 2 * settings.model.levels)
    if model.sample is not None:
        assert (drawn.shape, drawn.dtype) == ((2, *spec.shape), spec.dtype)
    if model.log_prob is not None:
        assert scored.shape == (3,)


# test_device_grid.py trains the same, not through the verb.
@pytest.mark.slow
@pytest.mark.parametrize(
    "file", [file for file in FILES if file.stem not in ON_A_PAGE], ids=lambda file: file.stem
)
def test_the_first_preset_trains_two_steps(file, tmp_path):
    run = ["rnngen", "train", f"--config={file}", f"--workdir={tmp_path / 'run'}"]
    config = module(file).get_config()
    for section, fields in TINY.items():
        for name, value in fields.items():
            run += [f"--config.{section}.{name}={value}"] * (name in config[section])
    assert main.run(run) == 0
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_config_file_says_how_to_run_each_preset_and_what_it_gives(file):
    loaded = module(file)
    assert file.stem in models.names()
    assert loaded.get_config().to_dict() == loaded.get_config("digits").to_dict()
    assert loaded.get_config().data.name in DIGITS
    for preset in loaded.PRESETS:
        argument = "" if preset == "digits" else f":{preset}"
        lines = loaded.__doc__.splitlines()
        at = [n for n, line in enumerate(lines) if f"=configs/{file.name}{argument} " in line]
        assert len(at) == 1, f"the docstring of {file.name} has no command for {preset}"
        assert re.search(r"(core|GPU).*\bmin\b.*(nats|bits|Fréchet)", lines[at[0] + 1])
    assert f"`--config={file.stem}` names this file" in loaded.__doc__
    with pytest.raises(UserError, match=rf"{file.stem}:digist is not a preset; .* mean 'digits'"):
        loaded.get_config("digist")


# Choices that leave fields unread which a preset may have set.
CHOICES = {
    "optimizer.name": OPTIMIZERS,
    "optimizer.schedule": SCHEDULES,
    "model.penalty": penalties.PENALTIES,
    "model.latent": rnn_autoencoder.LATENT,
}


@pytest.mark.parametrize(("file", "preset"), CASES, ids=lambda value: getattr(value, "stem", value))
def test_one_flag_changes_one_choice_of_a_preset(file, preset):
    for path, values in CHOICES.items():
        section, field = path.split(".")
        for value in values:
            config = module(file).get_config(preset)
            if field in config[section]:
                config[section][field] = value
                experiment.reset_unread(config, {f"config.{path}"})
                assert experiment.to_dict(experiment.check(config))[section][field] == value


def test_every_model_has_a_config():
    assert [file.stem for file in FILES] == models.names()
