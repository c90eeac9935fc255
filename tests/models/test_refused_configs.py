"""Invalid configs, and configs unsuitable for the images, raise one line that names the value."""

import pytest

from rnngen_jax import models
from rnngen_jax.errors import UserError
from rnngen_jax.models.recurrent import RecurrentConfig, UnrolledConfig
from rnngen_jax.shapes import ImageSpec

SPEC = ImageSpec(4, 4, levels=3, classes=2)


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("pixel_rn", {}, "did you mean 'pixel_rnn'"),
        ("pixel_rnn", {"feature": 3}, "did you mean 'features'"),
        ("pixel_rnn", {"features": 3.5}, "must be of type int, got 3.5 of type float"),
        ("pixel_rnn", {"features": 0}, "features must be ≥ 1, got 0"),
        ("pixel_rnn", {"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
        ("pixel_rnn", {"dropout": float("nan")}, "must be finite, got nan"),
        ("pixel_rnn", {"order": "diagonal"}, "raster"),
        ("pixel_rnn", {"pixels": "embedding"}, "onehot"),
        ("pixel_rnn", {"previous": 0, "above": 0}, "previous must be ≥ 1 if .*above is 0"),
        ("pixel_rnn", {"readout": "bernoulli"}, "3 levels"),
        ("row_rnn", {"within": "autoregresive"}, "did you mean 'autoregressive'"),
        ("row_rnn", {"residual": True}, "residual=True has no effect with layers=1"),
        ("row_rnn", {"within_features": 3}, "no effect with within='independent'"),
        ("row_rnn", {"mixtures": 3}, "mixtures=3 has no effect with readout='categorical'"),
        ("vae", {"mixtures": 3}, "mixtures=3 has no effect with readout='categorical'"),
        ("row_rnn", {"tied_readout": True, "readout": "logistic_mixture"}, "tied_readout"),
        ("row_rnn", {"tied_readout": True, "features": 5, "input_features": 6}, "tied_readout"),
        ("row_lstm", {"kernel": 4}, "kernel must be odd and ≥ 3, got 4"),
        ("row_lstm", {"kernel": 1}, "kernel must be odd and ≥ 3, got 1"),
        ("pixel_cnn", {"kernel": 2}, "kernel must be odd and ≥ 3, got 2"),
        ("diagonal_bilstm", {"first_kernel": 6}, "first_kernel must be odd and ≥ 3, got 6"),
        ("pixel_cnn", {"layers": 0}, "layers must be ≥ 1, got 0"),
        ("row_lstm", {"features": 0}, "features must be ≥ 1, got 0"),
        ("pixel_cnn", {"readout_hidden": -1}, "readout_hidden must be ≥ 0, got -1"),
        ("diagonal_bilstm", {"remat": -1}, "remat must be ≥ 0, got -1"),
        ("row_lstm", {"remat": -1}, "remat must be ≥ 0, got -1"),
        ("pixel_cnn", {"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
        ("pixel_cnn", {"order": "serpentine"}, "must be one of column, raster, reverse"),
        ("pixel_cnn", {"pixels": "embedding"}, "onehot"),
        ("diagonal_bilstm", {"readout": "bernoulli"}, "3 levels"),
        ("row_lstm", {"cell": "lstn"}, "did you mean 'lstm'"),
        ("row_lstm", {"cell": "layer_norm_lstm"}, "cannot be convolved"),
        ("diagonal_bilstm", {"cell": "gru:variant=reset_before"}, "cannot be convolved"),
        ("row_lstm", {"cell": "rnn:input_weights=False"}, "cannot be convolved"),
        ("diagonal_bilstm", {"cell": "rg_lru:input_weights=False"}, "cannot be convolved"),
        ("row_lstm", {"strategy": "newton:window=8"}, "'newton:window=8' needs independent places"),
        ("pixel_cnn", {"first_kernel": 1}, "must be odd and ≥ 3, got 1"),
        ("vae", {"latents": 0}, "latents must be ≥ 1, got 0"),
        ("vae", {"kernel": 3}, "kernel must be even, got 3"),
        ("vae", {"stages": 3}, r"stages must be in \[0, 2\], got 3"),
        ("vae", {"activation": "rule"}, "activation must be one of .*got 'rule'.*'relu'"),
        ("vae", {"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
        ("vae", {"readout": "bernoulli"}, "3 levels"),
        ("vae", {"mixtures": 0, "readout": "logistic_mixture"}, "mixtures must be ≥ 1, got 0"),
        ("vae", {"prior": "recurent"}, "prior must be one of normal, recurrent, .*'recurrent'"),
        ("vae", {"prior": "normal:features=3"}, "prior must be 'normal', which has no options"),
        (
            "vae",
            {"prior": "recurrent:features=0"},
            "prior 'recurrent': features must be ≥ 1, got 0",
        ),
        ("vae", {"prior": "recurrent:cell=gur"}, "did you mean 'gru'"),
        ("vae", {"prior": "recurrent", "free_bits": 0.5}, "free_bits=0.5 has no effect with prior"),
        ("vae", {"beta": -1.0}, "beta must be ≥ 0, got -1.0"),
        ("code_rnn", {"heads": "2x2"}, "heads must be numbers whose product is 3, the number of c"),
        (
            "code_rnn",
            {"heads": "3x"},
            "numbers ≥ 2 with x between, such as 8x5x5, or 2.9, got '3x'",
        ),
        ("code_rnn", {"heads": "3x1"}, "heads must be numbers ≥ 2 with x between"),
        ("code_rnn", {"heads": "2^0"}, "heads must be numbers ≥ 2 with x between"),
        ("code_rnn", {"chained": False}, "chained=False has no effect with heads=''"),
        ("classifier", {"hidden": 0}, "hidden must be ≥ 1, got 0"),
        ("classifier", {"kernel": 3}, "kernel must be even, got 3"),
        ("classifier", {"stages": 3}, r"stages must be in \[0, 2\], got 3"),
        ("classifier", {"activation": "rule"}, "activation must be one of .*got 'rule'.*'relu'"),
        ("classifier", {"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
        ("mlp_gan", {"noise": 0}, "noise must be ≥ 1, got 0"),
        (
            "mlp_gan",
            {"noise_kind": "gaussian"},
            "noise_kind must be one of normal, uniform, got 'gaussian'",
        ),
        ("mlp_gan", {"loss": "hing"}, "did you mean 'hinge'"),
        (
            "mlp_gan",
            {"loss": "hinge", "label_smoothing": 0.1},
            "label_smoothing must be 0 with loss='hinge', .*no labels, got 0.1",
        ),
        ("mlp_gan", {"label_smoothing": 1.0}, r"label_smoothing must be in \[0, 1\), got 1.0"),
        (
            "mlp_gan",
            {"penalty": "r3"},
            "penalty must be one of dragan, none, r1, r1_r2, r2, wgan_gp, got 'r3'",
        ),
        (
            "mlp_gan",
            {"penalty": "r1", "penalty_weight": -1.0},
            "penalty_weight must be ≥ 0, got -1.0",
        ),
        (
            "mlp_gan",
            {"norm": "layer"},
            "norm must be one of batch, conditional_batch, none, got 'layer'",
        ),
        (
            "mlp_gan",
            {"discriminator_norm": "conditional_batch"},
            "discriminator_norm must be one of batch, none, got 'conditional_batch'",
        ),
        ("mlp_gan", {"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
        ("mlp_gan", {"slope": 1.0}, r"slope must be in \[0, 1\), got 1.0"),
        ("mlp_gan", {"augmentation": "colour"}, "did you mean 'color'"),
        ("mlp_gan", {"augmentation": "color,color"}, "must be a list without repeats"),
        (
            "mlp_gan",
            {"conditioning": "embed", "class_conditional": True},
            "conditioning must be one of auxiliary, concat, projection, got 'embed'",
        ),
        ("mlp_gan", {"codes": 1}, "codes must be 0 or ≥ 2, got 1"),
        ("mlp_gan", {"codes": -1}, "codes must be ≥ 0, got -1"),
        ("mlp_gan", {"traits": -1}, "traits must be ≥ 0, got -1"),
        ("mlp_gan", {"codes": 2, "information": -1.0}, "information must be ≥ 0, got -1.0"),
        ("mlp_gan", {"hidden": 0}, "hidden must be ≥ 1, got 0"),
        ("mlp_gan", {"layers": 0}, "layers must be ≥ 1, got 0"),
        ("mlp_gan", {"penalty": "r1", "discriminator_norm": "batch"}, "depends on other images"),
        ("mlp_gan", {"norm": "conditional_batch"}, "needs classes"),
        (
            "mlp_gan",
            {"penalty_weight": 1.0},
            "penalty_weight=1.0 has no effect with penalty='none'",
        ),
        ("mlp_gan", {"conditioning": "concat"}, "no effect with class_conditional=False"),
        (
            "mlp_gan",
            {"information": 2.0},
            "information=2.0 has no effect with codes=0 and traits=0",
        ),
        ("dcgan", {"features": 0}, "features must be ≥ 1, got 0"),
        ("dcgan", {"kernel": 1}, "kernel must be ≥ 2, got 1"),
        ("dcgan", {"stages": 3}, r"stages must be in \[0, 2\], got 3"),
        ("dcgan", {"stages": -1}, "stages must be ≥ 0, got -1"),
        ("dcgan", {"grow": -1}, "grow must be ≥ 0, got -1"),
        ("vqgan", {"kernel": 3}, "kernel must be even, got 3"),
        ("vqgan", {"penalty": "r3"}, "penalty must be one of"),
        ("vqgan", {"adversarial_weight": 0.0}, "weight must be > 0 .*no discriminator.*, got 0.0"),
        ("vqgan", {"adversarial_start": -1}, "adversarial_start must be ≥ 0, got -1"),
        ("vqgan", {"perceptual_weight": -1.0}, "perceptual_weight must be ≥ 0, got -1.0"),
        ("vqgan", {"discriminator_features": 0}, "discriminator_features must be ≥ 1, got 0"),
        ("vqgan", {"discriminator_kernel": 1}, "discriminator_kernel must be ≥ 2, got 1"),
        ("vqgan", {"discriminator_stages": 3}, r"discriminator_stages must be in \[0, 2\], got 3"),
        (
            "vqgan",
            {"discriminator_norm": "batch", "discriminator_stages": 1},
            "no other; set config.model.discriminator_stages",
        ),
        ("gru_gan", {"cell": "grru"}, "did you mean 'gru'"),
        ("gru_gan", {"step": "column"}, "step must be one of patch, row, got 'column'"),
        ("gru_gan", {"discriminator": "recurent"}, "did you mean 'recurrent'"),
        (
            "gru_gan",
            {"share": "both"},
            "share must be one of discriminator, generator, none, got 'both'",
        ),
        ("gru_gan", {"layers": 0}, "layers must be ≥ 1, got 0"),
        ("gru_gan", {"channels": 0}, "channels must be ≥ 1, got 0"),
        ("gru_gan", {"discriminator": "recurrent", "share": "generator"}, "no convolutions"),
        ("gru_gan", {"discriminator": "recurrent", "discriminator_norm": "batch"}, "has no maps"),
        (
            "gru_gan",
            {"discriminator": "recurrent", "cell": "none"},
            "cell must be a cell.*got 'none'",
        ),
        ("gru_gan", {"cell": "none", "layers": 2}, "layers=2 has no effect with cell='none'"),
        ("gru_gan", {"cell": "none", "residual": True}, "residual=True"),
        ("gru_gan", {"cell": "none", "learned_carry": True}, "learned_carry=True"),
        ("gru_gan", {"cell": "none", "strategy": "loop"}, "strategy='loop' has no effect"),
        ("gru_gan", {"cell": "none", "remat": 2}, "remat=2 has no effect"),
        ("draw", {"beta": float("inf")}, "beta must be finite, got inf"),
        ("draw", {"beta_warmup": -1}, "beta_warmup must be ≥ 0, got -1"),
        ("draw", {"free_bits": -0.1}, "free_bits must be ≥ 0, got -0.1"),
        ("draw", {"steps": 0}, "steps must be ≥ 1, got 0"),
        ("draw", {"latents": 0}, "latents must be ≥ 1, got 0"),
        ("draw", {"read_size": -1}, "read_size must be ≥ 0, got -1"),
        ("draw", {"read_size": 5}, r"read_size must be in \[0, 4\].*, got 5"),
        ("draw", {"write_size": 5}, r"write_size must be in \[0, 4\].*, got 5"),
        ("draw", {"remat": -1}, "remat must be ≥ 0, got -1"),
        ("draw", {"layers": 0, "write_size": 4}, "layers must be ≥ 1, got 0"),
        ("draw", {"strategy": "loop"}, "strategy is not a field"),
        (
            "draw",
            {"readout": "softmax", "write_size": 4},
            "readout must be one of .*, got 'softmax'",
        ),
        ("rnn_autoencoder", {"sequence": "row"}, "did you mean 'rows'"),
        (
            "rnn_autoencoder",
            {"sequence": "patches", "patch": 3},
            "patch must be a divisor of 4 and 4.*got 3",
        ),
        ("rnn_autoencoder", {"patch": 0}, "patch must be ≥ 1, got 0"),
        (
            "rnn_autoencoder",
            {"strategy": "sequential", "attention": "dot"},
            "strategy='sequential' has no effect with attention='dot', whose decoder",
        ),
        ("rnn_autoencoder", {"attention": "dott"}, "did you mean 'dot'"),
        ("rnn_autoencoder", {"attend": "state"}, "did you mean 'states'"),
        ("rnn_autoencoder", {"decoder": "fre"}, "did you mean 'free'"),
        ("rnn_autoencoder", {"latent": "determinstic"}, "did you mean 'deterministic'"),
        ("rnn_autoencoder", {"latent": "deterministic", "beta": 2.0}, "beta=2.0.*has no KL"),
        ("rnn_autoencoder", {"latent": "deterministic", "beta_warmup": 1}, "beta_warmup=1.*no KL"),
        ("rnn_autoencoder", {"latent": "deterministic", "free_bits": 0.1}, "free_bits=0.1.*no KL"),
        ("rnn_autoencoder", {"latents": 0}, "latents must be ≥ 1, got 0"),
        ("rnn_autoencoder", {"pixels": "embedding"}, "onehot"),
        ("rnn_autoencoder", {"readout": "bernoulli"}, "3 levels"),
        ("rnn_autoencoder", {"remat": -1}, "remat must be ≥ 0, got -1"),
    ],
)
def test_a_config_that_does_not_fit_is_refused_in_one_line(name, fields, message):
    with pytest.raises(UserError, match=message) as error:
        models.build(name, fields, SPEC)
    assert "\n" not in str(error.value)


def test_images_whose_sides_do_not_halve_cannot_grow():
    models.build("dcgan", {"grow": 5, "stages": 1}, SPEC._replace(height=6))
    said = r"grow must be 0 for images of 6x4, got 5: .* evenly 2 times"
    with pytest.raises(UserError, match=said) as error:
        models.build("dcgan", {"grow": 5, "stages": 2}, SPEC._replace(height=6))
    assert "\n" not in str(error.value)


CONDITIONAL = [m for m in models.names() if hasattr(models.config_class(m), "class_conditional")]


@pytest.mark.parametrize(
    ("name", "fields"),
    [("classifier", {}), *((name, {"class_conditional": True}) for name in CONDITIONAL)],
)
def test_a_conditional_model_needs_labels(name, fields):
    frames = 2 if name == "video_rnn" else 0
    with pytest.raises(UserError, match="without labels"):
        models.build(name, fields, SPEC._replace(classes=0, frames=frames))


RECURRENT = [m for m in models.names() if issubclass(models.config_class(m), RecurrentConfig)]
UNROLLED = [m for m in RECURRENT if issubclass(models.config_class(m), UnrolledConfig)]


@pytest.mark.parametrize("field", ["features", "layers"])
@pytest.mark.parametrize("name", RECURRENT)
def test_a_cell_of_no_size_is_refused_by_its_field(name, field):
    """The config's message names the flag; the cell's own message names its argument."""
    with pytest.raises(UserError, match=rf"^config\.model\.{field} must be ≥ 1, got 0"):
        models.config_class(name)(**{field: 0})


@pytest.mark.parametrize("name", RECURRENT)
def test_how_a_cell_is_run_is_a_field_of_its_own(name):
    """The former spelling is refused with the new one; DRAW has no `strategy`."""
    other = r" and config\.model\.strategy=loop" if name in UNROLLED else ""
    said = rf"^config\.model\.cell='lstm@loop' is .*; set config\.model\.cell=lstm{other}\.$"
    with pytest.raises(UserError, match=said):
        models.build(name, {"cell": "lstm@loop"}, SPEC)


@pytest.mark.parametrize("name", UNROLLED)
def test_a_strategy_that_is_not_there_is_refused_with_its_nearest(name):
    for strategy, said in (
        ("sequental", "did you mean 'sequential'"),
        ("sequential:gate=store", "did you mean 'gates'"),
        ("", "strategy must be one of .*got ''"),
    ):
        with pytest.raises(UserError, match=said):
            models.build(name, {"strategy": strategy}, SPEC)


@pytest.mark.parametrize("name", ["diagonal_bilstm", "row_lstm"])
def test_places_apart_may_be_run_by_any_strategy(name):
    models.build(name, {"cell": "min_gru", "strategy": "newton"}, SPEC)
    with pytest.raises(UserError, match="allowed: associative, auto, loop, sequential"):
        models.build(name, {"cell": "gru", "strategy": "newton"}, SPEC)
