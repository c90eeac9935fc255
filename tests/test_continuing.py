"""What may change when a run is continued, and what is fixed by the steps it started with."""

import re

import pytest

from rnngen_jax import continuing, experiment
from rnngen_jax.errors import UserError
from rnngen_jax.shapes import ImageSpec


@pytest.mark.parametrize(
    ("section", "field", "value", "allowed"),
    [
        ("training", "steps", 77, True),
        ("training", "log_every", 50, True),
        ("training", "patience", 5, True),
        ("training", "keep", 9, True),
        ("evaluation", "batch_size", 9, True),
        ("evaluation", "num_images", 9, False),
        ("training", "seed", 9, False),
        ("training", "batch_size", 9, False),
        ("training", "ema_decay", 0.5, False),
        ("optimizer", "learning_rate", 0.5, False),
        ("optimizer", "warmup_steps", 7, False),
        ("data", "binarisation", "static", False),
        ("model", "cell", "lstm", False),
        ("model", "name", "row_rnn", False),
    ],
)
def test_difference_tells_what_may_change(section, field, value, allowed):
    old = experiment.check(experiment.default("pixel_rnn"))
    config = experiment.default("row_rnn" if field == "name" else "pixel_rnn")
    config[section][field] = value
    found = continuing.difference(old, experiment.check(config))
    if allowed:
        assert found == []
    else:
        assert any(line.startswith(f"{section}.{field}: ") for line in found)
        assert repr(value) in "".join(found)


def test_a_run_goes_on_with_the_same_discriminator_alone():
    old = experiment.check({"model": {"name": "mlp_gan"}})
    new = experiment.check({"model": {"name": "mlp_gan"}, "discriminator": {"updates_per_step": 2}})
    assert continuing.difference(old, new) == ["discriminator.updates_per_step: 1 -> 2"]
    assert experiment.check(experiment.to_dict(new)) == new


@pytest.mark.parametrize("kind", ["idx", "folder", "npz", "tfds"])
def test_another_spelling_of_the_datas_place_is_no_difference(tmp_path, monkeypatch, kind):
    """Both ways, as a config may have been written with either."""
    monkeypatch.chdir(tmp_path)

    def of(argument):
        config = experiment.default("pixel_rnn")
        config.data.name = f"{kind}:{argument}"
        return experiment.check(config)

    spellings = ["sets/mnist", "./sets/mnist", "sets/../sets/mnist/", f"{tmp_path}/sets/mnist"]
    for old in spellings:
        for new in spellings:
            assert continuing.difference(of(old), of(new)) == []
        for other in ("sets/fashion", f"{tmp_path}/mnist", "../sets/mnist"):
            line = f"data.name: '{kind}:{old}' -> '{kind}:{other}'"
            assert continuing.difference(of(old), of(other)) == [line]
    assert experiment.to_dict(of("./sets/mnist"))["data"]["name"] == f"{kind}:./sets/mnist"


def test_what_may_change_are_fields():
    config = experiment.default("pixel_rnn")
    for path in continuing.MAY_CHANGE:
        section, field = path.split(".")
        assert field in config[section]


def settings(steps=300, model="mlp_gan", **fields):
    """Both players' sections alike: a cosine, unless `fields` says otherwise."""
    section = {"schedule": "cosine", **fields}
    config = {"model": {"name": model}, "training": {"steps": steps}, "optimizer": section}
    if model == "mlp_gan":
        config["discriminator"] = section
    return experiment.check(config)


def lengths(checked):
    """Length of the schedule and of the warm-up of each player."""
    return [(own.decay_steps, own.warmup_steps) for own in checked.optimizers.values()]


def test_a_schedules_length_is_that_of_the_steps_that_the_run_begins_with():
    begun = continuing.resolve(settings(warmup_steps=50))
    assert lengths(begun) == [(300, 50)] * 2
    assert continuing.resolve(begun) == begun
    assert experiment.check(experiment.to_dict(begun)) == begun
    # Of the run that goes on, whatever its steps: no difference, and the same schedule.
    for steps in (20, 300, 1000):
        longer = continuing.resolve(settings(steps, warmup_steps=50), begun)
        assert lengths(longer) == [(300, 50)] * 2
        assert continuing.difference(begun, longer) == []
        assert lengths(continuing.resolve(settings(7, warmup_steps=50), longer)) == [(300, 50)] * 2


