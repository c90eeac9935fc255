"""Configs that fit no model, or not its images, are refused in one line that names the value."""

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
        ("pixel_rnn", {"features": 3.5}, "type float"),
        ("pixel_rnn", {"features": 0}, "features=0"),
        ("pixel_rnn", {"dropout": 1.0}, "less than 1"),
        ("pixel_rnn", {"dropout": float("nan")}, "not finite"),
        ("pixel_rnn", {"order": "diagonal"}, "raster"),
        ("pixel_rnn", {"pixels": "embedding"}, "onehot"),
        ("pixel_rnn", {"previous": 0, "above": 0}, "1 or more"),
        ("pixel_rnn", {"readout": "bernoulli"}, "3 levels"),
        ("row_rnn", {"within": "autoregresive"}, "did you mean 'autoregressive'"),
        ("row_rnn", {"tied_readout": True, "readout": "logistic_mixture"}, "tied_readout"),
        ("row_rnn", {"tied_readout": True, "features": 5, "input_features": 6}, "tied_readout"),
        ("row_lstm", {"kernel": 4}, "kernel=4 does not fit; allowed: odd"),
        ("row_lstm", {"kernel": 1}, "kernel=1 does not fit; allowed: odd, 3 or more"),
        ("pixel_cnn", {"kernel": 2}, "kernel=2 does not fit; allowed: odd"),
        ("diagonal_bilstm", {"first_kernel": 6}, "first_kernel=6 does not fit; allowed: odd"),
        ("pixel_cnn", {"layers": 0}, "layers=0"),
        ("row_lstm", {"features": 0}, "features=0"),
        ("pixel_cnn", {"readout_hidden": -1}, "readout_hidden=-1"),
        ("diagonal_bilstm", {"remat": -1}, "remat=-1"),
        ("row_lstm", {"remat": -1}, "remat=-1"),
        ("pixel_cnn", {"dropout": 1.0}, "less than 1"),
        ("pixel_cnn", {"order": "serpentine"}, "allowed: column, raster, reverse"),
        ("pixel_cnn", {"pixels": "embedding"}, "onehot"),
        ("diagonal_bilstm", {"readout": "bernoulli"}, "3 levels"),
        ("row_lstm", {"cell": "lstn"}, "did you mean 'lstm'"),
        ("row_lstm", {"cell": "layer_norm_lstm"}, "cannot be convolved"),
        ("diagonal_bilstm", {"cell": "gru:variant=reset_before"}, "cannot be convolved"),
        ("row_lstm", {"cell": "rnn:input_weights=False"}, "cannot be convolved"),
        ("diagonal_bilstm", {"cell": "rg_lru:input_weights=False"}, "cannot be convolved"),
        ("row_lstm", {"strategy": "newton:window=8"}, "strategy='newton:window=8' takes places"),
        ("pixel_cnn", {"first_kernel": 1}, "3 or more"),
        ("vae", {"latents": 0}, "latents=0"),
        ("vae", {"kernel": 3}, "kernel=3 does not fit; allowed: an even number"),
        ("vae", {"stages": 3}, "stages=3 does not fit; allowed: 0 to 2"),
        ("vae", {"activation": "rule"}, "activation='rule' is not known; .*relu"),
        ("vae", {"dropout": 1.0}, "dropout=1.0"),
        ("vae", {"readout": "bernoulli"}, "3 levels"),
        ("vae", {"mixtures": 0, "readout": "logistic_mixture"}, "mixtures=0"),
        ("vae", {"beta": -1.0}, "beta=-1.0 does not fit; allowed: 0 or more"),
        ("classifier", {"hidden": 0}, "hidden=0"),
        ("classifier", {"kernel": 3}, "kernel=3 does not fit; allowed: an even number"),
        ("classifier", {"stages": 3}, "stages=3 does not fit; allowed: 0 to 2"),
        ("classifier", {"activation": "rule"}, "activation='rule' is not known; .*relu"),
        ("classifier", {"dropout": 1.0}, "dropout=1.0"),
        ("mlp_gan", {"noise": 0}, "noise=0"),
        ("mlp_gan", {"noise_kind": "gaussian"}, "noise_kind='gaussian'.*normal, uniform"),
        ("mlp_gan", {"loss": "hing"}, "did you mean 'hinge'"),
        ("mlp_gan", {"loss": "hinge", "label_smoothing": 0.1}, "label_smoothing=0.1.*no labels"),
        ("mlp_gan", {"label_smoothing": 1.0}, "label_smoothing=1.0"),
        ("mlp_gan", {"penalty": "r3"}, "penalty='r3'"),
        ("mlp_gan", {"penalty": "r1", "penalty_weight": -1.0}, "penalty_weight=-1.0"),
        ("mlp_gan", {"norm": "layer"}, "norm='layer'"),
        ("mlp_gan", {"discriminator_norm": "conditional_batch"}, "discriminator_norm='condit"),
        ("mlp_gan", {"dropout": 1.0}, "dropout=1.0"),
        ("mlp_gan", {"slope": 1.0}, "slope=1.0"),
        ("mlp_gan", {"augmentation": "colour"}, "did you mean 'color'"),
        ("mlp_gan", {"augmentation": "color,color"}, "each augmentation once"),
        ("mlp_gan", {"conditioning": "embed", "class_conditional": True}, "conditioning='embed'"),
        ("mlp_gan", {"codes": 1}, "codes=1"),
        ("mlp_gan", {"codes": -1}, "codes=-1"),
        ("mlp_gan", {"traits": -1}, "traits=-1"),
        ("mlp_gan", {"codes": 2, "information": -1.0}, "information=-1.0"),
        ("mlp_gan", {"hidden": 0}, "hidden=0"),
        ("mlp_gan", {"layers": 0}, "layers=0"),
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
        ("dcgan", {"features": 0}, "features=0"),
        ("dcgan", {"kernel": 1}, "kernel=1 does not fit; allowed: 2 or more"),
        ("dcgan", {"stages": 3}, "stages=3 does not fit; allowed: 0 to 2"),
        ("dcgan", {"stages": -1}, "stages=-1"),
        ("dcgan", {"grow": -1}, "grow=-1"),
        ("gru_gan", {"cell": "grru"}, "did you mean 'gru'"),
        ("gru_gan", {"step": "column"}, "step='column'"),
        ("gru_gan", {"discriminator": "recurent"}, "did you mean 'recurrent'"),
        ("gru_gan", {"share": "both"}, "share='both'"),
        ("gru_gan", {"layers": 0}, "layers=0"),
        ("gru_gan", {"channels": 0}, "channels=0"),
        ("gru_gan", {"discriminator": "recurrent", "share": "generator"}, "no convolutions"),
        ("gru_gan", {"discriminator": "recurrent", "discriminator_norm": "batch"}, "has no maps"),
        ("gru_gan", {"discriminator": "recurrent", "cell": "none"}, "cell='none'.*allowed: a cell"),
        ("gru_gan", {"cell": "none", "layers": 2}, "layers=2 has no effect with cell='none'"),
        ("gru_gan", {"cell": "none", "residual": True}, "residual=True"),
        ("gru_gan", {"cell": "none", "learned_carry": True}, "learned_carry=True"),
        ("gru_gan", {"cell": "none", "strategy": "loop"}, "strategy='loop' has no effect"),
        ("gru_gan", {"cell": "none", "remat": 2}, "remat=2 has no effect"),
        ("draw", {"beta": float("inf")}, "beta=inf.*not finite"),
        ("draw", {"beta_warmup": -1}, "beta_warmup=-1"),
        ("draw", {"free_bits": -0.1}, "free_bits=-0.1"),
        ("draw", {"steps": 0}, "steps=0"),
        ("draw", {"latents": 0}, "latents=0"),
        ("draw", {"read_size": -1}, "read_size=-1"),
        ("draw", {"read_size": 5}, "read_size=5 does not fit; allowed: 0 to 4"),
        ("draw", {"write_size": 5}, "write_size=5 does not fit; allowed: 0 to 4"),
        ("draw", {"remat": -1}, "remat=-1"),
        ("draw", {"layers": 0, "write_size": 4}, "layers=0"),
        ("draw", {"strategy": "loop"}, "strategy is not a field"),
        ("draw", {"readout": "softmax", "write_size": 4}, "readout='softmax'"),
        ("rnn_autoencoder", {"sequence": "row"}, "did you mean 'rows'"),
        ("rnn_autoencoder", {"sequence": "patches", "patch": 3}, "patch=3.*a divisor of 4 and 4"),
        ("rnn_autoencoder", {"patch": 0}, "patch=0"),
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
        ("rnn_autoencoder", {"latents": 0}, "latents=0"),
        ("rnn_autoencoder", {"pixels": "embedding"}, "onehot"),
        ("rnn_autoencoder", {"readout": "bernoulli"}, "3 levels"),
        ("rnn_autoencoder", {"remat": -1}, "remat=-1"),
    ],
)
def test_a_config_that_does_not_fit_is_refused_in_one_line(name, fields, message):
    with pytest.raises(UserError, match=message) as error:
        models.build(name, fields, SPEC)
    assert "\n" not in str(error.value)


