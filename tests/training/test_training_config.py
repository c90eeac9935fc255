"""The config sections refuse invalid fields and say what is allowed."""

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
        ({"learning_rate": 0.0}, "learning_rate must be > 0, got 0.0"),
        ({"warmup_steps": -2}, "warmup_steps must be ≥ 0, or -1 to use warmup_fraction, got -2"),
        ({"warmup_fraction": 1.0}, r"warmup_fraction must be in \[0, 1\), got 1.0"),
        ({"warmup_fraction": -0.1}, r"warmup_fraction must be in \[0, 1\), got -0.1"),
        ({"warmup_steps": 0, "warmup_fraction": 0.1}, "warmup_fraction=0.1 has no effect with war"),
        ({"schedule": "cosine", "decay_steps": -1}, "decay_steps must be ≥ 0, got -1"),
        ({"b1": 1.0}, r"b1 must be in \[0, 1\), got 1.0"),
        ({"b2": -0.1}, r"b2 must be in \[0, 1\), got -0.1"),
        ({"name": "rmsprop", "decay": 1.0}, r"decay must be in \[0, 1\), got 1.0"),
        ({"name": "sgd", "momentum": 1.5}, r"momentum must be in \[0, 1\), got 1.5"),
        ({"eps": 0.0}, "eps must be > 0, got 0.0"),
        ({"l1": -1.0}, "l1 must be ≥ 0, got -1.0"),
        ({"l2": -1.0}, "l2 must be ≥ 0, got -1.0"),
        ({"clip_norm": -1.0}, "clip_norm must be ≥ 0, got -1.0"),
        ({"name": "adamw", "weight_decay": -1.0}, "weight_decay must be ≥ 0, got -1.0"),
        (
            {"schedule": "cosine", "final_fraction": 2.0},
            r"final_fraction must be in \[0, 1\], got 2.0",
        ),
        (
            {"schedule": "exponential", "final_fraction": 0.0},
            "must be > 0 with schedule='exponential'",
        ),
        ({"clip_weights": -0.01}, "clip_weights must be ≥ 0, got -0.01"),
        ({"updates_per_step": 0}, "updates_per_step must be ≥ 1, got 0"),
        ({"private_noise": -1.0}, "private_noise must be ≥ 0, got -1.0"),
        ({"private_noise": 1.0, "private_clip": 0.0}, "private_clip must be > 0, got 0.0"),
        (
            {"private_noise": 1.0, "private_delta": 0.0},
            r"private_delta must be in \(0, 1\), got 0.0",
        ),
        (
            {"private_noise": 1.0, "private_delta": 1.0},
            r"private_delta must be in \(0, 1\), got 1.0",
        ),
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
        ({"steps": 0}, "steps must be ≥ 1, got 0"),
        ({"batch_size": 0}, "batch_size must be ≥ 1, got 0"),
        ({"seed": -1}, r"seed must be in \[0, 2147483647\], got -1"),
        ({"seeds": 0}, "seeds must be ≥ 1, got 0"),
        ({"seeds": 2, "seed": 2**31 - 1}, r"seed must be in \[0, 2147483646\], got 2147483647"),
        (
            {"seeds": 2, "parallelism": "pmap"},
            "seeds must be 1 unless config.training.parallelism='jit', got 2",
        ),
        ({"steps_per_call": 0}, "steps_per_call must be ≥ 1, got 0"),
        ({"parallelism": "xmap"}, "did you mean 'pmap'"),
        (
            {"compute_dtype": "float16"},
            "compute_dtype must be one of bfloat16, float32, got 'float16'",
        ),
        ({"ema_decay": 1.0}, r"ema_decay must be in \[0, 1\), got 1.0"),
        ({"steps": 10**9}, "must be ≤ 10000000 times config.training.steps_per_call=10"),
        ({"log_every": 0}, "log_every must be ≥ 1, got 0"),
        ({"num_samples": 0}, "num_samples must be ≥ 1, got 0"),
        ({"num_samples": 10**12}, r"num_samples must be in \[1, 10000\], got 1000000000000"),
        ({"keep": 0}, "keep must be ≥ 1, got 0"),
        ({"patience": -1}, "patience must be ≥ 0, got -1"),
        (
            {"patience": 2, "validate_every": 0},
            "patience must be 0 with config.training.validate_every=0, got 2",
        ),
        (
            {"log_every": 15},
            "log_every must be a multiple of config.training.steps_per_call=10, got 15",
        ),
        (
            {"validate_every": 15},
            "validate_every must be a multiple of config.training.steps_per_call=10, got 15",
        ),
        (
            {"checkpoint_every": 15},
            "checkpoint_every must be a multiple of config.training.steps_per_call=10, got 15",
        ),
        (
            {"sample_every": 15},
            "sample_every must be a multiple of config.training.steps_per_call=10, got 15",
        ),
    ],
)
def test_training_refuses(fields, said):
    with pytest.raises(UserError, match=said):
        TrainingConfig(**fields)


def test_defaults_and_zero_cadences_fit():
    OptimizerConfig()
    optimizer_section("discriminator")()
    TrainingConfig(validate_every=0, checkpoint_every=0, sample_every=0)
