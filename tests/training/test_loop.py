"""The loop: what is written when, and what every field changes."""

import dataclasses
import re
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import training_toys as toys
from training_toys import final, kernel, lines, numbers, saved

from rnngen_jax.errors import RunError
from rnngen_jax.hosts.peers import Peers
from rnngen_jax.training import loop, program, sinks
from rnngen_jax.training.checkpoints import open_checkpoints
from rnngen_jax.training.config import OptimizerConfig, TrainingConfig, optimizer_section


def test_a_run_learns_and_leaves_what_it_should(tmp_path, capsys):
    outcome = toys.run(
        tmp_path, steps=100, log_every=50, validate_every=50, validate=toys.validator()
    )
    train, validation = lines(tmp_path), lines(tmp_path, "validation")
    assert [line["step"] for line in train] == [50, 100]
    assert train[1]["loss/model"] < 0.5 * train[0]["loss/model"]
    assert set(train[0]) == {"step", "loss/model", "grad_norm/model", "brightness"}
    assert [set(line) for line in validation] == [{"step", "bits_per_dim", "nats_per_image"}] * 2
    rates = [line["images_per_second"] for line in sinks.read(tmp_path / "metrics.jsonl")[::2]]
    assert all(rate > 0 for rate in rates)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "checkpoints",
        "metrics.jsonl",
        "tensorboard",
    ]
    assert outcome.step == 100
    assert outcome.state == "done"
    assert outcome.ended
    printed = capsys.readouterr().out
    assert re.search(r"^step 50/100  train .*loss/model", printed, re.MULTILINE)
    assert re.search(r"^step 100/100  validation  bits_per_dim", printed, re.MULTILINE)


def test_a_line_is_the_mean_over_its_steps(tmp_path):
    toys.run(tmp_path / "each", steps_per_call=1, log_every=1)
    toys.run(tmp_path / "mean", steps_per_call=1, log_every=10)
    each = [line["loss/model"] for line in lines(tmp_path / "each")]
    means = [line["loss/model"] for line in lines(tmp_path / "mean")]
    np.testing.assert_allclose(means, [np.mean(each[:10]), np.mean(each[10:])], rtol=1e-6)


def test_steps_per_call_changes_no_number(tmp_path):
    dispatched = {}
    for unit in (1, 5):
        workdir = tmp_path / str(unit)
        toys.run(workdir, steps_per_call=unit, log_every=5)
        dispatched[unit] = lines(workdir)
    for one, five in zip(*dispatched.values(), strict=True):
        assert one.keys() == five.keys()
        np.testing.assert_allclose(list(one.values()), list(five.values()), rtol=1e-6)
    np.testing.assert_allclose(kernel(tmp_path / "1"), kernel(tmp_path / "5"), rtol=1e-5)


def test_processes_wait_for_each_other_before_the_first_call_of_a_program(tmp_path):
    """Where no collective waits: one that compiles longer would be given up."""
    said = []
    peers = Peers(
        mark=lambda: said.append("mark"), agree=lambda name, value: said.append((name, value))
    )
    toys.run(tmp_path, steps=12, peers=peers)
    calls = [each for each in said if each == "mark" or "compiled" in each[0]]
    name = "compiled steps of a call"
    assert calls[:2] == [(name, 5), "mark"]
    assert [each for each in calls if each != "mark"] == [(name, 5), (name, 2)]


def test_a_gan_trains_on_all_devices_with_pmap(tmp_path):
    model = toys.adversaries()
    toys.run(tmp_path, model, parallelism="pmap", devices=jax.devices())
    assert {"loss/generator", "grad_norm/discriminator", "gap"} <= set(lines(tmp_path)[0])
    assert set(final(tmp_path, model).params) == {"generator", "discriminator"}


def test_saved_on_eight_devices_restored_on_one(tmp_path):
    for kind in ("jit", "pmap"):
        workdir = tmp_path / kind
        toys.run(workdir, steps=10, parallelism=kind, devices=jax.devices())
        toys.run(workdir, steps=20)
    toys.run(tmp_path / "one", steps=20)
    for kind in ("jit", "pmap"):
        assert saved(tmp_path / kind) == [10, 20]
        np.testing.assert_allclose(kernel(tmp_path / kind), kernel(tmp_path / "one"), rtol=1e-4)
        for ours, other in zip(lines(tmp_path / kind), lines(tmp_path / "one"), strict=True):
            np.testing.assert_allclose(list(ours.values()), list(other.values()), rtol=1e-5)


# What each field of TrainingConfig changes, as (changes, what is looked at). The base is a run of
# 20 steps with everything on.
def drawn(workdir):
    return sorted(int(p.name) for p in (workdir / "drawn").iterdir())


def steps_of(split):
    return lambda workdir: [line["step"] for line in lines(workdir, split)]


def names(workdir):
    return set(lines(workdir)[0])


def calls(workdir):
    return (workdir / "calls").read_text()


