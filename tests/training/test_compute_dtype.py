"""bfloat16 in training: in the products of every model's step, and nowhere else."""

import functools

import compute_dtypes
import jax
import numpy as np
import pytest
import traced
import training_toys as toys

from rnngen_jax import continuing, experiment, models
from rnngen_jax.data.base import Dataset, Split
from rnngen_jax.pods.programs import programs
from rnngen_jax.shapes import spec_of
from rnngen_jax.training import program

# Settings of every model that together have all its products, as sections of a config.
SMALL = {"features": 6, "class_conditional": True}
ENTRY = {"input_features": 6}
WINDOWS = {"read_size": 2, "write_size": 2}
GAN = {"noise": 3, "class_conditional": True, "slope": 0.1, "codes": 2, "traits": 2}
STEPS = {
    "classifier": [{"model": {"features": 6, "stages": 1}}],
    "dcgan": [
        {"model": {**GAN, "features": 8, "stages": 2, "attention": True, "penalty": "wgan_gp"}}
    ],
    "diagonal_bilstm": [{"model": SMALL}, {"model": {**SMALL, "cell": "min_gru"}}],
    "draw": [{"model": {**SMALL, "steps": 2, "readout": "gaussian", "latents": 2, **WINDOWS}}],
    "gru_gan": [
        {
            "model": {
                **GAN,
                "features": 6,
                "channels": 3,
                "cell": "lstm",
                "discriminator": "recurrent",
                "strategy": "sequential:gradient=autodiff",
                "penalty": "r1",
            }
        }
    ],
    "mlp_gan": [{"model": {"noise": 3, "hidden": 5}}],
    "pixel_cnn": [{"model": {**SMALL, "gated": True}}],
    "pixel_rnn": [{"model": {**SMALL, **ENTRY, "cell": "layer_norm_gru", "pixels": "scalar"}}],
    "rnn_autoencoder": [
        {"model": {**SMALL, **ENTRY, "latents": 2, "attention": "additive", "patch": 2}},
        {"model": {**SMALL, **ENTRY, "latents": 2, "decoder": "autoregressive", "patch": 2}},
    ],
    "row_lstm": [{"model": {**SMALL, "remat": 2}}],
    "row_rnn": [
        {"model": {**SMALL, **ENTRY, "within": "autoregressive", "cell": "rg_lru"}},
        {"model": {**SMALL, **ENTRY, "tied_readout": True}},
    ],
    "video_rnn": [
        {"model": {**SMALL, **ENTRY}},
        {
            "model": {
                **SMALL,
                "maps": True,
                "encoder": "patches:size=2",
                "feeding": "scheduled",
                "readout": "logistic_mixture",  # whose mean has no product
            }
        },
    ],
    "vae": [{"model": {**SMALL, "latents": 2, "hidden": 5}, "training": {"micro_batches": 2}}],
}
# Steps with products that are never rounded, and why.
EXACT = {
    "spectral": (
        "mlp_gan",
        {"model": {"noise": 3, "hidden": 5, "spectral": True}},
        "power iterations, whose σ divides every kernel",
    ),
    "private": (
        "mlp_gan",
        {"model": {"noise": 3, "hidden": 5}, "discriminator": {"private_noise": 1.0}},
        "clipped gradients, which may not be longer than their noise allows for",
    ),
    "expected": (
        "draw",
        {"model": {**SMALL, "steps": 2, "latents": 2, **WINDOWS}},
        "the mean of a categorical distribution, which the next step reads",
    ),
}
# Models of codes. A codebook's products are never rounded, nor is the tokenizer of a prior, whose
# codes are those of evaluation.
CODED = {
    "vqvae": {traced.ROUNDED, traced.EXACT},
    "vqgan": {traced.ROUNDED, traced.EXACT},
    "code_rnn": {traced.ROUNDED, traced.EXACT, traced.PLAIN},
    "code_prior": {traced.ROUNDED, traced.EXACT, traced.PLAIN},
}
CASES = [(name, given) for name, each in STEPS.items() for given in each]
SPEC = spec_of((4, 4, 1), 17, 2)
SPECS = {"video_rnn": spec_of((3, 4, 4, 1), 17, 2)}


def settings(name, given, dtype="bfloat16", **training):
    """A checked experiment with a model's settings."""
    config = experiment.default(name)
    for section, fields in given.items():
        config[section].update(fields)
    config.training.update(compute_dtype=dtype, **training)
    return continuing.resolve(experiment.check(config))


@functools.cache
def shapes(spec, num):
    return {
        spec.key: jax.ShapeDtypeStruct((num, *spec.shape), spec.dtype),
        "label": jax.ShapeDtypeStruct((num,), np.int32),
        "index": jax.ShapeDtypeStruct((num,), np.int32),
    }


def equations(name, given, dtype):
    """The operations of a training step, which keeps the types of its state."""
    of = settings(name, given, dtype)
    spec = SPECS.get(name, SPEC)
    model = experiment.build(of, spec)
    state = jax.eval_shape(program.initial_state(model, of.optimizers, of.training))
    step = program.one_step(model, of.optimizers, of.training, lambda batch, key: batch)
    batch = shapes(spec, 4 * program.batches_per_step(of.optimizers))
    after = []

    def keeping(*given):
        result = step(*given)
        after.append(jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), result))
        return result

    found = traced.equations(keeping, state, batch, jax.random.key(0))
    assert after[0][0] == jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), state)
    assert {dtype for _, dtype in after[0][1].values()} == {np.dtype("float32")}
    return found


