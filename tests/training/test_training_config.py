"""The config sections refuse what does not fit, and say what does."""

import pytest

from rnngen_jax.errors import UserError
from rnngen_jax.training.config import OptimizerConfig, TrainingConfig, optimizer_section

# By the name that messages call each by.
PLAYERS = {
    r"config\.optimizer": OptimizerConfig,
    r"config\.discriminator": optimizer_section("discriminator"),
}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"name": "adan"}, "did you mean 'adam'"),
        ({"schedule": "cosin"}, "did you mean 'cosine'"),
        ({"learning_rate": 0.0}, "learning_rate=0.0"),
        ({"warmup_steps": -2}, "warmup_steps=-2.*0 or more, or -1 for warmup_fraction"),
        ({"warmup_fraction": 1.0}, "warmup_fraction=1.0.*0 or more, below 1"),
        ({"warmup_fraction": -0.1}, "warmup_fraction=-0.1"),
        ({"warmup_steps": 0, "warmup_fraction": 0.1}, "warmup_fraction=0.1 has no effect with war"),
        ({"schedule": "cosine", "decay_steps": -1}, "decay_steps=-1"),
        ({"b1": 1.0}, "b1=1.0"),
        ({"b2": -0.1}, "b2=-0.1"),
        ({"name": "rmsprop", "decay": 1.0}, "decay=1.0"),
        ({"name": "sgd", "momentum": 1.5}, "momentum=1.5"),
        ({"eps": 0.0}, "eps=0.0"),
        ({"l1": -1.0}, "l1=-1.0"),
        ({"l2": -1.0}, "l2=-1.0"),
        ({"clip_norm": -1.0}, "clip_norm=-1.0"),
        ({"name": "adamw", "weight_decay": -1.0}, "weight_decay=-1.0"),
        ({"schedule": "cosine", "final_fraction": 2.0}, "final_fraction=2.0"),
        ({"schedule": "exponential", "final_fraction": 0.0}, "above 0"),
        ({"clip_weights": -0.01}, "clip_weights=-0.01"),
        ({"updates_per_step": 0}, "updates_per_step=0 does not fit; allowed: 1 or more"),
        ({"private_noise": -1.0}, "private_noise=-1.0"),
        ({"private_noise": 1.0, "private_clip": 0.0}, "private_clip=0.0.*above 0"),
        ({"private_noise": 1.0, "private_delta": 0.0}, "private_delta=0.0.*above 0, below 1"),
        ({"private_noise": 1.0, "private_delta": 1.0}, "private_delta=1.0"),
        ({"private_clip": 2.0}, "private_clip=2.0 has no effect with private_noise=0"),
        ({"private_delta": 1e-6}, "private_delta=1e-06 has no effect with private_noise=0"),
    ],
)
def test_optimizer_refuses(fields, said):
    """Either player's, each by the name of its own section."""
    for where, section in PLAYERS.items():
        with pytest.raises(UserError, match=rf"^{where}\..*{said}") as error:
            section(**fields)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("fields", "reader"),
    [
        ({"name": "adam", "weight_decay": 0.1}, "adamw"),
        ({"name": "adam", "momentum": 0.9}, "sgd or rmsprop"),
        ({"name": "sgd", "b1": 0.5}, "adam or adamw"),
        ({"name": "sgd", "b2": 0.5}, "adam or adamw"),
        ({"name": "sgd", "eps": 0.5}, "rmsprop"),
        ({"name": "adam", "decay": 0.5}, "rmsprop"),
        ({"final_fraction": 0.5}, "cosine or linear"),
        ({"decay_steps": 5}, "cosine or linear or exponential"),
    ],
)
def test_a_field_that_nothing_reads_is_refused(fields, reader):
    for where, section in PLAYERS.items():
        wanted = rf"^{where}\..*has no effect.*{where}\..*{reader}"
        with pytest.raises(UserError, match=wanted):
            section(**fields)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"steps": 0}, "steps=0"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"seed": -1}, "seed=-1"),
        ({"seeds": 0}, "seeds=0"),
        ({"seeds": 2, "seed": 2**31 - 1}, "seed=2147483647.*0 to 2147483646"),
        ({"seeds": 2, "parallelism": "pmap"}, "seeds=2.*1 with .*pmap, any number with jit"),
        ({"steps_per_call": 0}, "steps_per_call=0"),
        ({"parallelism": "xmap"}, "did you mean 'pmap'"),
        ({"ema_decay": 1.0}, "ema_decay=1.0"),
        ({"steps": 10**9}, "up to 10000000 times config.training.steps_per_call=10"),
        ({"log_every": 0}, "log_every=0"),
        ({"num_samples": 0}, "num_samples=0"),
        ({"num_samples": 10**12}, "num_samples=1000000000000.*1 to 10000"),
        ({"keep": 0}, "keep=0"),
        ({"patience": -1}, "patience=-1"),
        ({"patience": 2, "validate_every": 0}, "patience=2"),
        ({"log_every": 15}, "log_every=15.*multiple of config.training.steps_per_call=10"),
        ({"validate_every": 15}, "validate_every=15.*multiple"),
        ({"checkpoint_every": 15}, "checkpoint_every=15.*multiple"),
        ({"sample_every": 15}, "sample_every=15.*multiple"),
    ],
)
def test_training_refuses(fields, said):
    with pytest.raises(UserError, match=said):
        TrainingConfig(**fields)


def test_defaults_and_zero_cadences_fit():
    OptimizerConfig()
    optimizer_section("discriminator")()
    TrainingConfig(validate_every=0, checkpoint_every=0, sample_every=0)