FIELDS = {
    "steps": ({"steps": 15}, steps_of("train")),
    "batch_size": ({"batch_size": 16}, numbers),
    "seed": ({"seed": 1}, numbers),
    "seeds": ({"seeds": 2, "validate_every": 0}, names),
    "steps_per_call": ({"steps_per_call": 1}, calls),
    "parallelism": ({"parallelism": "pmap"}, calls),
    "ema_decay": ({"ema_decay": 0.5}, numbers),
    "log_every": ({"log_every": 10}, steps_of("train")),
    "validate_every": ({"validate_every": 10}, steps_of("validation")),
    "checkpoint_every": ({"checkpoint_every": 15, "validate_every": 0}, saved),
    "sample_every": ({"sample_every": 10}, drawn),
    "keep": ({"keep": 5}, saved),
    "micro_batches": ({"micro_batches": 2}, numbers),
    "compute_dtype": ({"compute_dtype": "bfloat16"}, numbers),
    "patience": ({"patience": 1}, steps_of("train")),
}
# `num_samples` is read by whoever makes `draw`, and tested there.


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return observed(tmp_path_factory.mktemp("base"))


def observed(workdir, **changes):
    """Runs with everything on, and notes the dispatches and grids."""
    (workdir / "drawn").mkdir()
    made = loop.make_parallel

    def spying(kind, *args):
        parallel = made(kind, *args)

        def place_chunk(chunk):
            with open(workdir / "calls", "a") as file:
                file.write(f"{kind} {len(chunk['index'])}\n")
            return parallel.place_chunk(chunk)

        return parallel._replace(place_chunk=place_chunk)

    settings = {"validate_every": 5, "checkpoint_every": 5, "sample_every": 5, **changes}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "make_parallel", spying)
        toys.run(
            workdir,
            validate=toys.validator([3.0, 4.0, 5.0, 6.0]),
            draw=lambda params, extra, step: (workdir / "drawn" / str(step)).touch(),
            **settings,
        )
    return workdir


@pytest.mark.parametrize("field", FIELDS)
def test_every_field_changes_the_run(tmp_path, base, field):
    changes, look = FIELDS[field]
    assert look(observed(tmp_path, **changes)) != look(base)


def test_the_fields_above_are_all_of_them():
    fields = {field.name for field in dataclasses.fields(TrainingConfig)}
    assert fields == set(FIELDS) | {"num_samples"}


def test_cadences(base):
    assert steps_of("train")(base) == [5, 10, 15, 20]
    assert steps_of("validation")(base) == [5, 10, 15, 20]
    assert drawn(base) == [5, 10, 15, 20]
    assert saved(base) == [5, 15, 20]  # the best, and the two newest
    assert calls(base) == "jit 5\n" * 4


def test_the_last_step_has_everything_though_no_cadence_meets_it(tmp_path):
    at = []
    toys.run(
        tmp_path,
        steps=7,
        validate_every=5,
        sample_every=10,
        checkpoint_every=0,
        validate=toys.validator([2.0, 3.0]),
        draw=lambda params, extra, step: at.append(step),
    )
    assert [line["step"] for line in lines(tmp_path)] == [5, 7]
    assert [line["step"] for line in lines(tmp_path, "validation")] == [5, 7]
    assert at == [7]
    assert saved(tmp_path) == [5, 7]


def test_the_best_checkpoint_is_that_of_the_best_validation(tmp_path):
    scores = [5.0, 3.0, 4.0, 3.0]  # equal is not better
    outcome = toys.run(
        tmp_path, validate_every=5, checkpoint_every=0, keep=1, validate=toys.validator(scores)
    )
    assert (outcome.best_step, outcome.best_score) == (10, 3.0)
    assert saved(tmp_path) == [10, 20]
    assert final(tmp_path, which="best").step == 10
    assert final(tmp_path, which="best").extra["seen"] == 10


