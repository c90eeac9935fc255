"""Experiments: their sections and defaults, what `check` refuses, and config.json."""

import dataclasses
import json
import os

import pytest
from ml_collections import ConfigDict

from rnngen_jax import continuing, experiment, models
from rnngen_jax.errors import UserError
from rnngen_jax.models.adversarial_config import AdversarialConfig, DiscriminatorConfig
from rnngen_jax.shapes import ImageSpec
from rnngen_jax.training.config import OptimizerConfig, optimizer_section

IMAGES = ImageSpec(8, 8, levels=17, classes=10)


@pytest.mark.parametrize("name", models.names())
def test_default_holds_every_field_and_checks(name):
    config = experiment.default(name)
    assert isinstance(config, ConfigDict)
    checked = experiment.check(config)
    assert checked.name == name
    assert checked.model == models.config_class(name)()
    sections = experiment.sections(name)
    top = {experiment.borrows(name)} - {""}
    assert set(config) == {"model", *sections} | top
    for section, cls in sections.items():
        assert checked.sections[section] == cls()
        assert set(config[section]) == {field.name for field in dataclasses.fields(cls)}
    fields = {field.name for field in dataclasses.fields(models.config_class(name))}
    assert set(config.model) == {"name"} | fields


def test_sections_and_fields_left_out_keep_their_defaults():
    got = experiment.check({"model": {"name": "pixel_rnn"}, "training": {"steps": 7}})
    want = experiment.check(experiment.default("pixel_rnn"))
    assert got == dataclasses.replace(want, training=dataclasses.replace(want.training, steps=7))


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (None, "config must be a ConfigDict, got NoneType"),
        ({}, "config.model.name must be one of .*, got None"),
        ({"model": {"name": 3}}, "config.model.name must be one of .*, got 3"),
        ({"model": {"name": "pixel_rmn"}}, "pixel_rnn"),
        ({"model": {"name": "pixel_rnn", "cel": "gru"}}, "did you mean 'cell'"),
        ({"model": {"name": "pixel_rnn"}, "trainnig": {}}, "did you mean 'training'"),
        (
            {"model": {"name": "pixel_rnn"}, "training": 3},
            "config.training must be a section of fields, got 3",
        ),
        ({"model": {"name": "pixel_rnn"}, "training": {"steps": "x"}}, "type int"),
        (
            {"model": {"name": "pixel_rnn"}, "evaluation": {"batch_size": 0}},
            "batch_size must be ≥ 1, got 0",
        ),
        ({"model": {"name": "pixel_rnn"}, "evaluation": {"num_images": -1}}, "whole split"),
    ],
)
def test_check_refuses(config, expected):
    with pytest.raises(UserError, match=expected):
        experiment.check(config)


