"""Runs that are continued: what of a config may change, and what makes another run of it."""

from dataclasses import replace
from typing import Any

from rnngen_jax import data, paths
from rnngen_jax.config import require, to_mapping
from rnngen_jax.experiment import BORROWED, TOP, Experiment, judge_of, to_dict
from rnngen_jax.shapes import ImageSpec

# Fields that may change when a run is continued: how long, how often and where, never what is
# computed. The rest of `evaluation` is not here, since validations on other images, or by another
# judge, cannot be compared when the best checkpoint is selected.
MAY_CHANGE = frozenset(
    {
        "data.placement",
        "evaluation.batch_size",
        "training.checkpoint_every",
        "training.keep",
        "training.log_every",
        "training.num_samples",
        "training.parallelism",
        "training.patience",
        "training.sample_every",
        "training.steps",
        "training.steps_per_call",
        "training.validate_every",
    }
)


def resolve(experiment: Experiment, begun: Experiment | None = None) -> Experiment:
    """Resolves schedules and warm-ups that depend on the number of steps a run starts with.

    A `decay_steps` of 0 and a `warmup_steps` of -1 take the values of the run being continued, or
    in a new run follow from `training.steps`; see `OptimizerConfig`. So training for more steps
    never changes the earlier ones.

    Args:
      experiment: the settings.
      begun: settings of the run to continue, or `None` for a new run.

    Returns:
      The settings for config.json; resolved settings are returned unchanged.

    Raises:
      UserError: a new run has a warm-up as long as its schedule or its training.
    """
    steps = (begun or experiment).training.steps
    found = {}
    for name, section in experiment.optimizer_sections.items():
        before = None if begun is None else begun.optimizer_sections.get(name)
        if before is not None and section.warmup_steps < 0 <= before.warmup_steps:
            warmup = before.warmup_steps
            section = replace(section, warmup_steps=warmup, warmup_fraction=0.0)
        length = before.decay_steps if before is not None else 0
        found[name] = section.resolved(length or steps)
        if begun is None:
            at, given = section.SECTION, found[name].warmup_steps
            decays = found[name].decay_steps
            most = f"{at}.decay_steps={decays}" if decays else f"config.training.steps={steps}"
            allowed = f"< {most}, or -1 to use {at}.warmup_fraction"
            require(given < (decays or steps), f"{at}.warmup_steps", given, allowed)
    experiment = replace(experiment, optimizer_sections=found)
    if begun is not None:
        name = data.continued(experiment.data.name, begun.data.name)
        experiment = replace(experiment, data=replace(experiment.data, name=name))
    if begun is None:
        return experiment
    # Borrowed models are those that the run began with, whatever their folders hold by now.
    if _same_place(begun.tokenizer, experiment.tokenizer):
        kept = ("tokenizer_model", "codes") if experiment.tokenizer else ()
        experiment = _with(experiment, begun, "tokenizer_digest", *kept)
    if _same_place(begun.perceptual, experiment.perceptual):
        experiment = _with(experiment, begun, "perceptual_digest", "judge")
    return experiment


def _with(experiment: Experiment, other: Experiment, *fields: str) -> Experiment:
    """The experiment with these fields of another."""
    return replace(experiment, **{field: getattr(other, field) for field in fields})


def identity(experiment: Experiment, spec: ImageSpec) -> dict[str, Any]:
    """The identity of a checkpoint: the model with all its fields, and the images.

    It is stored in each checkpoint; a checkpoint of another identity is refused. A tokenizer and a
    classifier are known by their fields and their digest, not by their folder.
    """
    model = {"name": experiment.name, **to_mapping(experiment.model)}
    if experiment.codes is not None:
        codes = {"name": experiment.tokenizer_model, **to_mapping(experiment.codes)}
        model["tokenizer"] = {**codes, "digest": experiment.tokenizer_digest}
    if experiment.judge is not None:
        judge = to_mapping(experiment.judge)
        model["perceptual"] = {**judge, "digest": experiment.perceptual_digest}
    return {"model": model, "spec": dict(spec._asdict())}


def defaults(experiment: Experiment) -> dict[str, Any]:
    """The defaults of the fields in `identity`, for checkpoints older than some of them.

    A field is added to a model's config, or to the spec, with a default that leaves the model as it
    was before.
    """
    model = to_mapping(type(experiment.model)())
    if experiment.codes is not None:
        model["tokenizer"] = to_mapping(type(experiment.codes)())
    if experiment.judge is not None:
        model["perceptual"] = to_mapping(type(experiment.judge)())
    return {"model": model, "spec": dict(ImageSpec._field_defaults)}


def difference(old: Experiment, new: Experiment) -> list[str]:
    """The fields that prevent `new` from continuing the run of `old`.

    `training.steps`, the cadences and the other fields in `MAY_CHANGE` are left out, as are
    `data.name` and folders of other runs if both name the same place. Of another tokenizer or
    classifier its folder alone is told.

    Returns:
      One line per field, "model.cell: 'lstm' -> 'gru'"; empty if the run can be continued.
    """
    before, after = _flat(old), _flat(new)
    same, hidden = set(MAY_CHANGE), set()
    if data.canonical(old.data.name) == data.canonical(new.data.name):
        same.add("data.name")
    sections = {
        "tokenizer": {old.tokenizer_model, new.tokenizer_model},
        "perceptual": {judge_of(old.name), judge_of(new.name)},
    }
    for field in BORROWED:
        if _same_place(getattr(old, field), getattr(new, field)):
            same.add(field)
        else:  # and so all that follows from it
            same.add(f"{field}_digest")
            hidden |= sections[field]
    if _same_place(old.evaluation.classifier, new.evaluation.classifier):
        same.add("evaluation.classifier")
    return [
        f"{field}: {before.get(field)!r} -> {after.get(field)!r}"
        for field in sorted(before.keys() | after.keys())
        if before.get(field) != after.get(field)
        and field not in same
        and field.partition(".")[0] not in hidden
    ]


def _same_place(one: str, other: str) -> bool:
    """Whether two paths lead to the same place, or are both empty."""
    both = bool(one and other)
    return one == other or (both and paths.resolved(one) == paths.resolved(other))


def _flat(experiment: Experiment) -> dict[str, Any]:
    """All values by "section.field", or "field" for those in no section."""
    values = to_dict(experiment)
    return {field: values.pop(field) for field in TOP if field in values} | {
        f"{section}.{field}": value
        for section, fields in values.items()
        for field, value in fields.items()
    }