def test_the_best_checkpoint_is_of_the_steps_after_which_the_model_begins(tmp_path):
    """As is the patience with which it stops early."""
    scores, outcomes = [1.0, 2.0, 5.0, 3.0, 4.0, 4.0], []
    for steps in (10, 30):
        model = toys.autoencoder()._replace(begins=10)
        validate = toys.validator(scores[: steps // 5])
        how = {"steps": steps, "validate_every": 5, "checkpoint_every": 0, "patience": 1}
        outcomes.append(toys.run(tmp_path / str(steps), model=model, validate=validate, **how))
    assert [outcome.best_step for outcome in outcomes] == [None, 20]
    assert (outcomes[1].state, outcomes[1].step) == ("stopped_early", 25)


def test_validation_and_samples_see_the_moving_average(tmp_path):
    seen = {}

    def validate(params, extra):
        seen["validate"] = np.array(params["model"]["encoder"]["kernel"])
        seen["extra"] = int(extra["seen"])
        return {"bits_per_dim": 1.0}

    def draw(params, extra, step):
        seen["draw"] = np.array(params["model"]["encoder"]["kernel"])

    on = {"validate_every": 20, "sample_every": 20, "validate": validate, "draw": draw}
    toys.run(tmp_path, ema_decay=0.9, **on)
    np.testing.assert_array_equal(seen["validate"], kernel(tmp_path))  # evaluated: the average
    np.testing.assert_array_equal(seen["draw"], kernel(tmp_path))
    assert seen["extra"] == 20


PLAYERS = {
    "discriminator": optimizer_section("discriminator")(learning_rate=0.05),
    "generator": OptimizerConfig(learning_rate=0.05),
}


def test_what_is_of_no_player_names_the_sections_of_all(tmp_path):
    said = (
        r"the validation's bits_per_dim is nan.*\n"
        r"Lower config\.discriminator\.learning_rate and config\.optimizer\.learning_rate or set "
        r"config\.discriminator\.clip_norm and config\.optimizer\.clip_norm, and train in"
    )
    on = {"validate_every": 20, "validate": toys.validator([float("nan")])}
    with pytest.raises(RunError, match=said):
        toys.run(tmp_path, toys.adversaries(), PLAYERS, **on)


@pytest.mark.parametrize(
    ("player", "section"),
    [("discriminator", "config.discriminator"), ("generator", "config.optimizer")],
)
def test_the_player_is_named_and_so_is_its_section(tmp_path, player, section):
    base = toys.adversaries()

    def bad(params, extra, batch, key, step):
        value, aux = base.losses[player](params, extra, batch, key, step)
        return value * jnp.where(step == 6, jnp.nan, 1.0), aux

    model = base._replace(losses={**base.losses, player: bad})
    said = rf"^step 7: loss/{player} is nan\. Last good checkpoint: step 5\.\nLower {section}\."
    with pytest.raises(RunError, match=said):
        toys.run(tmp_path, model, PLAYERS, checkpoint_every=5)
    assert saved(tmp_path) == [5]
    assert all(health.ok for health in open_checkpoints(tmp_path / "checkpoints").health())


def test_a_step_takes_as_many_batches_as_the_player_with_most_updates_makes():
    one, five = OptimizerConfig(), OptimizerConfig(updates_per_step=5)
    assert program.batches_per_step({"model": one}) == 1
    assert program.batches_per_step({"discriminator": five, "generator": one}) == 5
    assert program.batches_per_step({"discriminator": one, "generator": five}) == 5


def test_updates_count_once_in_the_step_and_in_the_images(tmp_path):
    """Two updates of the discriminator, so that a batch from the feed is twice `batch_size`."""
    model, config = toys.adversaries(), toys.settings(steps=10)
    sections = {
        "discriminator": OptimizerConfig(name="sgd", updates_per_step=2, clip_weights=0.05),
        "generator": OptimizerConfig(name="sgd"),
    }
    feed = toys.make_feed(toys.split(), 2 * config.batch_size, config.seed, "device")
    devices = jax.devices()[:1]
    given = (toys.jitter, config, sections, tmp_path, toys.IDENTITY)
    toys.train(
        model, feed, *given, devices=devices, describe=lambda step: {"epsilon/a": 2.0 * step}
    )
    found = final(tmp_path, model)
    assert (found.step, int(found.extra["moves"])) == (10, 30)
    assert np.abs(found.params["discriminator"]["kernel"]).max() <= 0.05 * (1 + 1e-6)
    assert np.abs(found.params["generator"]["kernel"]).max() > 0.05
    # What the number of steps alone decides stands in the line as it is at its step.
    assert [line["epsilon/a"] for line in lines(tmp_path)] == [10.0, 20.0]


def test_images_of_all_updates_count(tmp_path, monkeypatch):
    counted = []
    monkeypatch.setattr(loop.Clock, "count", lambda self, images: counted.append(images))
    toys.run(tmp_path, optimizer=OptimizerConfig(updates_per_step=3))
    assert sum(counted) == 20 * 8 * 3


def test_images_per_second_leaves_out_compiling_validating_and_drawing(tmp_path, monkeypatch):
    made = loop.make_parallel

    def slow(*args):
        parallel = made(*args)

        def compiled(*arguments):
            time.sleep(0.5)
            return parallel.compiled(*arguments)

        return parallel._replace(compiled=compiled)

    def validate(params, extra):
        time.sleep(0.5)
        return {"bits_per_dim": 1.0}

    def draw(params, extra, step):
        time.sleep(0.5)

    monkeypatch.setattr(loop, "make_parallel", slow)
    toys.run(tmp_path, validate_every=5, sample_every=5, validate=validate, draw=draw)
    rates = [line.get("images_per_second") for line in sinks.read(tmp_path / "metrics.jsonl")]
    # 40 images a line: with any of the pauses counted it would be 80 images/s at most.
    assert max(rate for rate in rates[:2] if rate) > 100
    assert max(rate for rate in rates[2:] if rate) > 100