def spoilt(path, how):
    """A config.json that is none."""
    whole = json.dumps({"model": {"name": "row_rnn"}})
    if how == "folder":
        path.mkdir()
    elif how == "pipe":
        os.mkfifo(path)
    elif how == "large":
        path.write_text(" " * experiment.MOST_BYTES + whole)
    elif how == "not finite":
        path.write_text('{"model": {"name": "row_rnn"}, "optimizer": {"learning_rate": NaN}}')
    elif how == "too large for a float":
        path.write_text(
            f'{{"model": {{"name": "row_rnn"}}, "optimizer": {{"learning_rate": {10**400}}}}}'
        )
    elif how == "too large for an array":
        path.write_text(f'{{"model": {{"name": "row_rnn", "features": {10**30}}}}}')
    else:
        unknown = whole.replace("row_rnn", "x")
        texts = {"empty": "", "torn": whole[:20], "deep": "[" * 100_000, "list": "[]"}
        path.write_text({**texts, "unknown model": unknown}[how])


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("empty", "is not valid JSON"),
        ("torn", "is not valid JSON"),
        ("deep", "is not valid JSON: it is nested too deeply"),
        ("list", "is not a config of this version: config must be a ConfigDict, got list"),
        ("unknown model", "is not a config of this version: config.model.name='x' is not a model"),
        ("folder", "cannot be read: Is a directory"),
        ("pipe", "must be a regular file, got a pipe"),
        ("large", "must have ≤ 1,048,576 bytes, got"),
        ("not finite", "learning_rate must be finite, got nan"),
        ("too large for a float", "learning_rate must be finite, got inf"),
        ("too large for an array", "config.model.features must fit in 32 bits"),
    ],
)
def test_a_config_json_that_is_none(tmp_path, how, said):
    path = tmp_path / "config.json"
    spoilt(path, how)
    with pytest.raises(UserError, match=said) as error:
        experiment.from_json(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_config_json_that_is_missing_beside_checkpoints(tmp_path):
    with pytest.raises(UserError, match="holds no run"):
        experiment.from_json(tmp_path / "config.json")
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(UserError, match="is missing beside checkpoints; repeat the run's train"):
        experiment.from_json(tmp_path / "config.json")


@pytest.mark.parametrize("name", models.names())
def test_each_player_has_a_section(name):
    checked = experiment.check({"model": {"name": name}})
    if not issubclass(models.config_class(name), DiscriminatorConfig):
        assert checked.optimizers == {"model": OptimizerConfig()}
        return
    other = "generator" if issubclass(models.config_class(name), AdversarialConfig) else "model"
    config = {
        "model": {"name": name},
        "discriminator": {"updates_per_step": 3},
        "optimizer": {"b1": 0.5},
    }
    checked = experiment.check(config)
    assert list(checked.optimizers) == ["discriminator", other]  # the order of their updates
    assert checked.optimizers["discriminator"] == optimizer_section("discriminator")(
        updates_per_step=3
    )
    assert checked.optimizers[other] == OptimizerConfig(b1=0.5)
    assert list(experiment.build(checked, IMAGES).losses) == list(checked.optimizers)


SECTIONS = {"vqvae": {}, "vqgan": {}}


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("vqvae", {"tokenizer": "x"}, "config.tokenizer is not a field of vqvae, .* no prior over"),
        ("code_rnn", {"perceptual": "x"}, "config.perceptual is not a field .* perceptual loss"),
        ("vqgan", {"perceptual_digest": 3}, "config.perceptual_digest must be a string, got 3"),
        ("vqgan", {"perceptual": "x"}, "perceptual must be empty with config.model.perceptual_we"),
        ("vqgan", {"classifier": {}}, "config.classifier is not a section of vqgan; allowed"),
        ("code_rnn", {"vqgan": {}}, "config.vqgan needs config.tokenizer, .* with config.vqvae"),
        ("code_rnn", {"tokenizer": "x", **SECTIONS}, "config.vqgan and config.vqvae are both of a"),
        ("code_rnn", {"tokenizer": "x", "classifier": {}}, "config.classifier is not a section"),
        ("row_rnn", {"vqgan": {}}, "config.vqgan is not a section of row_rnn"),
    ],
)
def test_other_runs_that_a_model_is_not_built_on_are_refused(name, given, said):
    with pytest.raises(UserError, match=said) as error:
        experiment.check({"model": {"name": name}, **given})
    assert "\n" not in str(error.value)


def test_a_perceptual_loss_and_its_classifier_go_together(tmp_path):
    config = {"model": {"name": "vqgan", "perceptual_weight": 0.5}}
    with pytest.raises(UserError, match="perceptual_weight must be 0 without config"):
        experiment.check(config)
    found = experiment.check({**config, "perceptual": "x", "classifier": {"hidden": 7}})
    assert found.judge.hidden == 7
    experiment.to_json(found, tmp_path / "config.json")
    assert experiment.from_json(tmp_path / "config.json") == found
    assert continuing.identity(found, IMAGES)["model"]["perceptual"]["hidden"] == 7
    other = dataclasses.replace(found, perceptual="y", judge=None)
    assert continuing.difference(found, other) == ["perceptual: 'x' -> 'y'"]


def test_a_prior_is_one_over_the_codes_of_any_tokenizer(tmp_path):
    config = {"model": {"name": "code_rnn"}, "tokenizer": "x", "vqgan": {"vectors": 5}}
    found = experiment.check(config)
    assert (found.tokenizer_model, found.codes.vectors) == ("vqgan", 5)
    experiment.to_json(found, tmp_path / "config.json")
    assert experiment.from_json(tmp_path / "config.json") == found
    assert continuing.identity(found, IMAGES)["model"]["tokenizer"]["name"] == "vqgan"
    given = experiment.check({"model": {"name": "code_rnn"}, "tokenizer": "./x"})
    begun = continuing.resolve(found)
    again = continuing.resolve(given, begun)
    assert (again.tokenizer_model, again.codes) == ("vqgan", found.codes)
    assert continuing.difference(begun, again) == []
    other = experiment.check({"model": {"name": "code_rnn"}, "tokenizer": "y"})
    assert continuing.difference(found, other) == ["tokenizer: 'x' -> 'y'"]