def test_all_models_are_listed():
    assert {*STEPS, *CODED} == set(models.names())


@pytest.mark.parametrize("name", CODED)
def test_codes_are_those_of_float32(name):
    found = equations(name, {}, "bfloat16")
    assert set(traced.products(found)) == CODED[name]
    plain = traced.products(found).count(traced.PLAIN)
    if plain:  # the tokenizer's alone, which is run forwards: as many as in float32
        exact = traced.products(equations(name, {}, "float32"))
        assert plain + traced.products(found).count(traced.ROUNDED) == exact.count(traced.PLAIN)


@pytest.mark.parametrize(("name", "given"), CASES, ids=[name for name, _ in CASES])
def test_operands_of_all_products_are_rounded_and_nothing_else(name, given):
    found = equations(name, given, "bfloat16")
    assert set(traced.products(found)) == {traced.ROUNDED}
    assert traced.holders(found) <= {*traced.MOVES, "dot_general"}
    assert "bfloat16" not in traced.carries(found)
    # A penalty's second gradient of attention's weights is of what the first has kept, rounded.
    attends = given["model"].get("attention") is True
    assert bool(traced.narrowed(found)) == attends


@pytest.mark.parametrize("case", EXACT)
def test_products_that_are_never_rounded(case):
    name, given, _ = EXACT[case]
    found = traced.products(equations(name, given, "bfloat16"))
    assert set(found) == {traced.ROUNDED, traced.EXACT}


@pytest.mark.parametrize("name", ["gru_gan", "row_rnn", "vae"])
def test_by_default_nothing_is_bfloat16(name):
    found = equations(name, STEPS[name][0], "float32")
    assert not traced.holders(found)
    assert {one[:3] for one in traced.products(found)} == {("float32",) * 3}


@pytest.mark.parametrize("name", ["pixel_rnn", "vae"])
def test_evaluation_and_samples_are_those_of_float32(name):
    def texts(dtype):
        of = settings(name, STEPS[name][0], dtype, batch_size=8, micro_batches=1)
        dataset = Dataset("toy", SPEC, {"train": Split(64, None)}, "none", 256)
        made = programs(of, dataset).items()
        return {one: each.lower(jax.devices()[:1], 2).as_text() for one, each in made}

    exact, rounded = texts("float32"), texts("bfloat16")
    assert exact.keys() == {"train", "evaluate", "sample"}
    assert "bf16" in rounded.pop("train")
    assert "bf16" not in exact.pop("train")
    assert rounded == exact


def test_a_run_goes_on_bit_equal(tmp_path):
    for workdir, steps in (("parts", 10), ("parts", 20), ("whole", 20)):
        toys.run(tmp_path / workdir, steps=steps, compute_dtype="bfloat16", ema_decay=0.9)
    parts, whole = toys.final(tmp_path / "parts"), toys.final(tmp_path / "whole")
    jax.tree.map(np.testing.assert_array_equal, parts.params, whole.params)
    assert toys.lines(tmp_path / "parts") == toys.lines(tmp_path / "whole")


def test_seeds_trained_at_once_are_those_trained_alone(tmp_path):
    given = {"steps": 10, "compute_dtype": "bfloat16"}
    toys.run(tmp_path / "both", seeds=2, **given)
    both = toys.lines(tmp_path / "both")
    for seed in (0, 1):
        toys.run(tmp_path / str(seed), seed=seed, **given)
        for one, line in zip(toys.lines(tmp_path / str(seed)), both, strict=True):
            np.testing.assert_allclose(
                line[f"loss/model/seed_{seed}"], one["loss/model"], rtol=1e-4
            )


def test_a_run_keeps_its_precision():
    given = {"model": {}}
    begun, other = (settings("pixel_rnn", given, dtype) for dtype in ("float32", "bfloat16"))
    assert continuing.difference(begun, other) == [
        "training.compute_dtype: 'float32' -> 'bfloat16'"
    ]
    # Its checkpoints are those of a model whose parameters are float32 in either.
    assert continuing.identity(begun, SPEC) == continuing.identity(other, SPEC)
    record = experiment.to_dict(begun)
    del record["training"]["compute_dtype"]  # as runs of earlier versions have it
    assert continuing.difference(experiment.from_record(record, "config.json"), begun) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", models.names())
def test_two_hundred_steps_are_like_those_in_float32(name):
    """Over three seeds, the means differ by less than the seeds do; `-s` shows the table's rows."""
    exact, rounded = (compute_dtypes.train(name, dtype) for dtype in ("float32", "bfloat16"))
    for line in compute_dtypes.rows(name, exact, rounded):
        print(line)
    for player, losses in exact.losses.items():
        assert abs(rounded.losses[player].mean() - losses.mean()) < np.ptp(losses)
        assert (rounded.losses[player] != losses).any()
    difference = rounded.measured.mean() - exact.measured.mean()
    assert abs(difference) < np.ptp(exact.measured)