def test_images_whose_sides_do_not_halve_cannot_grow():
    models.build("dcgan", {"grow": 5, "stages": 1}, SPEC._replace(height=6))
    with pytest.raises(UserError, match=r"grow=5 does not fit images of 6x4.*not halve 2") as error:
        models.build("dcgan", {"grow": 5, "stages": 2}, SPEC._replace(height=6))
    assert "\n" not in str(error.value)


def test_a_conditional_model_needs_labels():
    for name in models.names():
        fields = {} if name == "classifier" else {"class_conditional": True}
        with pytest.raises(UserError, match="without labels"):
            models.build(name, fields, SPEC._replace(classes=0))


RECURRENT = [m for m in models.names() if issubclass(models.config_class(m), RecurrentConfig)]
UNROLLED = [m for m in RECURRENT if issubclass(models.config_class(m), UnrolledConfig)]


@pytest.mark.parametrize("field", ["features", "layers"])
@pytest.mark.parametrize("name", RECURRENT)
def test_a_cell_of_no_size_is_refused_by_its_field(name, field):
    """The config speaks of the flag; the cell, which anyone may build, of its argument."""
    with pytest.raises(UserError, match=rf"^config\.model\.{field}=0 does not fit"):
        models.config_class(name)(**{field: 0})


@pytest.mark.parametrize("name", RECURRENT)
def test_how_a_cell_is_run_is_a_field_of_its_own(name):
    """The spelling of old is refused with the new one, of which DRAW has the cell alone."""
    other = r" and config\.model\.strategy=loop" if name in UNROLLED else ""
    said = rf"^config\.model\.cell='lstm@loop' is .*; set config\.model\.cell=lstm{other}\.$"
    with pytest.raises(UserError, match=said):
        models.build(name, {"cell": "lstm@loop"}, SPEC)


@pytest.mark.parametrize("name", UNROLLED)
def test_a_strategy_that_is_not_there_is_refused_with_its_nearest(name):
    for strategy, said in (
        ("sequental", "did you mean 'sequential'"),
        ("sequential:gate=store", "did you mean 'gates'"),
        ("", "'' is not known"),
    ):
        with pytest.raises(UserError, match=said):
            models.build(name, {"strategy": strategy}, SPEC)


@pytest.mark.parametrize("name", ["diagonal_bilstm", "row_lstm"])
def test_places_apart_may_be_run_by_any_strategy(name):
    models.build(name, {"cell": "min_gru", "strategy": "newton"}, SPEC)
    with pytest.raises(UserError, match="allowed: associative, auto, loop, sequential"):
        models.build(name, {"cell": "gru", "strategy": "newton"}, SPEC)