def test_a_discriminator_without_a_model_that_has_one():
    config = {"model": {"name": "row_rnn"}, "discriminator": {"updates_per_step": 2}}
    with pytest.raises(
        UserError, match=r"config\.discriminator is not a section of row_rnn"
    ) as error:
        experiment.check(config)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"updates_per_step": 0}, "config.discriminator.updates_per_step must be ≥ 1, got 0"),
        (
            {"updates_per_stp": 2},
            "config.discriminator.updates_per_stp is not a field; did you mean 'updates_per_step'",
        ),
        (
            {"updates_per_step": "x"},
            "config.discriminator.updates_per_step must be of type int, got 'x'",
        ),
        ({"private_clip": 2.0}, "config.discriminator.private_clip=2.0 has no effect"),
    ],
)
def test_what_does_not_fit_names_the_discriminators_section(fields, said):
    with pytest.raises(UserError, match=said):
        experiment.check({"model": {"name": "mlp_gan"}, "discriminator": fields})


PRIVATE = {"private_noise": 1.0}


@pytest.mark.parametrize(
    ("name", "model", "said"),
    [
        ("mlp_gan", {"loss": "relativistic"}, "loss='relativistic'.*real images to the generator"),
        ("mlp_gan", {"penalty": "dragan"}, "penalty='dragan'.*whole batch"),
        ("mlp_gan", {"norm": "batch"}, "norm='batch'.*whole batch"),
        ("mlp_gan", {"discriminator_norm": "batch"}, "discriminator_norm='batch'.*whole batch"),
        ("mlp_gan", {"class_conditional": True}, "class_conditional=True.*classes"),
        ("dcgan", {}, "norm='batch'"),  # which is its default
        ("gru_gan", {}, "norm='batch'"),
    ],
)
def test_a_private_discriminator_refuses_what_would_tell_of_images(name, model, said):
    config = {"model": {"name": name, **model}, "discriminator": PRIVATE}
    with pytest.raises(UserError, match=rf"^config\.model\.{said}") as error:
        experiment.check(config)
    assert "\n" not in str(error.value)


def test_who_sees_images_may_be_private():
    fields = {"loss": "wasserstein", "penalty": "wgan_gp", "spectral": True, "codes": 3}
    checked = experiment.check({"model": {"name": "mlp_gan", **fields}, "discriminator": PRIVATE})
    assert checked.optimizers["discriminator"].private_noise == 1
    assert experiment.check({"model": {"name": "row_rnn"}, "optimizer": PRIVATE})
    with pytest.raises(UserError, match=r"optimizer\.private_noise must be 0, got 1\.0"):
        experiment.check({"model": {"name": "mlp_gan"}, "optimizer": PRIVATE})


@pytest.mark.parametrize("name", ["row_rnn", "gru_gan"])
def test_json_round_trip(tmp_path, name):
    config = experiment.default(name)
    config.training.steps = 123
    config.optimizer.learning_rate = 0.3
    checked = experiment.check(config)
    path = tmp_path / "run" / "config.json"
    experiment.to_json(checked, path)
    assert experiment.from_json(path) == checked
    assert [p.name for p in path.parent.iterdir()] == ["config.json"]


def test_identity_names_model_and_images_in_json():
    checked = experiment.check(experiment.default("pixel_rnn"))
    facts = continuing.identity(checked, ImageSpec(8, 8, levels=17, classes=10))
    assert json.loads(json.dumps(facts)) == facts
    assert facts["model"]["name"] == "pixel_rnn"
    assert facts["model"]["cell"] == checked.model.cell
    assert facts["spec"]["levels"] == 17


def test_what_a_given_choice_leaves_unread_goes_back_to_its_default():
    config = experiment.default("mlp_gan")
    config.model.penalty, config.model.penalty_weight = "r1", 1.0
    config.optimizer.b1 = config.discriminator.b1 = 0.5
    config.model.penalty, config.optimizer.name = "none", "sgd"
    lines = experiment.reset_unread(config, {"config.model.penalty", "config.optimizer.name"})
    assert sorted(lines) == [
        "config.model.penalty_weight=1.0 has no effect with penalty='none'; "
        "reset to its default, 10.0.",
        "config.optimizer.b1=0.5 has no effect with name='sgd'; reset to its default, 0.9.",
    ]
    checked = experiment.check(config)
    assert (checked.model.penalty_weight, checked.optimizers["generator"].b1) == (10.0, 0.9)
    assert checked.optimizers["discriminator"].b1 == 0.5  # its own optimiser reads it
    assert experiment.reset_unread(config, set()) == []


@pytest.mark.parametrize(
    "given",
    [
        set(),  # the file's own fault
        {"config.training.steps"},
        {"config.discriminator.name"},
        {"config.optimizer.name", "config.optimizer.weight_decay"},
    ],
)
def test_what_nothing_reads_stays_for_check_to_refuse(given):
    config = experiment.default("mlp_gan")
    config.optimizer.name, config.optimizer.weight_decay = "sgd", 0.1
    with pytest.raises(UserError, match=r"config\.optimizer\.weight_decay=0\.1 has no effect"):
        experiment.reset_unread(config, given)
    assert config.optimizer.weight_decay == 0.1
