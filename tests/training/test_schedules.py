"""A schedule has its own length: training longer does not change earlier steps."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import training_toys as toys

from rnngen_jax.errors import UserError
from rnngen_jax.training.checkpoints import open_checkpoints
from rnngen_jax.training.config import (
    DECAYS,
    SCHEDULES,
    OptimizerConfig,
    optimizer_section,
)
from rnngen_jax.training.optimizers import learning_rate

SHORT, LONG = 300, 400


def rates(section, steps):
    """The learning rate at each of the first steps, as the device computes it."""
    return np.asarray(jax.jit(jax.vmap(learning_rate(section)))(jnp.arange(steps)))


def last(section):
    """The last value of a schedule."""
    fraction = 1.0 if section.schedule == "constant" else section.final_fraction
    return np.float32(section.learning_rate * fraction)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("warmup", [0, 50])
def test_more_steps_leave_the_rates_of_the_first_and_keep_the_last(schedule, warmup):
    given = OptimizerConfig(learning_rate=0.2, schedule=schedule, warmup_steps=warmup)
    begun = given.resolved(SHORT)
    longer = begun.resolved(LONG)  # as it comes back from config.json
    np.testing.assert_array_equal(rates(longer, LONG)[:SHORT], rates(begun, SHORT))
    np.testing.assert_allclose(rates(longer, LONG)[SHORT:], last(given), rtol=1e-6)
    assert len(set(rates(longer, LONG)[SHORT:])) == 1


@pytest.mark.parametrize("schedule", DECAYS)
def test_a_longer_schedule_is_its_own(schedule):
    """400 steps from the start, of which a run does 300 first."""
    given = OptimizerConfig(schedule=schedule, warmup_steps=0, decay_steps=LONG)
    assert given.resolved(SHORT) == given.resolved(LONG) == given
    # As in a run that began with 400 steps.
    whole = OptimizerConfig(schedule=schedule).resolved(LONG)
    np.testing.assert_array_equal(rates(given, SHORT), rates(whole, LONG)[:SHORT])
    assert rates(given, LONG)[SHORT] > 1.5 * last(given)


def trained(workdir, section, steps):
    """Digests of all arrays of the checkpoints, by step, and the lines of metrics."""
    toys.run(workdir, optimizer=section, steps=steps, keep=9)
    reading = open_checkpoints(workdir / "checkpoints")
    found = {
        step: reading.restore_evaluated(step, toys.autoencoder(), toys.IDENTITY).meta["arrays"]
        for step in reading.steps()
    }
    return found, toys.lines(workdir)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_run_that_goes_on_is_to_the_bit_the_run_that_never_stopped(tmp_path, schedule):
    """10 steps raised to 20, against 20 at once under the schedule of 10."""
    section = OptimizerConfig(learning_rate=0.05, schedule=schedule, warmup_steps=2).resolved(10)
    first, early = trained(tmp_path / "raised", section, 10)
    raised, lines = trained(tmp_path / "raised", section.resolved(20), 20)
    whole, expected = trained(tmp_path / "whole", section, 20)
    assert first.keys() == {10}
    assert raised.keys() == whole.keys() == {10, 20}
    assert first[10] == raised[10] == whole[10]
    assert raised[20] == whole[20]
    assert lines == expected
    assert lines[: len(early)] == early


@pytest.mark.parametrize("section", [OptimizerConfig, optimizer_section("discriminator")])
def test_what_is_resolved_stays_as_it_is(section):
    constant = section(warmup_steps=50)
    assert constant.resolved(30) == constant
    for schedule in DECAYS:
        given = section(schedule=schedule, warmup_steps=50)
        assert given.resolved(300) == dataclasses.replace(given, decay_steps=300)
        assert given.resolved(300).resolved(1000) == given.resolved(300)


@pytest.mark.parametrize(
    ("length", "warmup"), [(4000, 200), (1000, 50), (60, 3), (30, 2), (9, 0), (1, 0)]
)
def test_a_warmup_of_a_fraction(length, warmup):
    given = OptimizerConfig(schedule="cosine", warmup_fraction=0.05)
    for found in (
        given.resolved(length),
        dataclasses.replace(given, decay_steps=length).resolved(1000),
        dataclasses.replace(given, schedule="constant").resolved(length),
    ):
        assert (found.warmup_steps, found.warmup_fraction) == (warmup, 0.0)
        assert found.resolved(5000).warmup_steps == warmup
        assert rates(found, length)[:warmup].tolist() == pytest.approx(
            [found.learning_rate * (n + 1) / warmup for n in range(warmup)]
        )


def test_a_rate_is_not_made_of_a_fraction_that_nobody_has_resolved():
    with pytest.raises(
        UserError, match=r"warmup_fraction must be 0, as OptimizerConfig.resolved .*got 0.05"
    ):
        learning_rate(OptimizerConfig(warmup_fraction=0.05))