def test_a_length_that_is_given_is_kept_and_cannot_change():
    begun = continuing.resolve(settings(decay_steps=900))
    assert lengths(begun) == [(900, 0)] * 2
    assert continuing.difference(begun, continuing.resolve(settings(400), begun)) == []
    other = continuing.resolve(settings(400, decay_steps=400), begun)
    assert continuing.difference(begun, other) == [
        "discriminator.decay_steps: 900 -> 400",
        "optimizer.decay_steps: 900 -> 400",
    ]


def test_a_constant_schedule_has_no_length():
    constant = settings(schedule="constant", warmup_steps=50)
    assert continuing.resolve(constant) == constant
    assert continuing.resolve(settings(10, schedule="constant", warmup_steps=50), constant)
    with pytest.raises(UserError, match=r"discriminator\.decay_steps=5 has no effect with sched"):
        experiment.check({"model": {"name": "mlp_gan"}, "discriminator": {"decay_steps": 5}})


def test_another_schedule_is_a_difference():
    begun = continuing.resolve(settings(schedule="constant", model="row_rnn"))
    found = continuing.difference(begun, continuing.resolve(settings(400, "row_rnn"), begun))
    assert "optimizer.schedule: 'constant' -> 'cosine'" in found


@pytest.mark.parametrize("section", ["optimizer", "discriminator"])
@pytest.mark.parametrize(
    ("fields", "most"),
    [
        ({}, "config.training.steps=10"),
        ({"schedule": "linear"}, "config.SECTION.decay_steps=10"),
        ({"schedule": "linear", "decay_steps": 9}, "config.SECTION.decay_steps=9"),
    ],
)
def test_a_warmup_that_is_the_whole_schedule_is_refused_when_a_run_begins(section, fields, most):
    config = {"model": {"name": "mlp_gan"}, "training": {"steps": 10}}
    checked = experiment.check({**config, section: {"warmup_steps": 10, **fields}})
    most = re.escape(most.replace("SECTION", section))
    said = rf"^config\.{section}\.warmup_steps must be < {most}, or -1 to use"
    with pytest.raises(UserError, match=said):
        continuing.resolve(checked)
    continuing.resolve(checked, checked)  # done with fewer steps than it began


def test_the_warmup_of_a_short_run_is_scaled_once():
    """A share of the steps that it begins with, whatever the steps that come later."""
    for schedule, length in (("cosine", 60), ("constant", 0)):
        fields = {"schedule": schedule, "warmup_fraction": 0.05}
        begun = continuing.resolve(settings(60, **fields))
        assert lengths(begun) == [(length, 3)] * 2
        for steps in (30, 60, 1000):
            longer = continuing.resolve(settings(steps, **fields), begun)
            assert lengths(longer) == [(length, 3)] * 2
            assert continuing.difference(begun, longer) == []
            assert continuing.resolve(settings(**fields), longer).optimizers == begun.optimizers
    other = continuing.resolve(settings(1000, schedule="constant", warmup_steps=20), begun)
    assert "optimizer.warmup_steps: 3 -> 20" in continuing.difference(begun, other)


def test_a_judge_is_the_same_by_whatever_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "judge").mkdir()

    def judged(path):
        config = experiment.default("mlp_gan")
        config.evaluation.classifier = path
        return experiment.check(config)

    assert continuing.difference(judged("judge"), judged(f"{tmp_path}/judge/")) == []
    for one, other in (("judge", "other"), ("judge", ""), ("", "judge")):
        (line,) = continuing.difference(judged(one), judged(other))
        assert line.startswith("evaluation.classifier: ")


@pytest.mark.parametrize(
    "config",
    [
        {"model": {"name": "pixel_rnn", "dropout": 0.5}},
        {"model": {"name": "code_rnn"}, "tokenizer": "x", "vqgan": {"vectors": 5}},
        {
            "model": {"name": "vqgan", "perceptual_weight": 0.5},
            "perceptual": "x",
            "classifier": {"hidden": 7},
        },
    ],
)
def test_an_identity_has_a_default_for_each_field_but_names_digests_and_sizes(config):
    def flat(values, path=()):
        if not isinstance(values, dict):
            return {path: values}
        return {p: v for k, value in values.items() for p, v in flat(value, (*path, k)).items()}

    settings = experiment.check(config)
    identity = flat(continuing.identity(settings, ImageSpec(8, 8)))
    defaults = flat(continuing.defaults(settings))
    lacking = {path[-1] for path in identity.keys() - defaults.keys()}
    assert {"name", "height", "width"} <= lacking <= {"name", "height", "width", "digest"}
    assert defaults.keys() <= identity.keys()
    given = {path[-1] for path in defaults if defaults[path] != identity[path]}
    chosen = {name for values in config.values() if isinstance(values, dict) for name in values}
    assert given == chosen - {"name"}
